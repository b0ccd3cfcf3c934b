"""Pictures of label maps: overlay and cut-out. Arrays and a `LabelSet` in, clean PIL images out."""

from __future__ import annotations

import numpy as np
from PIL import Image

from hubmodels.labels import LabelSet


def overlay(image: np.ndarray, labels: np.ndarray, label_set: LabelSet, *, opacity: float = 0.55) -> Image.Image:
    """Palette colours laid over the photo; the background stays as it is.

    Args:
        image: (H, W, 3) uint8.
        labels: (H, W) uint8 label ids.
        label_set: gives the palette.
        opacity: 0 shows the photo, 1 the colours alone.

    Raises:
        ValueError: sizes differ, or opacity is outside 0..1.
    """
    if image.shape[:2] != labels.shape:
        raise ValueError(f"labels must be {image.shape[:2]} to match the photo; got {labels.shape}")
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity must be in 0..1; got {opacity}")
    # 256 blended values per label and channel: a look-up is several times faster than blending every pixel.
    ramp = np.arange(256)[None, :, None]
    colours = np.array(label_set.palette)[:, None, :]
    table = np.round((1 - opacity) * ramp + opacity * colours).astype(np.uint8)  # (C, 256, 3)
    table[0] = ramp[0]
    return Image.fromarray(np.stack([table[labels, image[..., c], c] for c in range(3)], axis=-1))


def cutout(image: np.ndarray, mask: np.ndarray, *, soft: bool = False) -> Image.Image:
    """The pixels of a mask on transparent ground.

    Args:
        image: (H, W, 3) uint8.
        mask: (H, W) bool.
        soft: edges follow the photo and cover pixels in part, without the colour of the ground: `soft_edges.soften`.

    Returns:
        RGBA image; pixels outside of the mask are transparent black, so that nothing hides in them.
    """
    if soft:
        from hubmodels.soft_edges import soften  # heavy: brings SciPy, which loading a model need not wait for

        alpha, colours = soften(image, mask)
    else:
        alpha, colours = mask, image
    rgba = np.dstack([colours, np.round(alpha * np.float32(255)).astype(np.uint8)])
    rgba[rgba[..., 3] == 0] = 0
    return Image.fromarray(rgba)
