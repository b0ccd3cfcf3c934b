"""Files to take away, made only when they are asked for."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from PIL import Image

from hubmodels import export
from hubmodels.app import views
from hubmodels.app.views import View
from hubmodels.refine import Refinement
from hubmodels.result import Segmentation

# Kind -> what the button says. Probabilities are those of working size: the network sees no more.
KINDS: Mapping[str, str] = MappingProxyType(
    {
        "labels": "Labels (PNG)",
        "overlay": "Overlay (JPEG)",
        "cutout": "Cut-out (PNG)",
        "probabilities": "Probabilities (NPZ)",
        "settings": "Settings (JSON)",
    }
)


def labels_file(seg: Segmentation) -> tuple[str, bytes]:
    """Indexed PNG: pixel values are label ids, the palette is attached."""
    return "labels.png", encoded(export.indexed_png(seg.labels, seg.label_set), "PNG", optimize=True)


def overlay_file(seg: Segmentation, view: View) -> tuple[str, bytes]:
    """The photo with its labels."""
    return "overlay.jpg", encoded(seg.overlay(opacity=view.opacity / 100), "JPEG", quality=92)


def cutout_file(seg: Segmentation, view: View) -> tuple[str, bytes]:
    """RGBA on transparent ground, else RGB."""
    label = view.label if view.label in seg.label_set.names else "cutout"
    return f"{label}.png", encoded(views.cutout(seg, view), "PNG")


def probabilities_file(seg: Segmentation) -> tuple[str, bytes]:
    """`probs` (C, H, W) float16, `labels` (H, W) uint8 and `names` (C,), readable without pickle."""
    file = io.BytesIO()
    np.savez_compressed(
        file, probs=seg.probs.astype(np.float16), labels=seg.labels, names=np.array(seg.label_set.names)
    )
    return "probabilities.npz", file.getvalue()


def settings_file(settings: Refinement) -> tuple[str, bytes]:
    """What `hubmodels label --settings` and `Refinement.from_dict` read."""
    return "settings.json", json.dumps(settings.to_dict(), indent=1).encode() + b"\n"


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    """The picture as a file's content."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()
