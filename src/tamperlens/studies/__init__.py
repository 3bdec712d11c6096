"""Floor 4: experiments that combine measures.

Contents: `audit` (rates, direction, attack, everything again, report); `auditing/` holds its parts: inputs,
stages, tables, figures, words, page.

`trajectory` (everything at every step, and what changes first); `following/` holds its parts and `Monitor`.

`spillover` (what a gain in refusal costs in capability, over-refusal beside it); `spill/` holds its parts.
"""
