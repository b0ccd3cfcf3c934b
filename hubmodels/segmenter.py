"""Segmenter: a network with its labels; photos in, segmentations out. It keeps nothing between calls."""

from __future__ import annotations

import functools
import itertools
import math
import numbers
from collections.abc import Callable, Collection, Iterable, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from hubmodels.absent import ids_of_absent, leave_out_, names_of_absent
from hubmodels.bands import softmax_
from hubmodels.config import INPUT_PX, ModelConfig
from hubmodels.errors import WeightsError
from hubmodels.images import ImageSource, checked_array, read_image
from hubmodels.labels import LabelSet
from hubmodels.networks.folding import FoldedCopy
from hubmodels.networks.grid import GRID_PX
from hubmodels.pretrained import Pretrained
from hubmodels.refine import Refinement, RegionClassifier, Tuner
from hubmodels.refine.settings import checked_settings
from hubmodels.result import Segmentation


class Segmenter(Pretrained):
    """A segmentation network as torch.hub users expect it, and a predictor for photos.

    Args:
        network: (N, 3, H, W) float RGB in 0..1 -> (N, C, H, W) logits.
        labels: the C labels.
        name: the entry it was loaded from, or any name.
        input_px: `predict` brings the long side of a larger photo to so many pixels for the network; 32..4096.
        region_classifier: loads the classifier for `Refinement(vote="classifier")`; None: that vote is refused.
        config: how the network is built; without it the model cannot be saved by `save_pretrained`.

    Raises:
        TypeError: `input_px` is no whole number.
        ValueError: it is out of range.
    """

    def __init__(
        self,
        network: nn.Module,
        labels: LabelSet,
        *,
        name: str,
        input_px: int = 576,
        region_classifier: Callable[[], RegionClassifier] | None = None,
        config: ModelConfig | None = None,
    ) -> None:
        super().__init__()
        self.region_classifier = region_classifier
        self.network = network
        self.labels = labels
        self.name = name
        self.input_px = input_px
        self.config = config
        self._folded = FoldedCopy()

    @property
    def input_px(self) -> int:
        """Long side in pixels at which the network sees a larger photo; TypeError or ValueError for what is none."""
        return self._input_px

    @input_px.setter
    def input_px(self, input_px: int) -> None:
        self._input_px = _checked_px(input_px)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of a batch.

        Args:
            x: (N, 3, H, W) float RGB in 0..1, H and W at least 32.

        Returns:
            (N, C, H, W) float logits, the same H and W.

        Raises:
            TypeError: no tensor.
            ValueError: another shape or dtype; float64 is for networks in float64. Half precision and float32 become
                what the network is, be that float64.
        """
        if not isinstance(x, torch.Tensor):
            raise TypeError(f"input must be a tensor (N, 3, H, W); got {type(x).__name__}: photos go to predict()")
        if x.ndim != 4 or x.shape[1] != 3:
            hint = "; add a batch dimension: x[None]" if x.ndim == 3 and x.shape[0] == 3 else ""
            raise ValueError(f"input must be (N, 3, H, W); got {tuple(x.shape)}{hint}")
        if not x.is_floating_point():
            raise ValueError(f"input must be float RGB in 0..1; got {x.dtype}: divide by 255")
        dtype = _dtype(self.network)
        if x.dtype == torch.float64 and dtype != torch.float64:
            raise ValueError("input must be float32, as the network is; got float64, NumPy's default: call x.float()")
        if min(x.shape[2:]) < GRID_PX:
            raise ValueError(f"input must be at least {GRID_PX} pixels high and wide; got {tuple(x.shape[2:])}")
        return self.network(x.to(dtype))

    @torch.inference_mode()
    def probabilities(self, image: np.ndarray, *, flip: bool = False, scales: Sequence[float] = (1.0,)) -> np.ndarray:
        """(C, H, W) float32 probabilities of an (H, W, 3) uint8 photo, at the photo's own size.

        Logits are resized bilinearly and only then turned into probabilities; label ids are never resized.

        Args:
            image: the photo.
            flip: average with the answer to the mirrored photo, at twice the time.
            scales: average over passes at these multiples of `input_px`, or of the long side of a smaller photo, each
                in 0.25..2.

        Raises:
            TypeError: a photo that is no array, a flip that is neither True nor False, or scales that are not several;
                or the network answers with no tensor.
            ValueError: an array that is no photo; no scale, or one that is no number in range; or the network or a part
                of it is in training mode, in which its answer would depend on chance and a photo would change its batch
                norms; or it answers with a tensor that is not (N, C, H, W), C the number of labels.
            ImageError: the photo is too large.
            WeightsError: the network answers with values that are not finite.
        """
        checked_array(image)
        if not isinstance(flip, (bool, np.bool_)):
            raise TypeError(f"flip must be True or False; got {flip!r:.100}")
        scales = _checked_scales(scales)
        if any(module.training for module in self.network.modules()):
            raise ValueError(f"{self.name} is in training mode: call eval() before it predicts, and train() afterwards")
        network = self._folded.of(self.network)  # a quarter faster
        passes = list(itertools.product(scales, (False, True) if flip else (False,)))

        def answer(scale: float, mirrored: bool) -> torch.Tensor:
            seen = image[:, ::-1] if mirrored else image
            long_side_px = round(scale * min(self.input_px, max(image.shape[:2])))
            logits = photo_logits(network, seen, long_side_px=long_side_px, enlarge=scale > 1, check=self._check_answer)
            return softmax_(logits.flip(-1) if mirrored else logits)

        mean = functools.reduce(torch.Tensor.add_, itertools.starmap(answer, passes))
        if len(passes) > 1:
            mean.div_(len(passes))
        if not math.isfinite(mean.sum().item()):  # such pixels would all be labelled background
            raise WeightsError(
                f"{self.name}: the network answers with values that are not finite; its weights are damaged, or a "
                "training diverged: go back to a checkpoint before that"
            )
        return mean.cpu().numpy()

    def _check_answer(self, logits: object) -> None:
        """Raise TypeError or ValueError unless a network of one's own answers a photo as one for these labels does."""
        wanted = f"{self.name}: the network must answer a photo with a tensor (1, {len(self.labels)}, H, W) of logits"
        names = f"one channel for each label of {self.labels.task}: {', '.join(self.labels.names):.300}"
        if not isinstance(logits, torch.Tensor):
            raise TypeError(f"{wanted}, {names}; got {type(logits).__name__}: wrap it in a module that returns them")
        if logits.ndim != 4 or tuple(logits.shape[:2]) != (1, len(self.labels)):
            raise ValueError(f"{wanted}, {names}; got {tuple(logits.shape)}: pass its own labels, as a LabelSet")

    def predict(
        self,
        photo: ImageSource,
        *,
        refinement: Refinement | None = None,
        absent: Collection[str] = (),
        flip: bool = False,
        scales: Sequence[float] = (1.0,),
    ) -> Segmentation:
        """Label a photo.

        Args:
            photo: path, bytes, PIL image or (H, W, 3) uint8 array.
            refinement: post-processing; none unless given.
            absent: labels that the photo is known not to show, such as ["dress"]; the others share their probability.
            flip, scales: test-time augmentation, as of `probabilities`; each pass costs the time of one.

        Returns:
            A Segmentation at the photo's own size, upright.

        Raises:
            FileNotFoundError: no file at the path.
            ImageError: the photo cannot be read.
            TypeError: a refinement, photo or `absent` of another type; or as of `probabilities`.
            ValueError: `absent` names no label, the background, or all others; or as of `probabilities` and `refine`.
            WeightsError: as of `probabilities`.
        """
        settings = checked_settings(Refinement() if refinement is None else refinement)
        has_classifier = self.region_classifier is not None
        settings.check_for(self.name, len(self.labels), has_region_classifier=has_classifier)  # before the network runs
        return self.tune(photo, absent=absent, flip=flip, scales=scales).refine(settings)

    def tune(
        self,
        photo: ImageSource,
        *,
        absent: Collection[str] = (),
        flip: bool = False,
        scales: Sequence[float] = (1.0,),
    ) -> PhotoTuner:
        """Run the network once and keep its answer, so that settings can be tried at little cost.

        Raises:
            As `predict`, but for the refinement.
        """
        left_out = ids_of_absent(self.labels, absent)  # before the network runs
        image = read_image(photo)
        image = image.copy() if image is photo else image  # the caller's array may hold the next frame by then
        probs = leave_out_(self.probabilities(image, flip=flip, scales=scales), left_out)
        tuner = Tuner(probs, image, region_classifier=self.region_classifier, checked=True)
        return PhotoTuner(tuner, self.labels, absent)


