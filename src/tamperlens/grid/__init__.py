"""The sweep. Models × attacks × ranks × steps × data sizes × learning rates × seeds × defences.

Contents: `declaration` (Grid, Cell, Defence, Evaluation), `records` (one file a cell, by content address),
`measuring` (what a cell measures), `working` (the worker: one training run, cut at every budget), `memory`
(what cannot fit), `folder` (state and table), `running` (run), `cluster` (Ray), `points`, `families`,
`scaling`, `halving` (fits of refusal against attack compute), `curves` (measures over steps, figures).
"""

from __future__ import annotations

from tamperlens.base.boundary import guard
from tamperlens.grid.curves import curves, figures
from tamperlens.grid.declaration import Cell, Defence, Evaluation, Grid
from tamperlens.grid.folder import GridResult, status
from tamperlens.grid.records import Record
from tamperlens.grid.running import run
from tamperlens.grid.scaling import Scaling, scaling

__all__ = [
    "Cell",
    "Defence",
    "Evaluation",
    "Grid",
    "GridResult",
    "Record",
    "Scaling",
    "curves",
    "figures",
    "run",
    "scaling",
    "status",
]

guard(globals(), __all__)
