"""A training recipe: everything that decides a result, read from a TOML file and checked on reading."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from hubmodels.config import INPUT_PX, ModelConfig
from hubmodels.labels import FASHION, TASKS, LabelSet
from training.crf_layer import crf_layers
from training.data import SOURCES
from training.errors import RecipeError
from training.folder import read_classes
from training.losses import LOSSES
from training.optimizers import OPTIMIZERS
from training.transforms import Augment
from training.typed import misfit

SCHEDULES = ("one_cycle", "poly", "plateau")
PRECISIONS = ("no", "bf16", "fp16")
# A run may be gone on with under other values of these: what it is called, how long it lasts, how it is computed.
MAY_CHANGE = {"name", "epochs", "mixed_precision", "compile"}


def label_counts(tasks: Sequence[str], classes: Sequence[str] = ()) -> dict[str, int]:
    """Task -> number of labels: as published, or of one's own `classes`.

    Raises:
        ValueError: a task that is not published, without classes.
    """
    if not classes and (unknown := [task for task in tasks if task not in TASKS]):
        raise ValueError(f"expected tasks of {', '.join(TASKS)}, or the classes of one's own; got {unknown}")
    return {task: len(TASKS[task]) if task in TASKS else len(classes) for task in tasks}


def trained_counts(run: Mapping[str, Any]) -> dict[str, int]:
    """`label_counts` of a checkpoint of `training.train`."""
    return label_counts(run["recipe"]["tasks"], run["recipe"].get("classes", ()))


@dataclass(frozen=True)
class Recipe:
    """One run of `python -m training.train`.

    With several tasks one network gets their labels side by side as output channels; each task is exported alone.
    """

    name: str  # folder under runs/
    tasks: tuple[str, ...]
    arch: str
    augment: Augment
    epochs: int
    network: dict[str, Any] = field(default_factory=dict)  # keyword arguments of the architecture
    init: str = "imagenet"  # "imagenet", "random", the name of an entry, or a checkpoint of an earlier run
    sources: tuple[str, ...] = ("fashionista", "ccp")
    folder: str = ""  # one's own photos and masks instead of `sources`, with a task of one's own: see training.folder
    classes: tuple[str, ...] = ()  # its label names, read from the folder's classes.json
    repeat: dict[str, int] = field(default_factory=dict)  # source -> times its photos are seen in an epoch
    loss: dict[str, float] = field(default_factory=lambda: {"cross_entropy": 1.0})
    soft_labels: str = ""  # a folder of training.soft_labels: photos that are in it learn from it
    soft_weight: float = 1.0  # of the loss on soft labels
    soft_confidence: float = 0.0  # pixels whose teacher is less sure teach nothing
    deep_supervision: bool = False  # U-2-Net: mean loss over the fused map and its six sides
    crf: dict[str, Any] = field(default_factory=dict)  # a CRF on top, trained along: see training.crf_layer
    task_weight: dict[str, float] = field(default_factory=dict)  # task -> weight of its loss, 1 unless given
    class_weight: dict[str, tuple[float, ...]] = field(default_factory=dict)  # task -> cross-entropy weights
    lr: float = 1e-3  # peak, for decoder and classifier
    backbone_lr_factor: float = 0.5  # the pretrained backbone (U-2-Net: all but its heads) moves more slowly
    weight_decay: float = 0.01
    optimizer: str = "adamw"  # or "adam", "sgd": see training.optimizers
    schedule: str = "one_cycle"  # or "poly", "plateau"
    plateau_epochs: int = 2  # epochs without a better val score after which "plateau" halves the learning rate
    warmup_share: float = 0.15  # share of all steps in which one_cycle rises to the peak
    batch_size: int = 8
    ema_decay: float = 0.99  # 0 is off; early steps use less, see training.ema
    freeze_batch_norm: bool = False
    eval_long_side_px: int = 576  # size at which val photos go through the network
    mixed_precision: str | None = None  # of PRECISIONS; None: as `accelerate launch` says, and "no" without it
    compile: bool = True  # fuse elementwise work with torch.compile; needs a C++ compiler
    seed: int = 0

    def __post_init__(self) -> None:
        check = self._check
        wrong = misfit(self)
        check(not wrong, wrong)
        check(
            self.name not in ("", ".", "..") and not set(self.name) & set("/\\\0"),
            f"name must be that of a folder under runs/, without its path; got {self.name!r}",
        )
        if self.folder:
            check(
                len(self.tasks) == 1 and self.tasks[0] not in TASKS and self.tasks[0].isidentifier(),
                f"with folder, tasks must be one name of your own, other than {list(TASKS)}; got {list(self.tasks)}",
            )
            check(len(self.classes) >= 2, "folder needs 2 or more classes, from its classes.json")
        else:
            check(bool(self.tasks) and all(task in TASKS for task in self.tasks), f"tasks must be among {list(TASKS)}")
            check(not self.classes, "classes are those of a folder; name it by the key folder")
        check(not (self.folder and self.soft_labels), "soft_labels are for the published tasks, not for a folder")
        self._check_numbers()
        check(self.schedule in SCHEDULES, f"schedule must be one of {', '.join(SCHEDULES)}; got {self.schedule!r}")
        check(self.optimizer in OPTIMIZERS, f"optimizer must be one of {list(OPTIMIZERS)}; got {self.optimizer!r}")
        check(
            self.mixed_precision in (None, *PRECISIONS),
            f"mixed_precision must be one of {', '.join(PRECISIONS)}; got {self.mixed_precision!r}",
        )
        self._check_network()
        self._check_arch()
        check(
            bool(self.loss) and set(self.loss) <= set(LOSSES),
            f"loss must name one or more of {list(LOSSES)}; got {list(self.loss)}",
        )
        self._check_crf()
        for task, weights in self.class_weight.items():
            check(task in self.tasks, f"class_weight names task {task!r}, tasks are {list(self.tasks)}")
            check(
                len(weights) == self.label_counts[task], f"class_weight.{task} needs {self.label_counts[task]} values"
            )
        self._check_names()
        self._check_weights()
        self._check_used()

    def _check(self, ok: bool, message: str) -> None:
        if not ok:
            raise RecipeError(f"recipe {self.name!r}: {message}")

    def _check_arch(self) -> None:
        """What the other keys ask of the architecture."""
        check = self._check
        u2net = self.arch.startswith("u2net")
        check(
            u2net or not self.deep_supervision,
            f"deep_supervision needs arch u2net or u2net_small, which answer at every depth; got {self.arch!r}",
        )
        check(
            not u2net or self.init != "imagenet",
            'init = "imagenet" has no weights for U-2-Net; use "random", or a file of training.import_checkpoint',
        )
        check(
            not u2net or len(self.tasks) == 1,
            f"U-2-Net takes one task, its last layer mixes all channels; got {list(self.tasks)}",
        )
        check(
            self.arch != "ensemble" or self.init != "imagenet",
            'init = "imagenet" is for one network, not for an ensemble of them; use "random", or a checkpoint of one',
        )

    def _check_crf(self) -> None:
        try:
            crf_layers(self.label_counts, self.crf)
        except (TypeError, ValueError) as error:
            raise RecipeError(f"recipe {self.name!r}: [crf]: {error}") from error
        factor = self.crf.get("lr_factor", 1.0)  # the other keys are those of DenseCRF, which has checked them
        self._check(
            type(factor) in (int, float) and 0 <= factor < math.inf,
            f"[crf]: lr_factor must be a number of 0 or more; got {factor!r}",
        )

    def _check_numbers(self) -> None:
        check = self._check
        for key in ("epochs", "batch_size", "plateau_epochs"):
            check(getattr(self, key) >= 1, f"{key} must be 1 or more; got {getattr(self, key)}")
        check(0 <= self.seed < 2**32, f"seed must be in 0..2**32 - 1; got {self.seed}")
        check(0 < self.lr < math.inf, f"lr must be above 0 and finite; got {self.lr}")
        for key in ("backbone_lr_factor", "weight_decay"):
            check(0 <= getattr(self, key) < math.inf, f"{key} must be 0 or more; got {getattr(self, key)}")
        check(0 <= self.warmup_share <= 1, f"warmup_share must be in 0..1; got {self.warmup_share}")
        for key in ("ema_decay", "soft_confidence"):
            check(0 <= getattr(self, key) < 1, f"{key} must be in [0, 1); got {getattr(self, key)}")
        check(
            self.eval_long_side_px in INPUT_PX,
            f"eval_long_side_px must be in {INPUT_PX[0]}..{INPUT_PX[-1]}; got {self.eval_long_side_px}",
        )
        check(
            min(self.augment.crop_hw) >= INPUT_PX[0],
            f"augment.crop_hw must be {INPUT_PX[0]} or more, as networks want; got {list(self.augment.crop_hw)}",
        )

    def _check_network(self) -> None:
        """By names and values alone, as for saved models: to build a network takes too long for a check."""
        try:
            ModelConfig(self.name, self.arch, self.network, LabelSet.custom(("background", "any")), INPUT_PX[0])
        except ValueError as error:
            raise RecipeError(f"recipe {self.name!r}: {error}") from error

    def _check_used(self) -> None:
        """What would be ignored."""
        self._check(
            not self.class_weight or self.loss.get("cross_entropy", 0) > 0,
            f"class_weight is for the loss cross_entropy alone; got {self.loss}: add it, or leave class_weight out",
        )
        self._check(
            bool(self.soft_labels) or (self.soft_weight, self.soft_confidence) == (1, 0),
            "soft_weight and soft_confidence need soft_labels: name their folder, or leave both out",
        )

    def _check_names(self) -> None:
        """Names of tasks, sources and labels, which would be ignored if they were misspelt."""
        self._check_known("sources", self.sources, tuple(SOURCES))
        self._check(bool(self.folder or self.sources), f"sources must name one or more of {list(SOURCES)}; got none")
        sources = [Path(self.folder).name] if self.folder else self.sources
        self._check_known("task_weight", self.task_weight, self.tasks)
        self._check_known("repeat", self.repeat, sources)
        paste = self.augment.paste > 0
        self._check(
            not paste or bool(self.folder) or "fashion" in self.tasks,
            f"augment.paste needs the task fashion, or a folder; got {list(self.tasks)}: set paste to 0",
        )
        if paste or not self.folder:  # a folder's labels are not those of the default
            self._check_known("augment.paste_labels", self.augment.paste_labels, self.garments.names[1:])

    def _check_known(self, key: str, names: Iterable[str], known: Sequence[str]) -> None:
        self._check(set(names) <= set(known), f"{key} must be of {list(known)}; got {list(names)}")

    def _check_weights(self) -> None:
        weights: dict[str, Iterable[float]] = {
            "loss": self.loss.values(),
            "task_weight": self.task_weight.values(),
            "soft_weight": [self.soft_weight],
            **{f"class_weight.{task}": values for task, values in self.class_weight.items()},
        }
        for key, values in weights.items():
            self._check(all(0 <= v < math.inf for v in values), f"{key} must be 0 or more; got {list(values)}")
        self._check(any(self.loss.values()), f"loss must have a weight above 0; got {self.loss}")
        self._check(all(times >= 1 for times in self.repeat.values()), f"repeat must be 1 or more; got {self.repeat}")

    @property
    def num_classes(self) -> int:
        """Output channels of the network: the labels of all tasks."""
        return sum(self.label_counts.values())

    @property
    def label_counts(self) -> dict[str, int]:
        """Task -> number of labels, in the order of the output channels."""
        return label_counts(self.tasks, self.classes)

    @property
    def garments(self) -> LabelSet:
        """The labels of which `augment.paste_labels` are: those of `fashion`, or of the folder."""
        return LabelSet.custom(self.classes, task=self.tasks[0]) if self.folder else FASHION

    @property
    def folder_name(self) -> str:
        """What `folder` is called, without where it is; cards name it."""
        return Path(self.folder).name[:100] or "a folder of one's own"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as stored in checkpoints."""
        return asdict(self)

    def differences(self, saved: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """Key -> value in a checkpoint's recipe and here, of the settings that make it another run than this one."""
        theirs, ours = _settings(saved), _settings(self.to_dict())
        return {key: (theirs.get(key), ours.get(key)) for key in ours | theirs if theirs.get(key) != ours.get(key)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Recipe:
        """Check and convert plain values (lists become tuples).

        Raises:
            RecipeError: unknown or missing key, or a value of another type or out of range.
        """
        name = values.get("name", "?")
        _check_keys(cls, values, where=f"recipe {name!r}")
        given = _with_tuples(values)
        for key in ("augment", "class_weight"):
            if isinstance(table := given.get(key), Mapping):
                given[key] = _with_tuples(table)
        try:
            if isinstance(given.get("augment"), Mapping):
                _check_keys(Augment, given["augment"], where=f"recipe {name!r}: [augment]")
                given["augment"] = Augment(**given["augment"])
            return cls(**given)
        except (TypeError, ValueError) as error:
            raise RecipeError(f"recipe {name!r}: {error}") from error


def _check_keys(kind: type, values: Mapping[str, Any], *, where: str) -> None:
    """Raise RecipeError if `values` are not keys of a dataclass, or lack some that have no default."""
    known = [f.name for f in fields(kind)]
    if unknown := sorted(set(values) - set(known)):
        raise RecipeError(f"{where}: unknown keys {unknown}; known are {', '.join(known)}")
    if missing := [key for key in known if key not in _defaults(kind) and key not in values]:
        raise RecipeError(f"{where}: expected the keys {', '.join(missing)} too, which have no default; add them")


def _with_tuples(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}


def _settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Key -> value of a recipe as stored, but for `MAY_CHANGE`; what an older one does not say is the default."""
    filled = {**_defaults(Recipe), **values}
    augment = {**_defaults(Augment), **filled.pop("augment", {})}
    filled |= {f"augment.{key}": value for key, value in augment.items()}
    filled |= {key: bool(filled[key]) for key in ("folder", "soft_labels")}  # whether, as folders may move
    plain = json.loads(json.dumps(filled))  # tuples are lists in some and tuples in others
    return {key: value for key, value in plain.items() if key not in MAY_CHANGE}


def _defaults(kind: type) -> dict[str, Any]:
    """Key -> default, of those keys of a dataclass that have one."""
    plain = {f.name: f.default for f in fields(kind) if f.default is not MISSING}
    return plain | {f.name: f.default_factory() for f in fields(kind) if f.default_factory is not MISSING}


def read_recipe(path: Path, *, folder: Path | None = None) -> Recipe:
    """Read a recipe; its name is the file's stem unless it says otherwise.

    Args:
        path: the file.
        folder: instead of its `folder`.

    Raises:
        RecipeError: missing file, bad TOML, unknown or missing key, or a value of another type or out of range.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such recipe") from None
    except OSError as error:
        raise RecipeError(f"{path}: expected a TOML file; it cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise RecipeError(f"{path}: {error}") from error
    if folder is not None:
        values["folder"] = str(folder)
    if isinstance(values.get("folder"), str) and values["folder"]:
        classes = read_classes(Path(values["folder"]))
        if (given := values.get("classes", list(classes))) != list(classes):
            raise RecipeError(f"{path}: classes are those of the folder's classes.json, {list(classes)}; got {given}")
        values["classes"] = classes
    return Recipe.from_dict({"name": path.stem, **values})
