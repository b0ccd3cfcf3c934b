"""Dense conditional random field: sharpen class scores along the edges of the photo they belong to.

P. Kraehenbuehl and V. Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials",
NIPS 2011. Every pixel is connected to every other through two Gaussian kernels, appearance (place and colour)
and smoothness (place only), and mean-field iterations pass messages along all of them at once by filtering
on permutohedral lattices. Conventions and results are pydensecrf's: symmetric normalisation, and the same
probabilities within 1e-4 for the same parameters (with reference_hw=None).

    crf = DenseCRF(iterations=5)
    with torch.inference_mode():
        refined = crf(logits, image)               # (N, C, H, W), (N, 3, H, W) uint8 -> (N, C, H, W)

    tuner = crf.prepare(logits[0], image[0])       # for a slider: what depends on the photo is built once,
    tuner.refine(3), tuner.refine(7)               # and every iteration is computed once

To train it after a network, add its parameters to the optimiser and take the loss of the refined logits:
the two weights (and with num_classes the compatibility matrix) learn, and the network gets its gradient
through the filter. Keep `iterations` at 3 to 5 then. Standard deviations are not trained: tune them.

Without a gradient, float32 on the CPU runs in compiled kernels (`hubmodels.refine.kernels`); everything else is
PyTorch on the device of its inputs. That path has never been timed on a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hubmodels.refine.crf_checks import (
    checked_compatibility,
    checked_count,
    checked_image,
    checked_iterations,
    checked_logits,
    checked_reference,
    checked_sigma,
    checked_weight,
    described,
)
from hubmodels.refine.lattice import Backend, choose_kernels, refuse_tracing
from hubmodels.refine.mean_field import (
    MeanField,
    Unaries,
    enlarge_change,
    floored_log,
    shrink,
    working_logs,
)
from hubmodels.refine.photo_kernels import PhotoKernels, build_photo_kernels
from hubmodels.refine.prepared_crf import KEPT_ITERATIONS, PreparedCRF

SUM_TOLERANCE = 1e-3  # of probabilities; a float16 softmax over 21 classes strays by a few 1e-4
MAX_PIXELS = 600_000  # larger photos are refined at this many pixels; 950 x 630, 2.5 times the reference size


class DenseCRF(nn.Module):
    """Mean-field inference in a fully-connected CRF, as a layer.

    Args:
        iterations: mean-field iterations; 0 returns the logits untouched. 5 is usual, 10 the most that helps.
        appearance_weight: strength (nats) of the kernel between pixels of similar place and colour.
        appearance_sigma_px: its standard deviation in pixels of a photo of `reference_hw`.
        appearance_sigma_colour: its standard deviation in steps of 0..255 sRGB, typically 3 to 20.
        smoothness_weight: strength (nats) of the kernel between pixels of similar place; removes specks.
        smoothness_sigma_px: its standard deviation in pixels of a photo of `reference_hw`.
        num_classes: C, to learn a (C, C) compatibility that starts from Potts. None: Potts, for any C.
        compatibility: (C, C) energies to use (and learn) instead: entry [a, b] is added to the energy of label a
            for each unit of kernel-weighted b around it. Potts is minus the identity: equal labels attract.
        reference_hw: photo size at which the sigmas in pixels are meant. They grow with the square root of the
            photo's area, so that a setting means the same at 600x400 and at 3000x2000. None: pixels as they are.
        max_pixels: a larger photo is refined at a reduced size of that area, and the change of its logits is scaled
            up and added to the full-size logits.
        exact: never reduce; time and memory then grow with the photo.
        backend: as for `PermutohedralLattice`.

    Weight and colour reach of the appearance kernel are those that raised mIoU most on the validation photos of the
    fashion labels (training/results/tune_crf_*.json). There, weight 10 with reach 80 and colour 10 lowers it at 5
    iterations and more; pydensecrf's example, which was not in the grid, is weight 10 and colour 13.

    The weights are parameters: outside `torch.no_grad()` or `torch.inference_mode()` the call records a graph, which
    costs several times the time and keeps every iteration in memory. Transforms of `torch.func` (vmap, grad, jvp) and
    `torch.jit.trace` are not supported: the lattice is built from the photo.

    Raises: ValueError or TypeError for settings that are negative, not finite in float32, or out of range; at a photo,
        ValueError for a sigma so small that the photo does not fit its lattice.
    Source: Kraehenbuehl & Koltun 2011, eq. 3 (kernels) and algorithm 1.
    """

    def __init__(
        self,
        iterations: int = 5,
        *,
        appearance_weight: float = 3.0,
        appearance_sigma_px: float = 80.0,
        appearance_sigma_colour: float = 5.0,
        smoothness_weight: float = 3.0,
        smoothness_sigma_px: float = 3.0,
        num_classes: int | None = None,
        compatibility: Tensor | NDArray[np.floating] | Sequence[Sequence[float]] | None = None,
        reference_hw: tuple[int, int] | None = (600, 400),
        max_pixels: int = MAX_PIXELS,
        exact: bool = False,
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        self.iterations = checked_iterations(iterations)
        self.appearance_sigma_px = checked_sigma("appearance_sigma_px", appearance_sigma_px)
        self.appearance_sigma_colour = checked_sigma("appearance_sigma_colour", appearance_sigma_colour)
        self.smoothness_sigma_px = checked_sigma("smoothness_sigma_px", smoothness_sigma_px)
        self.appearance_weight = nn.Parameter(torch.tensor(checked_weight("appearance_weight", appearance_weight)))
        self.smoothness_weight = nn.Parameter(torch.tensor(checked_weight("smoothness_weight", smoothness_weight)))
        matrix = checked_compatibility(compatibility, num_classes)
        self.compatibility = None if matrix is None else nn.Parameter(matrix)
        choose_kernels(backend, torch.device("cpu"))
        self.reference_hw = checked_reference(reference_hw)
        self.max_pixels = checked_count("max_pixels", max_pixels, advice=": to never reduce, pass exact=True")
        self.exact, self.backend = exact, backend

    def extra_repr(self) -> str:
        return (
            f"iterations={self.iterations}, appearance_sigma_px={self.appearance_sigma_px:g}, "
            f"appearance_sigma_colour={self.appearance_sigma_colour:g}, "
            f"smoothness_sigma_px={self.smoothness_sigma_px:g}"
        )

    def forward(self, logits: Tensor, image: Tensor | NDArray[np.generic] | Sequence[PhotoKernels]) -> Tensor:
        """Refine a batch.

        Args:
            logits: (N, C, H, W) float; log-probabilities are logits too.
            image: (N, 3, H, W) or (N, H, W, 3) sRGB in 0..255, uint8 (or float with that range), or N results
                of `photo`, as when the same photos come back every epoch. (N, 3, 3, 3) counts as (N, 3, H, W).

        Returns: refined logits (N, C, H, W), same dtype and device, with gradient to `logits` and the parameters.
            Their softmax over C is the CRF's distribution; `logits` itself for 0 iterations.
        Raises: ValueError or TypeError if shapes disagree, logits are not finite or the image is not 0..255.
        """
        logits = checked_logits(logits)
        images = _checked_batch(image, logits)
        if self.iterations == 0:
            return logits
        refuse_tracing()
        photos = (self._checked_photo(each, one) for one, each in zip(logits, images, strict=True))
        refined = [self._refine(one, photo) for one, photo in zip(logits, photos, strict=True)]
        return torch.stack(refined) if len(refined) > 1 else refined[0][None]

    def photo(self, image: Tensor | NDArray[np.generic]) -> PhotoKernels:
        """Build what depends on one photo alone, (3, H, W) or (H, W, 3) in 0..255, for `prepare`.

        Weights, compatibility and logits may change afterwards; a change of sigmas needs a new one. Nothing tells the
        size here: an image of (3, W, 3) counts as (3, H, W).
        """
        colours = checked_image(image)
        full_hw = (int(colours.shape[1]), int(colours.shape[2]))
        hw = self._working_hw(full_hw)
        return build_photo_kernels(colours, hw, self._sigmas(full_hw, hw), backend=self.backend)

    def prepare(
        self,
        logits: Tensor | Unaries,
        image: Tensor | NDArray[np.generic] | PhotoKernels,
        *,
        keep: int = KEPT_ITERATIONS,
    ) -> PreparedCRF:
        """One photo (logits (C, H, W), image as for `photo`) for a slider.

        Either may be prepared: the result of `unaries` or `unaries_of_probs`, and that of `photo`.

        Takes the weights as they are now; later training does not reach it, nor does gradient come from it. `keep`
        bounds the memory: see PreparedCRF. An image of (3, 3, 3), which fits logits of 3x3 either way, counts as
        (3, H, W).
        """
        unaries = logits if isinstance(logits, Unaries) else self.unaries(logits)
        photo = self._checked_photo(image, unaries.full)
        if tuple(unaries.working.shape[1:]) != photo.hw:
            raise ValueError(f"unaries must have this CRF's working size {photo.hw}: use its unaries()")
        with torch.no_grad():
            steps = MeanField(unaries.working, photo, *self._message_matrices(unaries.full))
        return PreparedCRF(unaries, steps, iterations=self.iterations, keep=keep)

    @torch.no_grad()
    def unaries(self, logits: Tensor) -> Unaries:
        """Logits (C, H, W) of one photo, copied and brought to the working size: weights and sigmas play no part."""
        if not isinstance(logits, Tensor) or logits.ndim != 3:
            raise ValueError(f"logits must be a tensor (C, H, W) of one photo; got {described(logits)}")
        full = checked_logits(logits[None])[0].detach().clone()  # the caller may go on with theirs
        return Unaries(full, shrink(full, self._working_hw((full.shape[1], full.shape[2]))))

    @torch.no_grad()
    def unaries_of_probs(self, probs: Tensor, *, checked: bool = False) -> Unaries:
        """The same for probabilities (C, H, W), which are not copied: they must stay as they are meanwhile.

        `checked`: they are known to be a distribution, and are not looked at again.

        Raises: ValueError or TypeError as `log_probabilities`.
        """
        if not isinstance(probs, Tensor) or probs.ndim != 3:
            raise ValueError(f"probs must be a tensor (C, H, W) of one photo; got {described(probs)}")
        full = (probs if checked else _checked_probs(probs)).detach()
        hw = self._working_hw((full.shape[1], full.shape[2]))
        compiled = choose_kernels(self.backend, full.device) is not None
        return Unaries(full, working_logs(full, hw, compiled=compiled), True)

    def _checked_photo(self, image: Tensor | NDArray[np.generic] | PhotoKernels, logits: Tensor) -> PhotoKernels:
        """`image` itself if it was prepared already and fits, else its kernels."""
        hw = (logits.shape[1], logits.shape[2])
        photo = image if isinstance(image, PhotoKernels) else self.photo(checked_image(image, hw))
        height, width = photo.full_hw
        if tuple(logits.shape[1:]) != (height, width):
            raise ValueError(f"logits must be (C, {height}, {width}) to match the image; got {described(logits)}")
        if photo.appearance.device != logits.device:
            raise ValueError(f"image must be on the logits' device {logits.device}; got {photo.appearance.device}")
        if photo.hw != self._working_hw(photo.full_hw) or photo.sigmas != self._sigmas(photo.full_hw, photo.hw):
            raise ValueError(f"photo kernels must have this CRF's size and sigmas; got {photo.sigmas}: use its photo()")
        return photo

    def refine_probs(self, probs: Tensor, image: Tensor | NDArray[np.generic]) -> Tensor:
        """The same for probabilities: (N, C, H, W) summing to 1 over C -> (N, C, H, W) summing to 1, of their dtype.

        Returns `probs` itself for 0 iterations. Raises: ValueError if `probs` is not a distribution.
        """
        logits = log_probabilities(probs)
        refined = self(logits, image)
        return probs if self.iterations == 0 else refined.softmax(dim=1).to(probs.dtype)

    def _working_hw(self, hw: tuple[int, int]) -> tuple[int, int]:
        height, width = hw
        if self.exact or height * width <= self.max_pixels:
            return hw
        shrink = math.sqrt(self.max_pixels / (height * width))
        height = min(self.max_pixels, max(1, math.floor(height * shrink)))
        return height, min(self.max_pixels // height, max(1, math.floor(width * shrink)))

    def _sigmas(self, full_hw: tuple[int, int], hw: tuple[int, int]) -> tuple[float, float, float]:
        """Standard deviations at the working size."""
        reference = math.prod(self.reference_hw) if self.reference_hw is not None else math.prod(full_hw)
        scale = math.sqrt(math.prod(hw) / reference)
        return self.appearance_sigma_px * scale, self.appearance_sigma_colour, self.smoothness_sigma_px * scale

    def _refine(self, logits: Tensor, photo: PhotoKernels) -> Tensor:
        """(C, H, W) -> (C, H, W), with gradient where one is asked for."""
        start = shrink(logits, photo.hw)
        steps = MeanField(start, photo, *self._message_matrices(logits))
        return enlarge_change(logits, start, steps.run(start, self.iterations)[-1], photo)

    def _message_matrices(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """For each kernel the (C, C) matrix with messages = (K @ Q) @ matrix: -weight * compatibility.T."""
        classes, matrix = logits.shape[0], self.compatibility
        if matrix is not None and matrix.shape[0] != classes:
            raise ValueError(f"logits must have {matrix.shape[0]} classes, as the compatibility; got {classes}")
        like = logits.new_empty(0, dtype=logits.dtype if logits.dtype == torch.float64 else torch.float32)
        negative = torch.eye(classes).to(like) if matrix is None else -matrix.t().to(like)
        return self.appearance_weight.to(like) * negative, self.smoothness_weight.to(like) * negative


def log_probabilities(probs: Tensor) -> Tensor:
    """Logits of probabilities (N, C, H, W) or (C, H, W); those under 1e-8 count as that, so zeros stay finite.

    Returns: their dtype, but float32 for half precision.
    Raises: ValueError if they leave 0..1 or do not sum to 1 over C within 1e-3 (bfloat16: 1e-2); TypeError if they are
        no such tensor.
    """
    return floored_log(_checked_probs(probs))


def _checked_probs(probs: Tensor) -> Tensor:
    if not isinstance(probs, Tensor) or probs.ndim not in (3, 4) or not probs.is_floating_point():
        raise TypeError(f"probs must be a float tensor (N, C, H, W) or (C, H, W); got {described(probs)}")
    total = probs.sum(dim=-3, dtype=torch.float64 if probs.dtype == torch.float64 else torch.float32)
    tolerance = 1e-2 if probs.dtype == torch.bfloat16 else SUM_TOLERANCE  # the former strays by a few 1e-3
    if not bool(((probs >= 0).all() & ((total - 1).abs() < tolerance).all()).item()):
        raise ValueError(
            f"probs must be in 0..1 and sum to 1 over axis {probs.ndim - 3}; got {probs.min():g} to {probs.max():g}, "
            f"sums {total.min():g} to {total.max():g}: apply softmax over classes, or call the CRF itself with logits"
        )
    return probs


def _checked_batch(
    image: Tensor | NDArray[np.generic] | Sequence[PhotoKernels], logits: Tensor
) -> Sequence[Tensor | PhotoKernels]:
    """One image for each of the logits (N, C, H, W), each (3, H, W) or prepared."""
    count, _, *hw = logits.shape
    if isinstance(image, (list, tuple)) and len(image) == count and all(isinstance(e, PhotoKernels) for e in image):
        return image
    if not isinstance(image, (Tensor, np.ndarray)):
        raise TypeError(f"image must be a tensor or array; got {type(image).__name__}: use numpy.asarray(picture)")
    if image.ndim != 4 or len(image) != count:
        raise ValueError(
            f"image must be ({count}, 3, {hw[0]}, {hw[1]}) or ({count}, {hw[0]}, {hw[1]}, 3) to match the logits; "
            f"got {described(image)}: a single photo needs image[None] and logits[None]"
        )
    return [checked_image(each, (hw[0], hw[1])) for each in image]
