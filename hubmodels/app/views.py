"""Pictures of what the page compares: any side in any style, at working size. Arrays in, clean PIL images out."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from hubmodels import export, render
from hubmodels.labels import colour_of_hex
from hubmodels.metrics import boundaries, within
from hubmodels.refine import Refinement
from hubmodels.refine.region_means import region_means
from hubmodels.result import Segmentation

SIDES: Mapping[str, str] = MappingProxyType(
    {
        "photo": "Photo",
        "network": "Raw network",
        "crf": "After CRF",
        "superpixels": "After superpixels",
        "final": "Final",
        "other": "Another model",
        "truth": "Ground truth",
    }
)
STYLES: Mapping[str, str] = MappingProxyType(
    {
        "overlay": "Overlay",
        "labels": "Labels",
        "boundaries": "Boundaries",
        "cutout": "Cut-out",
        "superpixels": "Superpixels",
        "confidence": "Confidence",
    }
)
GROUNDS: Mapping[str, str] = MappingProxyType({"transparent": "Transparent", "colour": "Colour", "blurred": "Blurred"})
EDGES: Mapping[str, str] = MappingProxyType({"hard": "As labelled", "soft": "Soft"})
LAYOUTS: Mapping[str, str] = MappingProxyType({"slider": "Slider", "two-up": "Two-up"})
SHOWN_SCALE = 60.0  # superpixels that are drawn while none vote

# Dark blue over grey to yellow: even steps of lightness, told apart by colour-blind readers and in print.
_RAMP = np.array([[0, 32, 77], [66, 78, 108], [124, 123, 120], [188, 175, 111], [255, 234, 70]], float)


@dataclass(frozen=True)
class View:
    """What is shown of a result, beside its settings.

    Attributes:
        left, right: keys of SIDES.
        style: a key of STYLES.
        layout: a key of LAYOUTS.
        opacity: of the overlay, percent.
        label: what is cut out; empty for all but the background.
        ground: a key of GROUNDS, behind the cut-out.
        colour: `#rrggbb` of ground `colour`.
        other: the other model; empty for none.
        edges: a key of EDGES, of the cut-out.
    """

    left: str = "photo"
    right: str = "final"
    style: str = "overlay"
    layout: str = "slider"
    opacity: int = 55
    label: str = ""
    ground: str = "transparent"
    colour: str = "#ffffff"
    other: str = ""
    edges: str = "hard"

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> View:
        """From values of controls or texts of a link; what makes no sense is left at its default."""
        choices: Mapping[str, Mapping[str, str]] = {
            "left": SIDES,
            "right": SIDES,
            "style": STYLES,
            "layout": LAYOUTS,
            "ground": GROUNDS,
            "edges": EDGES,
        }
        kept: dict[str, Any] = {
            n: v for n, keys in choices.items() if isinstance(v := values.get(n), str) and v in keys
        }
        for name in ("label", "other"):
            if isinstance(values.get(name), str):
                kept[name] = values[name]
        if (colour := _hex_colour(values.get("colour"))) is not None:
            kept["colour"] = colour
        try:
            kept["opacity"] = min(100, max(0, round(float(values.get("opacity", cls.opacity)))))
        except (TypeError, ValueError, OverflowError):
            pass  # not a number: the default stays
        return cls(**kept)

    def changes(self) -> dict[str, Any]:
        """The fields that differ from the defaults."""
        off = View()
        return {f.name: v for f in dataclasses.fields(self) if (v := getattr(self, f.name)) != getattr(off, f.name)}


def _hex_colour(value: Any) -> str | None:
    """`#rrggbb` from what a colour picker or a link gives; None if it is no colour."""
    if not isinstance(value, str):
        return None
    if re.fullmatch(r"#[0-9a-fA-F]{6}", value):
        return value.lower()
    number = r"(\d+(?:\.\d+)?)"
    if numbers := re.fullmatch(rf"rgba?\(\s*{number},\s*{number},\s*{number}.*\)", value):
        return "#" + "".join(f"{round(min(255, float(n))):02x}" for n in numbers.groups())
    return None


def draw(seg: Segmentation, view: View, superpixels: np.ndarray | None = None) -> Image.Image:
    """A result in the style of a view.

    Args:
        seg: labels and photo.
        view: style, opacity, cut-out.
        superpixels: (H, W) ids, for style `superpixels`.
    """
    if view.style == "labels":
        return export.indexed_png(seg.labels, seg.label_set)
    if view.style == "boundaries":
        return outlined(seg.image, seg.labels)
    if view.style == "cutout":
        return on_ground(seg, view)
    if view.style == "superpixels" and superpixels is not None:
        return mean_colours(seg.image, superpixels)
    if view.style == "confidence":
        return confidence(seg.probs)
    return seg.overlay(opacity=view.opacity / 100)


def cut_mask(seg: Segmentation, label: str) -> np.ndarray:
    """(H, W) bool: a label, or all but the background if there is no such label."""
    return seg.mask(label) if label in seg.label_set.names else seg.labels > 0


def cutout(seg: Segmentation, view: View) -> Image.Image:
    """The cut-out to take away: RGBA on transparent ground, RGB on another."""
    if view.ground == "transparent":
        return render.cutout(seg.image, cut_mask(seg, view.label), soft=view.edges == "soft")
    return on_ground(seg, view)


def on_ground(seg: Segmentation, view: View) -> Image.Image:
    """The cut-out on its ground; a chequerboard stands for transparency."""
    mask = cut_mask(seg, view.label)
    height, width = mask.shape
    if view.ground == "blurred":
        ground = np.asarray(Image.fromarray(seg.image).filter(ImageFilter.GaussianBlur(max(2, max(mask.shape) / 60))))
    elif view.ground == "colour":
        ground = np.broadcast_to(np.array(colour_of_hex(view.colour), np.uint8), (height, width, 3))
    else:
        y, x = np.ogrid[:height, :width]
        ground = np.where((y // 10 + x // 10) % 2, 204, 255).astype(np.uint8)[..., None]
    if view.edges == "hard":
        return Image.fromarray(np.where(mask[..., None], seg.image, ground).astype(np.uint8))
    picture = Image.fromarray(np.broadcast_to(ground, seg.image.shape).astype(np.uint8))
    front = render.cutout(seg.image, mask, soft=True)
    picture.paste(front, mask=front)
    return picture


def outlined(image: np.ndarray, labels: np.ndarray) -> Image.Image:
    """The photo with a white line, cased in black, along every boundary of labels."""
    edge = boundaries(labels)
    out = image.copy()
    out[within(edge, 2)] = 0
    out[within(edge, 1)] = 255
    return Image.fromarray(out)


def mean_colours(image: np.ndarray, ids: np.ndarray) -> Image.Image:
    """Every superpixel in the mean colour of its pixels: (H, W, 3) uint8 and (H, W) ids from 0."""
    means = region_means(np.moveaxis(image, 2, 0), ids)
    return Image.fromarray(np.ascontiguousarray(np.round(means).T, np.uint8)[ids])


@functools.cache
def _confidence_colours() -> np.ndarray:
    """(256, 3) uint8: from unsure to sure."""
    at = np.linspace(0, len(_RAMP) - 1, 256)
    channels = [np.interp(at, np.arange(len(_RAMP)), _RAMP[:, c]) for c in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def confidence(probs: np.ndarray) -> Image.Image:
    """The probability of the likeliest label, from 1 / C (dark blue) to 1 (yellow): (C, H, W) float."""
    least = 1 / len(probs)
    share = np.clip((probs.max(0) - least) / (1 - least), 0, 1)
    return Image.fromarray(_confidence_colours()[(share * 255).astype(np.uint8)])


def with_superpixels(settings: Refinement) -> Refinement:
    """`settings`, or with superpixels of SHOWN_SCALE if they are off, so that there is something to draw."""
    if settings.superpixel_scale:
        return settings
    return dataclasses.replace(settings, superpixel_scale=SHOWN_SCALE)
