"""Files to take away, made only when they are asked for."""

from __future__ import annotations

import io
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from PIL import Image

from hubmodels import export
from hubmodels.app import views
from hubmodels.app.studio import WORK_PX, Analysis
from hubmodels.app.views import View
from hubmodels.refine import Refinement
from hubmodels.result import Segmentation
from hubmodels.settings_files import encoded_settings

# Kind -> what the button says. Probabilities are those of working size, and that is said: the network sees no more,
# while those of a phone's photo would hold up all visitors for the time it takes to pack 336 MB. The copied Python
# gives them at the photo's own size.
KINDS: Mapping[str, str] = MappingProxyType(
    {
        "labels": "Labels (PNG)",
        "overlay": "Overlay (JPEG)",
        "cutout": "Cut-out (PNG)",
        "probabilities": f"Probabilities (NPZ, up to {WORK_PX} px)",
        "settings": "Settings (JSON)",
    }
)


def labels_file(seg: Segmentation) -> tuple[str, bytes]:
    """Indexed PNG: pixel values are label ids, the palette is attached."""
    return "labels.png", encoded(export.indexed_png(seg.labels, seg.label_set), "PNG", optimize=True)


def overlay_file(seg: Segmentation, view: View) -> tuple[str, bytes]:
    """The photo with its labels; scaled down if it is longer than a JPEG can be."""
    return "overlay.jpg", encoded(export.fit_jpeg(seg.overlay(opacity=view.opacity / 100)), "JPEG", quality=92)


def cutout_file(seg: Segmentation, view: View) -> tuple[str, bytes]:
    """RGBA on transparent ground, else RGB."""
    label = view.label if view.label in seg.label_set.names else "cutout"
    return f"{label}.png", encoded(views.cutout(seg, view), "PNG")


def probabilities_file(analysis: Analysis) -> tuple[str, bytes]:
    """`probs` (C, H, W) float16, `labels` (H, W) uint8, `names` (C,), and two sizes, readable without pickle.

    `size` (2,) int32 is H and W, those of the photo at working size; `photo_size` (2,) int32 is height and width of
    the photo itself, upright. They differ for photos whose long side is beyond `WORK_PX`.
    """
    seg, file = analysis.final, io.BytesIO()
    np.savez_compressed(
        file,
        probs=seg.probs.astype(np.float16),
        labels=seg.labels,
        names=np.array(seg.label_set.names),
        size=np.array(seg.labels.shape, np.int32),
        photo_size=np.array(analysis.photo.size, np.int32),
    )
    return "probabilities.npz", file.getvalue()


def settings_file(settings: Refinement, task: str) -> tuple[str, bytes]:
    """What `hubmodels label --settings` and `Refinement.from_dict` read, with the task it was tuned for."""
    return "settings.json", encoded_settings(settings, task)


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    """The picture as a file's content."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()
