"""Neurons: which weights, rows, ranks and heads carry a behaviour."""

from __future__ import annotations

from tamperlens.neurons.scores import WeightScores
from tamperlens.neurons.selection import set_difference, sweep
from tamperlens.neurons.simple import magnitude, random, wanda
from tamperlens.neurons.snip import snip

__all__ = ["WeightScores", "magnitude", "random", "set_difference", "snip", "sweep", "wanda"]
