"""What a recipe cannot mean is refused when it is read, before any training."""

from __future__ import annotations

import pytest

from tests.test_training import TINY
from training.errors import RecipeError
from training.recipe import Recipe


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task_weight": {"persons": 0.1}}, r"task_weight must be of \['fashion', 'person'\]; got \['persons'\]"),
        ({"repeat": {"fashonista": 5}}, r"repeat must be of \['fashionista', 'ccp'\]; got \['fashonista'\]"),
        ({"loss": {}}, "loss must name one or more of"),
        ({"warmup_share": 1.5}, r"warmup_share must be in 0\.\.1; got 1\.5"),
        ({"class_weight": {"person": [-1.0, 1.0]}}, r"class_weight\.person must be 0 or more; got \[-1\.0, 1\.0\]"),
        ({"class_weight": {"person": [float("nan"), 1.0]}}, r"class_weight\.person must be 0 or more"),
        ({"task_weight": {"person": -1}}, "task_weight must be 0 or more"),
        ({"loss": {"dice": -1}}, "loss must be 0 or more"),
        ({"soft_weight": -1}, r"soft_weight must be 0 or more; got \[-1\]"),
    ],
)
def test_what_would_be_ignored_or_do_harm_is_refused(change, message):
    with pytest.raises(RecipeError, match=message):
        Recipe.from_dict({**TINY.to_dict(), **change})


def test_the_bounds_themselves_are_fine():
    weights = {"task_weight": {"person": 0.0}, "class_weight": {"person": [0.0, 1.0]}, "repeat": {"ccp": 2}}
    for share in (0.0, 1.0):
        Recipe.from_dict({**TINY.to_dict(), **weights, "warmup_share": share})
