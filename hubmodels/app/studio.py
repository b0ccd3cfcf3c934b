"""The work behind the page, without Gradio: photos, networks, stages, and what is remembered of them."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hubmodels.absent import names_of_absent
from hubmodels.app.memory import BoundedMemory
from hubmodels.entries import DEFAULTS, Entry, find_entry, list_models
from hubmodels.errors import ImageError, ModelNotFoundError
from hubmodels.hub import load_model
from hubmodels.images import WORK_PX, fit_within, read_image
from hubmodels.labels import LabelSet
from hubmodels.masks import read_truth
from hubmodels.page_options import MAX_MEGAPIXELS
from hubmodels.refine import SETTINGS, Refinement, settings_of
from hubmodels.result import Segmentation
from hubmodels.runtime import RUNTIMES, choose_runtime, is_prepared, runtime_of, with_runtime
from hubmodels.segmenter import PhotoTuner, Segmenter
from hubmodels.weights_files import find_weights

KEPT_PHOTOS, KEPT_PIXELS, KEPT_S = 8, 2_500_000, 1800  # a pixel with 7 labels and a CRF takes about 600 bytes
KEPT_LABELS = 7  # so many labels take as much as all that does not depend on labels: two labels, two thirds
SPECK = 0.001  # share of the photo
STAGES = ("network", "crf", "superpixels", "final")


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo that was read.

    Attributes:
        key: digest of its pixels and shape; two photos share a key only if they are the same.
        size: height and width, upright.
        work: (h, w, 3) uint8, read-only: the photo, its long side at most WORK_PX.
    """

    key: str
    size: tuple[int, int]
    work: np.ndarray

    @classmethod
    def of(cls, image: np.ndarray) -> Photo:
        """From (H, W, 3) uint8."""
        height, width = image.shape[:2]
        digest = hashlib.sha256(f"{height}x{width};".encode() + np.ascontiguousarray(image).tobytes()).hexdigest()
        work = fit_within(image, WORK_PX)
        work = work.copy() if work is image else work
        work.flags.writeable = False
        return cls(digest, (height, width), work)

    @property
    def is_whole(self) -> bool:
        """Whether `work` is the photo itself, so that what the page shows is what `predict` returns."""
        return self.work.shape[:2] == self.size


@dataclass(frozen=True, eq=False)
class Answer:
    """The network's answer to a photo, ready to be refined, and the seconds it took."""

    tuner: PhotoTuner
    seconds: float


@dataclass(frozen=True, eq=False)
class Analysis:
    """What the page knows of a photo under some settings.

    Attributes:
        photo: the photo.
        entry: the model.
        settings: what was asked for.
        absent: labels that the photo does not show, as was said.
        final: the result, at the size of `photo.work`.
        seconds: by stage that ran for this analysis; what was remembered is not there.
    """

    photo: Photo
    entry: Entry
    settings: Refinement
    absent: tuple[str, ...]
    final: Segmentation
    seconds: Mapping[str, float]
    tuner: PhotoTuner

    def stage(self, name: str) -> Segmentation:
        """The result after one of STAGES; stages that came before a later one are remembered from it."""
        return self.tuner.refine(up_to(self.settings, name))

    def lost(self) -> dict[str, tuple[float, float]]:
        """Labels of which post-processing leaves less than half -> share of the photo before and after.

        The background and specks, `SPECK` of the photo or less, which clean-up is for, are not among them.
        """
        if self.settings == Refinement():
            return {}
        before, after = self.stage("network").areas(), self.final.areas()
        names = self.final.label_set.names[1:]
        return {
            name: (before[name], after[name])
            for name in names
            if before[name] > SPECK and 2 * after[name] < before[name]
        }


def up_to(settings: Refinement, stage: str) -> Refinement:
    """`settings` without what comes after one of STAGES."""
    if stage == "network":
        return Refinement()
    if stage == "crf":
        return Refinement(**{name: getattr(settings, name) for name in settings_of("crf", "decision")})
    if stage == "superpixels":
        off = Refinement()
        return dataclasses.replace(settings, **{name: getattr(off, name) for name in settings_of("clean-up")})
    if stage == "final":
        return settings
    raise ValueError(f"no stage {stage!r}; expected one of {STAGES}")


def fitted(settings: Refinement, entry: Entry) -> Refinement:
    """`settings` without what a model cannot do: a person threshold for more labels, a classifier it does not have."""
    off = Refinement()
    changes: dict[str, Any] = {}
    if len(entry.labels) != 2:
        changes["person_threshold"] = off.person_threshold
    if entry.regions is None and settings.vote == "classifier":
        changes["vote"] = off.vote
    return dataclasses.replace(settings, **changes) if changes else settings


