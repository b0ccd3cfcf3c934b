"""Post-processing in one fixed order: dense CRF, superpixel vote, region clean-up. A stage at 0 is the identity."""

from hubmodels.refine.crf import DenseCRF, PreparedCRF, log_probabilities
from hubmodels.refine.lattice import PermutohedralLattice
from hubmodels.refine.regions import clean_regions
from hubmodels.refine.settings import LIMITS, REFERENCE_PX, Refinement
from hubmodels.refine.superpixels import superpixels, vote
from hubmodels.refine.tuner import Tuner, refine

__all__ = [
    "LIMITS",
    "REFERENCE_PX",
    "DenseCRF",
    "PermutohedralLattice",
    "PreparedCRF",
    "Refinement",
    "Tuner",
    "clean_regions",
    "log_probabilities",
    "refine",
    "superpixels",
    "vote",
]
