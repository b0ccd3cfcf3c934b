"""Example photos, which come with scikit-image, so that the page needs no network to show one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Example:
    """A photo that a link can name.

    Attributes:
        name: its id in links, and the function of `skimage.data`.
        title: what visitors read.
        description: what it shows, for those who cannot see it.
    """

    name: str
    title: str
    description: str

    def pixels(self) -> np.ndarray:
        """(H, W, 3) uint8."""
        from skimage import data

        image = getattr(data, self.name)()
        return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)


EXAMPLES = {
    example.name: example
    for example in (
        Example("astronaut", "Astronaut", "portrait of a woman in an orange space suit before a flag and a shuttle"),
        Example("camera", "Photographer", "black-and-white photo of a man in a coat behind a camera on a tripod"),
    )
}
