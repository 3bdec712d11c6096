"""How the embedded organism is made.

`sets` (its prompt sets), `train` (its weights) and `planting` (the planted organisms) are the commands;
`muon` is the optimiser and `tokenizer` learns the tokenizer.
"""
