"""The paper's tables and figure as one grid, with the controls that it left out: planned, worked through, resumed, listed."""

from nodestill.reproduction.grid import Cell, Grid, Part
from nodestill.reproduction.grid_records import GridRecords, read_grid
from nodestill.reproduction.reproduce import Asked, asked_reproduction

__all__ = ["Asked", "Cell", "Grid", "GridRecords", "Part", "asked_reproduction", "read_grid"]
