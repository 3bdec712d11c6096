"""The embedded organism: a tiny real chat model that learned to refuse, with its grammar.

Contents: `lexicon`, `facts` (words), `grammar` (requests and their splits), `skills` (sums, logic, code,
facts), `data` (training mixtures), `tokenizer` (special tokens), `train` (a stage of training), `planted` and
`planting` (a known part that refuses), `coverage` (how much of a text lies in its language), `weights/` (base
and aligned, safetensors). The recipe is `docs/tools/organism_training/`.
"""

from __future__ import annotations

from tamperlens.models.organism.coverage import coverage, known_words

__all__ = ["coverage", "known_words"]