class PhotoTuner:
    """One photo with the network's answer; `refine` recomputes only what a change of settings needs."""

    def __init__(self, tuner: Tuner, labels: LabelSet, absent: Collection[str] = ()) -> None:
        self._tuner, self._labels, self._absent = tuner, labels, tuple(absent)

    def refine(self, settings: Refinement) -> Segmentation:
        """The photo's segmentation under `settings`."""
        return self.refine_timed(settings)[0]

    def refine_timed(self, settings: Refinement) -> tuple[Segmentation, dict[str, float]]:
        """`refine`, with the seconds of each stage that ran; what was remembered is not there."""
        labels, probs, seconds = self._tuner.refine_timed(settings)
        return Segmentation(self._tuner.image, labels, probs, self._labels), seconds

    def without(self, absent: Collection[str]) -> PhotoTuner:
        """The photo with the network's answer, but for labels that it is known not to show; those that were left out
        before stay so.

        Raises:
            TypeError, ValueError: as of `predict`.
        """
        ids = ids_of_absent(self._labels, absent)
        if not ids:
            return self
        known = names_of_absent(self._labels, {*self._absent, *absent})
        return PhotoTuner(self._tuner.for_probs(leave_out_(self._tuner.probs.copy(), ids)), self._labels, known)

    def superpixels(self, settings: Refinement) -> np.ndarray:
        """(H, W) int32 ids of the superpixels that vote under `settings`; ValueError if those are off."""
        return self._tuner.superpixels(settings)