def models_at_hand() -> list[str]:
    """Trained networks whose weights are here: large ones come with a clone, but neither with the wheel nor a Space."""
    return [name for name in list_models() if find_weights(find_entry(name)) is not None]


class Studio:
    """Models being served, and the last few photos with the networks' answers to them.

    Nothing is kept by visitor: keys are digests of pixels, so nobody gets an answer without having the photo.

    Args:
        models: names of the models; all trained ones whose weights are here unless given.
        max_megapixels: larger photos are refused.
        runtime: what runs the networks: "torch"; "onnx", which exports each as it is loaded; or "auto": ONNX Runtime if
            it is installed, from when a network is exported (hubmodels.app.exports), and PyTorch until then.

    Raises:
        ModelNotFoundError: no such model, or none at all.
        ValueError: no such runtime.
    """

    def __init__(
        self,
        models: Sequence[str] | None = None,
        *,
        max_megapixels: float = MAX_MEGAPIXELS,
        runtime: str = "torch",
    ) -> None:
        if runtime not in RUNTIMES:
            raise ValueError(f"runtime must be one of {', '.join(RUNTIMES)}; got {runtime!r}")
        self.models = tuple(dict.fromkeys(models_at_hand() if models is None else models))
        if not self.models:
            raise ModelNotFoundError("no model to serve; `hubmodels list` shows those there are")
        for name in self.models:
            if find_entry(name).name not in list_models():
                raise ModelNotFoundError(f"{name} is no trained network; there are: {', '.join(list_models())}")
        self.max_pixels = round(max_megapixels * 1e6)
        self.runtime = runtime
        self.runtimes: dict[str, str] = {}  # of each model that is loaded: what runs its network, "torch" or "onnx"
        self.speeds: dict[str, float] = {}  # seconds of a network for one photo, by `measure`
        # Choices of settings that do not work here, found by warm_up: field of `Refinement` -> choices.
        self.unavailable: dict[str, set[Any]] = {}
        self._photos: BoundedMemory[Photo] = BoundedMemory(max_items=16, max_cost=8e6, max_age_s=KEPT_S)
        self._truths: BoundedMemory[np.ndarray | str] = BoundedMemory(max_items=16, max_cost=8e6, max_age_s=KEPT_S)
        # One photo with every model, and more; memory is bounded by pixels.
        self._answers: BoundedMemory[Answer] = BoundedMemory(
            max_items=len(self.models) + KEPT_PHOTOS, max_cost=KEPT_PIXELS, max_age_s=KEPT_S
        )
        self._loaded: dict[str, Segmenter] = {}
        self._loading = threading.Lock()

    @property
    def tasks(self) -> list[str]:
        """Tasks that some served model does, the usual ones first."""
        return [task for task in DEFAULTS if any(find_entry(name).task == task for name in self.models)]

    def models_of(self, task: str | None = None) -> list[str]:
        """Served models, all or those of one task, the task's default first."""
        names = [name for name in self.models if task in (None, find_entry(name).task)]
        return sorted(names, key=lambda name: (name not in DEFAULTS.values(), name))

    def default_model(self, task: str | None = None) -> str:
        """The model a visitor meets first."""
        return self.models_of(task or self.tasks[0])[0]

    def model(self, name: str) -> Segmenter:
        """A served model, loaded once. Raises ModelNotFoundError for any other."""
        if name not in self.models:
            known = ", ".join(self.models)
            raise ModelNotFoundError(f"no model {str(name)[:80]!r} is served here. Served models: {known}")
        with self._loading:
            if name not in self._loaded:
                self._loaded[name] = self._load(name)
                self.runtimes[name] = runtime_of(self._loaded[name])
            return self._loaded[name]

    def _load(self, name: str) -> Segmenter:
        """Under "auto" a network that is not exported yet stays PyTorch's: see `adopt`."""
        model = load_model(name)
        return with_runtime(model, self.runtime) if self.runtime != "auto" or is_prepared(model) else model

    def measure(self, name: str, photo: Photo) -> None:
        """Note in `speeds` how long a network takes for a photo."""
        start = time.perf_counter()
        self.model(name).probabilities(photo.work)
        self.speeds[name] = time.perf_counter() - start

    @property
    def not_exported(self) -> list[str]:
        """The loaded models whose networks PyTorch runs until they are exported for ONNX Runtime."""
        waiting = [name for name, runtime in self.runtimes.items() if self.runtime == "auto" and runtime == "torch"]
        return [name for name in waiting if choose_runtime(self._loaded[name], "auto") == "onnx"]

    def adopt(self, name: str) -> bool:
        """Let ONNX Runtime run a network from now on if it was exported meanwhile; whether that is so.

        Answers that are remembered stay: those of ONNX Runtime are the same within 1e-3.
        """
        model = self._load(name)
        if runtime_of(model) == "torch":
            return False
        with self._loading:
            self._loaded[name], self.runtimes[name] = model, "onnx"
        return True

    def open(self, path: Path) -> Photo:
        """The photo in a file, decoded again only if the file is another one.

        Raises:
            FileNotFoundError: no such file.
            ImageError: it cannot be read, or has too many pixels.
        """
        status = path.stat()
        key = (str(path), status.st_mtime_ns, status.st_size)
        return self._photos.get(key, lambda: Photo.of(read_image(path, max_pixels=self.max_pixels)), cost=WORK_PX**2)

    def truth(self, path: Path, photo: Photo, labels: LabelSet) -> np.ndarray:
        """(h, w) uint8 ids of a mask at the photo's working size, as of `read_truth`; what is wrong is remembered too.

        Raises:
            FileNotFoundError: no such file.
            ImageError: it cannot be used for this photo and these labels.
        """

        def compute() -> np.ndarray | str:
            try:
                size = photo.work.shape[:2]
                return read_truth(path, labels, photo.size, max_pixels=self.max_pixels, out_size=(size[0], size[1]))
            except ImageError as error:
                return str(error)  # the exception itself would gather the frames of every call that raises it

        status = path.stat()
        key = (str(path), status.st_mtime_ns, status.st_size, labels, photo.size)
        found = self._truths.get(key, compute, cost=WORK_PX**2)
        if isinstance(found, str):
            raise ImageError(found)
        return found

    def answer(self, photo: Photo, name: str, absent: tuple[str, ...] = ()) -> tuple[Answer, bool]:
        """A network's answer to a photo, without labels that it does not show, and whether it ran for it just now."""
        ran = []

        def compute() -> Answer:
            if absent:
                whole, ran_now = self.answer(photo, name)
                ran.extend([name] * ran_now)
                return Answer(whole.tuner.without(absent), whole.seconds)
            ran.append(name)
            model = self.model(name)
            start = time.perf_counter()
            tuner = model.tune(photo.work)
            return Answer(tuner, time.perf_counter() - start)

        height, width = photo.work.shape[:2]
        share = (KEPT_LABELS + len(find_entry(name).labels)) / (2 * KEPT_LABELS)
        return self._answers.get((name, photo.key, absent), compute, cost=share * height * width), bool(ran)

    def analyse(self, photo: Photo, name: str, settings: Refinement, *, absent: Collection[str] = ()) -> Analysis:
        """Label a photo at working size; only what changed since the last call for it is computed.

        Raises:
            ModelNotFoundError: no such model is served.
            TypeError: `absent` are no names.
            ValueError: a choice of the settings is not available here, or a label cannot be left out.
        """
        self.model(name)
        self._check(settings)
        entry = find_entry(name)
        settings, left_out = fitted(settings, entry), names_of_absent(entry.labels, absent)
        answer, ran = self.answer(photo, name, left_out)
        final, stages = answer.tuner.refine_timed(settings)
        seconds = {"network": answer.seconds, **stages} if ran else stages
        return Analysis(photo, entry, settings, left_out, final, seconds, answer.tuner)

    def whole(self, path: Path, name: str, settings: Refinement, *, absent: Collection[str] = ()) -> Segmentation:
        """A photo's labels at its own size: `hubmodels.load(name).predict(path, refinement=settings, absent=absent)`.

        Only photos beyond working size are computed anew; nothing of those is remembered.

        Raises:
            ModelNotFoundError, TypeError, ValueError: as `analyse`.
        """
        self._check(settings)
        photo = self.open(path)
        if photo.is_whole:
            return self.analyse(photo, name, settings, absent=absent).final
        image = read_image(path, max_pixels=self.max_pixels)
        return self.model(name).predict(image, refinement=fitted(settings, find_entry(name)), absent=absent)

    def choices(self, field: str) -> list[Any]:
        """The choices of a setting that work here; its default always counts as one."""
        lacking = self.unavailable.get(field, set())
        return [v for v in SETTINGS[field].choices if v not in lacking or v == getattr(Refinement(), field)]

    def available(self, settings: Refinement) -> Refinement:
        """`settings` with defaults in the places of choices that do not work here."""
        off = Refinement()
        lacking = [field for field in self.unavailable if getattr(settings, field) not in self.choices(field)]
        return dataclasses.replace(settings, **{field: getattr(off, field) for field in lacking})

    def _check(self, settings: Refinement) -> None:
        for field in self.unavailable:
            if (value := getattr(settings, field)) not in (there := self.choices(field)):
                raise ValueError(f"{field} {value!r} is not available on this server; choose one of {there}")

    def expire(self) -> int:
        """Forget photos that were not used for a while; returns how many results went."""
        return self._photos.expire() + self._truths.expire() + self._answers.expire()

    @property
    def remembered(self) -> int:
        """Number of answers in memory."""
        return len(self._answers)
