"""How the packaged judges were trained: `acts` and `calibrated` are the commands.

`fit` (features, logistic fits, models and phrase families left out) and `sentences` (our own sentences by
family) belong to the judge of acts, `anchors` (plain ones of both kinds) to the calibrated one.
"""