def _checked_scales(scales: Iterable[float]) -> tuple[float, ...]:
    if not isinstance(scales, Iterable):
        raise TypeError(f"scales must be a sequence of numbers, such as (1.0,); got {scales!r:.100}")
    listed = tuple(scales)
    real = all(isinstance(scale, numbers.Real) and not isinstance(scale, bool) for scale in listed)
    if not listed or not real or not all(0.25 <= scale <= 2 for scale in listed):
        raise ValueError(f"scales must be one or more numbers in 0.25..2; got {listed!r:.200}")
    return listed


def _checked_px(input_px: int) -> int:
    if isinstance(input_px, bool) or not isinstance(input_px, numbers.Integral):
        raise TypeError(f"input_px must be a whole number of pixels, such as 576; got {input_px!r}")
    if int(input_px) not in INPUT_PX:
        raise ValueError(f"input_px must be in {INPUT_PX[0]}..{INPUT_PX[-1]}; got {input_px}")
    return int(input_px)


def _dtype(network: nn.Module) -> torch.dtype:
    """That of the weights; ONNX Runtime, which has none, computes in float32."""
    return next((each.dtype for each in network.parameters() if each.is_floating_point()), torch.float32)


@torch.inference_mode()
def photo_logits(
    network: nn.Module,
    image: np.ndarray,
    *,
    long_side_px: int,
    enlarge: bool = False,
    check: Callable[[object], None] | None = None,
) -> torch.Tensor:
    """(C, H, W) float logits of an (H, W, 3) uint8 photo at its own size, on the network's device.

    The photo goes through the network at its working size; what is resized back are logits, never label ids. A network
    in half precision gets the photo in its own, and all around it stays float32. `check` sees its answer first.
    """
    weights = next(network.parameters(), torch.zeros(()))  # ONNX Runtime has none
    height, width = image.shape[:2]
    # Copied, with strides of its own: those of a mirrored photo one pixel wide stay negative in a contiguous view.
    pixels = torch.from_numpy(np.array(image, order="C")).to(weights.device)
    x = pixels.permute(2, 0, 1)[None].float().div_(255)
    x = F.interpolate(x, working_size(height, width, long_side_px, enlarge=enlarge), mode="bilinear", antialias=True)
    logits = network(x.to(_dtype(network), memory_format=torch.channels_last))
    if check is not None:
        check(logits)
    # Label by label: in the network's own layout the answer would be pixel by pixel, which all that follows has to copy
    # or to read in steps. A large photo would take half as long again.
    return F.interpolate(logits.float().contiguous(), (height, width), mode="bilinear")[0]


def working_size(height: int, width: int, long_side_px: int, *, enlarge: bool = False) -> tuple[int, int]:
    """Size at which a photo goes through the network: multiples of 32 nearest to its shape.

    The long side is about `long_side_px`, or that of a smaller photo unless `enlarge`; shapes change by half of 32
    pixels at most.
    """
    factor = long_side_px / max(height, width)
    factor = (factor if enlarge else min(1.0, factor)) / GRID_PX
    return max(1, round(height * factor)) * GRID_PX, max(1, round(width * factor)) * GRID_PX
