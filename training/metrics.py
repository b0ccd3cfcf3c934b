"""Scores, under the name that training has used; they live in hubmodels, where the page takes them from."""

from __future__ import annotations

from hubmodels.metrics import IGNORE, Scores, boundaries, boundary_f, ratio, within

__all__ = ["IGNORE", "Scores", "boundaries", "boundary_f", "ratio", "within"]
