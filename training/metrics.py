"""The scores of `hubmodels.metrics`, under the name by which training code knows them."""

from __future__ import annotations

from hubmodels.metrics import IGNORE, Scores, boundaries, boundary_f, within

__all__ = ["IGNORE", "Scores", "boundaries", "boundary_f", "within"]
