"""A ground-truth mask: read, checked, and scored against."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from hubmodels.errors import ImageError
from hubmodels.images import DAMAGED, MAX_PIXELS
from hubmodels.labels import LabelSet, hex_colour
from hubmodels.metrics import IGNORE, Scores

TOLERANCE = 3  # steps of 0..255 by which a colour may miss its palette entry
BLACK, WHITE = (0, 0, 0, 255), (255, 255, 255, 255)


def read_truth(
    path: Path, labels: LabelSet, size: tuple[int, int], *, max_pixels: int, out_size: tuple[int, int] | None = None
) -> np.ndarray:
    """Label ids of a mask.

    Args:
        path: a PNG: indexed or grey with label ids (255: undecided), in the palette's colours, or for two labels in
            black and white, of any kind.
        labels: the labels it must hold.
        size: height and width it must have.
        max_pixels: larger ones are not decoded.
        out_size: height and width to bring it to, by the nearest pixel, as ids are never blended; its own unless given.

    Returns:
        (H, W) uint8, ids or IGNORE.

    Raises:
        ImageError: no PNG, another size, or ids or colours that no label has.
        FileNotFoundError: no such file.
    """
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            if picture.width * picture.height > max_pixels:
                raise ImageError(f"the mask has more than {max_pixels / 1e6:.1f} megapixels")
            if (picture.height, picture.width) != tuple(size):
                raise ImageError(
                    f"the mask is {picture.width}x{picture.height}, the photo {size[1]}x{size[0]}; both must be alike"
                )
            if out_size is not None and out_size != (picture.height, picture.width):  # before all that takes its time
                return _ids(picture.resize(out_size[::-1], Image.Resampling.NEAREST), labels)
            return _ids(picture, labels)
    except FileNotFoundError:
        raise
    except UnidentifiedImageError:
        raise ImageError("the mask is no PNG; other formats do not keep label ids exactly") from None
    except DAMAGED as error:
        raise ImageError(f"the mask is damaged ({error.__class__.__name__})") from None


def read_mask(
    path: Path, labels: LabelSet, size: tuple[int, int], *, out_size: tuple[int, int] | None = None
) -> np.ndarray:
    """`read_truth` of a file of the caller's own, which messages name, and which may be as large as a photo.

    Raises:
        ImageError, FileNotFoundError: as of `read_truth`.
    """
    try:
        return read_truth(path, labels, size, max_pixels=MAX_PIXELS, out_size=out_size)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error


def _ids(picture: Image.Image, labels: LabelSet) -> np.ndarray:
    if picture.mode == "P" and _in_our_colours(picture, labels):
        ids = _from_colours(np.asarray(picture.convert("RGB")), labels)  # whatever order its palette has
        return _with_undecided(ids, picture, labels)
    if len(labels) == 2 and picture.mode in ("P", "LA", "RGB", "RGBA") and (white := _white(picture)) is not None:
        return white  # before ids: programs give black and white any place in a palette
    if picture.mode in ("P", "L", "1"):
        values = np.asarray(picture if picture.mode != "1" else picture.convert("L")).astype(np.uint8)
        present = set(np.unique(values).tolist())
        if picture.mode != "P" and len(labels) == 2 and present <= {0, 255}:
            return (values == 255).astype(np.uint8)
        if len(labels) > 2 and IGNORE in present and present <= {0, IGNORE}:
            if picture.mode != "P":
                raise ImageError(
                    f"the mask holds 0 and 255 alone: if it is black and white, it is not for {labels.task}, which has "
                    f"{len(labels)} labels; if 255 is undecided, save it as an indexed PNG with another colour for that"
                )
            if _white(picture) is not None:
                raise ImageError(
                    f"the mask is black and white, but {labels.task} has {len(labels)} labels; is it for another task?"
                )
        if present <= {*range(len(labels)), IGNORE}:
            return values
        unknown = sorted(present - {*range(len(labels)), IGNORE})
        raise ImageError(
            f"the mask holds id {unknown[0]}, but {labels.task} has ids 0..{len(labels) - 1} "
            f"({', '.join(labels.names)}); is it for another task?"
        )
    if picture.mode not in ("RGB", "RGBA", "LA"):
        raise ImageError(f"the mask has pixels of kind {picture.mode}; expected an indexed, grey or colour PNG")
    return _from_colours(np.asarray(picture.convert("RGB")), labels)


def indexed_ids(picture: Image.Image, labels: LabelSet) -> np.ndarray:
    """(H, W) uint8 ids of a picture of mode P: by colour if all it uses are exactly those of labels, else its indices.

    Programs that edit pictures give the colours of a palette any order. A palette of one colour says nothing, nor does
    the filling of one at the index IGNORE, which stays.
    """
    indices = np.array(picture)
    if not _in_our_colours(picture, labels):
        return indices
    ids = _from_colours(np.asarray(picture.convert("RGB")), labels)
    return indices if np.ptp(indices) > 0 and np.ptp(ids) == 0 else _with_undecided(ids, picture, labels)


def _with_undecided(ids: np.ndarray, picture: Image.Image, labels: LabelSet) -> np.ndarray:
    """Ids by colour, but IGNORE where that is the index and its colour is only what a palette is filled up with.

    Palettes are filled with zeros, the colour of the background, or with their last colour. It is filling if another
    index that is used has the colour too, or if that is in the palette once more and the others that are used have the
    order of the ids: then nobody has ordered them anew.
    """
    indices = np.asarray(picture)
    undecided = indices == IGNORE
    if not undecided.any():
        return ids
    flat = picture.getpalette() or []
    palette = [tuple(flat[i : i + 3]) for i in range(0, len(flat), 3)]
    others = np.unique(indices[~undecided]).tolist()
    is_used = palette[IGNORE] in [palette[index] for index in others]
    is_ours = all(index < len(labels) and palette[index] == labels.palette[index] for index in others)
    is_filling = is_used or (is_ours and palette.count(palette[IGNORE]) > 1)
    return np.where(undecided, np.uint8(IGNORE), ids) if is_filling else ids


def _white(picture: Image.Image) -> np.ndarray | None:
    """(H, W) uint8: 1 where a picture of black and white is white; None if it has other colours, or no white.

    What is transparent counts as black, whatever colour lies under it.
    """
    seen = Image.alpha_composite(Image.new("RGBA", picture.size, BLACK), picture.convert("RGBA"))
    colours = {colour for _, colour in seen.getcolors(2) or ()}
    if WHITE not in colours or not colours <= {BLACK, WHITE}:
        return None
    return np.asarray(seen.convert("L")) // 255


def _in_our_colours(picture: Image.Image, labels: LabelSet) -> bool:
    """Whether every colour that an indexed picture uses is exactly that of a label."""
    palette = picture.getpalette() or []
    used = {tuple(palette[3 * i : 3 * i + 3]) for i in np.unique(np.asarray(picture)).tolist()}
    return used <= set(labels.palette)


def _from_colours(pixels: np.ndarray, labels: LabelSet) -> np.ndarray:
    packed = pixels.astype(np.int32) @ np.array([65536, 256, 1], np.int32)
    colours, where = np.unique(packed.ravel(), return_inverse=True)
    if len(colours) > 256:
        raise ImageError("the mask has more than 256 colours, so it is a photo, or its edges are smoothed")
    rgb = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=-1)
    distance = np.abs(rgb[:, None] - np.array(labels.palette)[None]).max(-1)
    if (miss := distance.min(1).max()) > TOLERANCE:
        bad = hex_colour(rgb[distance.min(1).argmax()])
        raise ImageError(
            f"the mask has the colour {bad}, {miss} steps from any label of {labels.task}; expected the colours of the "
            "legend"
        )
    return distance.argmin(1).astype(np.uint8)[where].reshape(pixels.shape[:2])


@dataclass(frozen=True)
class TruthScores:
    """Scores of one result: `miou` and `boundary_f` in 0..1 (NaN: undefined), and `iou` by label that occurs."""

    miou: float
    boundary_f: float
    iou: dict[str, float]


def score(truth: np.ndarray, predicted: np.ndarray, labels: LabelSet) -> TruthScores:
    """Compare two (H, W) label maps."""
    scores = Scores.of_photo(truth, predicted, num_classes=len(labels))
    return TruthScores(scores.miou, scores.boundary_f, scores.iou_by_name(labels.names))
