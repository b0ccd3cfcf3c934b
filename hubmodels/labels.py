"""Label sets: names, ids (position in the tuple) and palette of each task."""

from __future__ import annotations

import colorsys
import operator
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeGuard

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class LabelSet:
    """The labels of one task.

    Attributes:
        task: name of the task.
        names: label names; the position is the id. Id 0 is the background.
        palette: one sRGB colour (0..255 per channel) per label, told apart also by colour-blind readers.
    """

    task: str
    names: tuple[str, ...]
    palette: tuple[Colour, ...]

    if TYPE_CHECKING:  # what is taken, beside what is kept

        def __init__(self, task: str, names: Sequence[str], palette: Sequence[Iterable[int]]) -> None: ...

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", _checked_names(self.names))
        if len(self.names) != len(self.palette):
            raise ValueError(f"expected one colour per label; got {len(self.names)} names, {len(self.palette)} colours")
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"label names must differ; got {self.names}")
        object.__setattr__(self, "palette", tuple(map(_checked_colour, self.palette)))
        _check_count(len(self.names))

    def __len__(self) -> int:
        return len(self.names)

    def id_of(self, name: str) -> int:
        """The id of a label name.

        Raises:
            ValueError: no such label; the message lists those that exist.
        """
        try:
            return self.names.index(name)
        except ValueError:
            raise ValueError(
                f"no label {name!r} in task {self.task!r}; expected one of: {', '.join(self.names)}"
            ) from None

    @property
    def id2label(self) -> dict[int, str]:
        """Ids to names, as transformers' config.json spells it."""
        return dict(enumerate(self.names))

    @property
    def label2id(self) -> dict[str, int]:
        """Names to ids, as transformers' config.json spells it."""
        return {name: index for index, name in enumerate(self.names)}

    @classmethod
    def custom(cls, names: Sequence[str] | int, *, task: str = "custom") -> LabelSet:
        """Labels of one's own, with colours of their own.

        Args:
            names: label names, the background first; a number stands for "label 0", "label 1", ...
            task: what the task is called.

        Raises:
            TypeError: neither names in an order nor a whole number.
            ValueError: fewer than 2 or more than 256 labels, or a repeated name.
        """
        listed = _listed(names)
        return cls(task=task, names=listed, palette=tuple(map(_colour, range(len(listed)))))


def hex_colour(colour: Iterable[int]) -> str:
    """Red, green and blue of 0..255 as HTML writes them: "#e69f00"."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def colour_of_hex(text: str) -> Colour:
    """Red, green and blue of 0..255 from what `hex_colour` writes. Raises ValueError for anything else."""
    if not re.fullmatch("#[0-9a-fA-F]{6}", text):
        raise ValueError(f"a colour must be written as #e69f00; got {text!r:.100}")
    red, green, blue = bytes.fromhex(text[1:])
    return red, green, blue


def _checked_colour(colour: Iterable[int]) -> Colour:
    """Red, green and blue as Python's own whole numbers, each 0..255; lists and NumPy's are taken too."""
    try:
        red, green, blue = map(operator.index, colour)
    except (TypeError, ValueError):
        red = green = blue = -1
    if not all(0 <= channel <= 255 for channel in (red, green, blue)):
        raise ValueError(f"a colour of the palette must be three whole numbers in 0..255; got {colour!r:.100}")
    return red, green, blue


def _is_listing(names: object) -> TypeGuard[Iterable[str]]:
    """Whether it is several things in an order; a text is one, and sets have none."""
    return isinstance(names, Iterable) and not isinstance(names, (str, bytes, Set, Mapping))


def _checked_names(names: Iterable[str]) -> tuple[str, ...]:
    """Names as Python's own text, in their order; lists and NumPy's are taken too."""
    if not _is_listing(names):
        raise TypeError(f"expected label names in a list or tuple; got {names!r:.100}")
    listed = tuple(names)
    if wrong := [name for name in listed if not isinstance(name, str)]:
        raise TypeError(f"label names must be text; got {wrong[0]!r:.100}")
    return tuple(map(str, listed))


def _listed(names: Sequence[str] | int) -> tuple[str, ...]:
    """Names as given, or those that a number stands for."""
    if _is_listing(names):
        return _checked_names(names)
    try:
        count = None if isinstance(names, bool) else operator.index(names)  # type: ignore[arg-type]  # NumPy's too
    except TypeError:
        count = None
    if count is None:
        raise TypeError(f"labels must be a list of names, or their number as an int; got {names!r}")
    _check_count(count)
    return tuple(f"label {index}" for index in range(count))


def _check_count(count: int) -> None:
    if not 2 <= count <= 256:
        raise ValueError(f"expected 2 to 256 labels, so that ids fit uint8; got {count}")


def _colour(index: int) -> Colour:
    """Black, then hues a golden section apart, so that neighbours differ however many there are."""
    if index == 0:
        return (0, 0, 0)
    hue, value = (0.1 + 0.618034 * index) % 1, (0.95, 0.7, 0.5)[index % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.75, value)
    return round(255 * red), round(255 * green), round(255 * blue)


PERSON = LabelSet(task="person", names=("background", "person"), palette=((0, 0, 0), (230, 159, 0)))

FASHION = LabelSet(
    task="fashion",
    names=("background", "skin", "hair", "t-shirt", "shoes", "pants", "dress"),
    palette=(
        (0, 0, 0),
        (240, 185, 141),  # skin
        (122, 77, 41),  # hair
        (0, 158, 115),  # t-shirt
        (240, 228, 66),  # shoes
        (0, 114, 178),  # pants
        (204, 90, 160),  # dress
    ),
)

TASKS: dict[str, LabelSet] = {labels.task: labels for labels in (PERSON, FASHION)}
