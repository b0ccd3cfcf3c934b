"""How the 59 tags of Clothing Co-Parsing (CCP) read as the labels of `fashion` and `person`.

Fashionista's annotators left suits, coats, jackets, cardigans, scarves and bags in the background, called tights and
leggings pants, and let small accessories vanish in what surrounds them. A tag is mapped only where a model trained on
Fashionista alone agrees (share of the tag's pixels called that label in a trial: shirt .91, bodysuit .92, t-shirt .89,
blouse .80 t-shirt; dress .93, romper .69 dress; jeans and leggings .93, pants .91, shorts .87, stockings .86 pants;
boots .83, shoes .69 shoes; coat .94, blazer .89, jacket .84, cardigan .79, suit .79, scarf .84, bag .82 background).
A second look, with the shipped models on every fifth CCP photo, settled three tags that the first had left open:
skirt .71 dress, hat and wallet .68 and .69 background. Person: bag .93, purse .90, wallet .99 person, although none of
them was taught. Tags on which it is still undecided (sweater, vest, sweatshirt, belt, ...) are ignored: their pixels
teach nothing.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hubmodels.labels import FASHION
from hubmodels.metrics import IGNORE
from training.errors import DataError
from training.files import read_json

TO_FASHION: dict[str, str] = {
    "null": "background",
    "skin": "skin",
    "hair": "hair",
    **dict.fromkeys(("shirt", "bodysuit", "t-shirt", "blouse", "top"), "t-shirt"),
    **dict.fromkeys(("dress", "romper", "skirt"), "dress"),
    **dict.fromkeys(("jeans", "leggings", "pants", "shorts", "stockings", "tights"), "pants"),
    **dict.fromkeys(
        ("boots", "clogs", "flats", "heels", "loafers", "pumps", "sandals", "shoes", "sneakers", "wedges"), "shoes"
    ),
    **dict.fromkeys(
        ("bag", "blazer", "cape", "cardigan", "coat", "hat", "jacket", "purse", "scarf", "suit", "wallet"), "background"
    ),
}


def read_tags(path: Path) -> list[str]:
    """Tag names of CCP in id order.

    Raises:
        DataError: the file is missing, cannot be read, or is not a list of names.
    """
    tags = read_json(path)
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise DataError(f"{path}: expected a JSON list of tag names; got {type(tags).__name__}")
    return tags


def tag_table(tags: list[str], task: str) -> np.ndarray:
    """Look-up table (256,) uint8 from tag id to label id of `task`; ids without a tag are IGNORE."""
    table = np.full(256, IGNORE, np.uint8)
    for index, tag in enumerate(tags):
        if task == "fashion":
            if tag in TO_FASHION:
                table[index] = FASHION.id_of(TO_FASHION[tag])
        elif task == "person":
            table[index] = int(tag != "null")  # what a person carries counts as person
        else:
            raise ValueError(f"no tag mapping for task {task!r}; expected 'fashion' or 'person'")
    return table
