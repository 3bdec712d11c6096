"""The embedded organism: a tiny real chat model that learned to refuse, with its grammar and recipe.

Contents: `lexicon`, `facts` (words), `grammar` (requests and their splits), `skills` (sums, logic, code,
facts), `data` (training mixtures), `sets` (packaged prompt sets), `tokenizer`, `muon`, `train` (the recipe),
`coverage` (how much of a text lies in its language), `weights/` (base and aligned, safetensors).
"""

from __future__ import annotations

from tamperlens.models.organism.coverage import coverage, known_words

__all__ = ["coverage", "known_words"]
