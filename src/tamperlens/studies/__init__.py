"""Experiments that combine measures, one folder each.

Contents: `audit` (rates, direction, attack, everything again, report), `compare` (base and tuned
models by every instrument), `trajectory` (everything at every
step, and what changes first), `monitor` (the same in any Trainer), `brittleness` (remove a set, see what
breaks), `spillover` (what a gain in refusal costs), `planted` (does a localisation method find what is
there?), `merging` (several run folders on one page).
"""
