"""Post-processing in one fixed order: dense CRF, superpixel vote, region clean-up. A stage at 0 is the identity."""

from hubmodels.refine.crf import DenseCRF, PreparedCRF, log_probabilities
from hubmodels.refine.lattice import PermutohedralLattice
from hubmodels.refine.regions import clean_regions
from hubmodels.refine.settings import REFERENCE_PX, SETTINGS, Refinement
from hubmodels.refine.superpixels import superpixels
from hubmodels.refine.tuner import Tuner, refine
from hubmodels.refine.vote import decide, vote

__all__ = [
    "REFERENCE_PX",
    "SETTINGS",
    "DenseCRF",
    "PermutohedralLattice",
    "PreparedCRF",
    "Refinement",
    "Tuner",
    "clean_regions",
    "decide",
    "log_probabilities",
    "refine",
    "superpixels",
    "vote",
]
