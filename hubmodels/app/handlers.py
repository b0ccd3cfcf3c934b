"""What happens when something on the page changes or the API is called: values in, outputs for Gradio out."""

from __future__ import annotations

import dataclasses
import html
import logging
import os
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio.processing_utils import hash_bytes
from PIL import Image

from hubmodels import files, masks
from hubmodels.app import downloads, links, snippets, texts, views
from hubmodels.app.compare import Side, compare_html
from hubmodels.app.controls import CONTROLS, absent_from, settings_from
from hubmodels.app.studio import Analysis, Studio, fitted
from hubmodels.app.uploads import own_upload
from hubmodels.app.views import View
from hubmodels.app.workers import Workers
from hubmodels.entries import Entry, find_entry
from hubmodels.errors import HubmodelsError, ImageError
from hubmodels.paths import home
from hubmodels.refine import Refinement
from hubmodels.result import Segmentation

# Where files of the host are, as messages of errors may name them; not /, which is in other texts too.
PLACES = [
    str(place) for place in (Path(__file__).parents[2], home(), Path(tempfile.gettempdir())) if len(place.parts) > 1
]
LOG = logging.getLogger(__name__)
OUTPUTS = 8  # of `update`: pictures, details, scores, link, and four snippets


class Handlers:
    """The page's functions, bound to what is served.

    Args:
        studio: models and memory.
        cache_dir: folder of visitors' files, uploads and results, which the server cleans; no other file is read.
        examples: digest of an example's pixels -> its name.
        concurrency: heavy calls at a time.
    """

    def __init__(self, studio: Studio, *, cache_dir: str, examples: dict[str, str], concurrency: int = 1) -> None:
        self.studio, self._cache_dir, self._examples = studio, cache_dir, examples
        self._workers = Workers(concurrency)

    # --- The page -----------------------------------------------------------------------------------------------------

    def update(self, photo: Any, model: str, mask: Any, request: gr.Request, **values: Any) -> tuple[Any, ...]:
        """Everything that the page shows for a photo; what is wrong stands in the place of the pictures."""
        if photo is None:
            invitation = texts.LINKED if links.lacks_photo(request.query_params) else texts.WELCOME
            return self._nothing(texts.notice_html(invitation))
        try:
            photo = self._uploaded(photo)
            return self._workers.run(self._show, photo, model, mask, request, values)
        except FileNotFoundError:
            return self._nothing(texts.notice_html(texts.GONE, error=True))
        except ImageError as error:
            return self._nothing(texts.notice_html(unreadable(error, photo), error=True))
        except (HubmodelsError, ValueError, TypeError) as error:
            log_failure(error)
            return self._nothing(texts.notice_html(self._without_paths(error), error=True))
        except Exception as error:  # whatever it is, a visitor reads a sentence, and the log gets no file name
            log_failure(error)
            return self._nothing(texts.notice_html(texts.FAILED, error=True))

    def _show(self, path: str, model: str, mask: Any, request: gr.Request, values: dict[str, Any]) -> tuple[Any, ...]:
        view = View.of(values)
        photo = self.studio.open(Path(path))
        absent = self._absent(model, values)
        settings = settings_from(values)
        analysis = self.studio.analyse(photo, model, settings, absent=absent)
        notes = self._unlike_the_link(request.query_params, model, view, settings)
        if analysis.settings.vote != settings.vote:  # until the menu follows: see `adapt`
            notes.append(texts.no_classifier(model, analysis.settings.vote))
        boxes = values.get("absent")
        if isinstance(boxes, list) and all(name in boxes for name in analysis.entry.labels.names[1:]):
            notes.append("A photo without any of the labels leaves nothing to look for: none is left out.")
        truth_ids = None if mask is None else self._truth(mask, analysis, notes)
        start = time.perf_counter()
        sides = [view.left, view.right]
        if truth_ids is None and mask is not None:  # why is said already
            sides = ["final" if side == "truth" else side for side in sides]
        sides = [self._at_hand(side, analysis, view, truth_ids, notes) for side in sides]
        left, right = (self._side(side, analysis, view, truth_ids, notes) for side in sides)
        pictures = compare_html(left, right, layout=view.layout)
        seconds = {**analysis.seconds, "pictures": time.perf_counter() - start}
        scores = self._scores(analysis, truth_ids)
        only_final = "final" in sides and set(sides) <= {"photo", "final"}  # nothing else that the numbers could be of
        whose = "" if only_final else f"{views.SIDES['final']} of {model}"
        details = texts.details_html(analysis, seconds, list(dict.fromkeys(notes)), whose=whose)
        url = links.base_url(request.headers, root_path=_root_path(request))
        login = getattr(request, "username", None) is not None  # only who logged in has one
        said: dict[str, Any] = {"absent": absent, "login": login}
        if "other" not in (view.left, view.right):
            view = dataclasses.replace(view, other="")  # not seen, so not shared
        shared = links.Shared(model, analysis.settings, view, self._examples.get(photo.key, ""), absent)
        link = f"{url}/?{links.to_query(shared, analysis.entry.task)}"
        return (
            pictures,
            details,
            scores,
            texts.copy_html("Link to what you see", link),
            texts.copy_html("Python", self._python(analysis, view)),
            texts.copy_html("Command", snippets.command(model, analysis.settings, absent=absent)),
            texts.copy_html("API call from Python", snippets.client(url, model, analysis.settings, **said)),
            texts.copy_html("API call by curl", snippets.curl(url, model, analysis.settings, **said)),
        )

    def _absent(self, model: str, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Labels of a served model that are checked as absent. Raises ModelNotFoundError for any other model."""
        self.studio.model(model)
        return absent_from(values.get("absent"), find_entry(model).labels)

    def _unlike_the_link(self, query: Mapping[str, str], model: str, view: View, settings: Refinement) -> list[str]:
        """Sentences about what the page's link named and is not here, for as long as others stand in their places."""
        missing, lacks = links.not_served(query, self.studio.models), "which this server does not have; shown is"
        notes = []
        if "model" in missing and model == self._restored(query).model:
            notes.append(f"The link asked for {missing['model']}, {lacks} {model}.")
        other = self._menus(model, "", "")[1].value
        if "other" in missing and "other" in (view.left, view.right) and view.other == other:
            notes.append(f"The link compared with {missing['other']}, {lacks} {other}.")
        for field, lacking in self.studio.unavailable.items():
            used = getattr(settings, field)
            if (asked := query.get(field)) in lacking and used == getattr(Refinement(), field):
                notes.append(f"The link asked for {field} {asked}, {lacks} {used}.")
        linked = settings_from(query)
        if fitted(linked, find_entry(model)).vote != linked.vote and settings.vote == Refinement().vote:
            notes.append(texts.no_classifier(model, settings.vote))
        return notes

    def _python(self, analysis: Analysis, view: View) -> str:
        name = analysis.entry.name
        options: dict[str, Any] = {"opacity": view.opacity, "runtime": self.studio.runtimes[name]}
        return snippets.python(name, analysis.settings, absent=analysis.absent, **options)

    def _truth(self, mask: Any, analysis: Analysis, notes: list[str]) -> np.ndarray | None:
        """(h, w) uint8 ids of a visitor's mask at working size; None, with a note, if it cannot be used."""
        try:
            return self.studio.truth(Path(self._uploaded(mask)), analysis.photo, analysis.final.label_set)
        except ImageError as error:
            text = str(error)
            notes.append(f"The ground truth is not used: {text if text.endswith('?') else f'{text}.'}")
        except FileNotFoundError:
            notes.append("The ground truth is no longer here. Please add it again.")
        return None

    @staticmethod
    def _scores(analysis: Analysis, ids: np.ndarray | None) -> str:
        if ids is None:
            return ""
        labels = analysis.final.label_set
        final = masks.score(ids, analysis.final.labels, labels)
        raw = masks.score(ids, analysis.stage("network").labels, labels)
        height, width = ids.shape
        return texts.scores_html(final, raw, scaled_to=None if analysis.photo.is_whole else (height, width))

    def _at_hand(self, side: str, analysis: Analysis, view: View, ids: np.ndarray | None, notes: list[str]) -> str:
        """`side`; of a mask or model that is missing, what stands in its place, with a note."""
        if side == "truth" and ids is None:
            notes.append("No ground truth yet: add a mask to compare with. The final result stands in its place.")
            return "final"
        if side == "other" and view.other not in self._others(analysis.entry.name):
            notes.append("Choose another model of this task to compare with. The final result stands in its place.")
            return "final"
        return side

    def _side(self, side: str, analysis: Analysis, view: View, ids: np.ndarray | None, notes: list[str]) -> Side:
        """One of the two pictures, with its caption and text alternative."""
        if side == "photo":
            return Side(Image.fromarray(analysis.photo.work), "Photo", "The photo as it is")
        shown, name = analysis, views.SIDES[side]
        if side == "other":
            shown = self.studio.analyse(analysis.photo, view.other, analysis.settings, absent=analysis.absent)
            name = view.other
            if shown.settings.vote != analysis.settings.vote:
                notes.append(texts.no_classifier(view.other, shown.settings.vote))
        seg = _as_result(analysis.final, ids) if side == "truth" and ids is not None else shown.stage(_stage(side))
        ids_of_superpixels = None
        if view.style == "superpixels":
            if not analysis.settings.superpixel_scale:
                notes.append(f"Superpixels are off; shown are those of scale {views.SHOWN_SCALE:.0f}.")
            ids_of_superpixels = shown.tuner.superpixels(views.with_superpixels(shown.settings))
        if view.style == "confidence":
            if side == "truth":
                notes.append("A ground truth has no confidence: its labels are shown.")
                return Side(views.draw(seg, View(style="labels")), name, f"{name}: {texts.summary(seg.areas())}")
            notes.append("Confidence: yellow is sure, dark blue is undecided.")
        if view.style == "cutout" and not views.cut_mask(seg, view.label).any():
            notes.append(texts.nothing_cut(view.label, f"“{name}”"))
        style = views.STYLES[view.style]
        alt = f"{name}, {style.lower()}. {texts.summary(seg.areas())}"
        return Side(views.draw(seg, view, ids_of_superpixels), f"{name} · {style.lower()}", alt)

    def _others(self, model: str) -> list[str]:
        """The models that one can be compared with: others of its task, as the legend is of one task."""
        return [name for name in self.studio.models_of(find_entry(model).task) if name != model]

    def other_of(self, model: str) -> str | None:
        """The one that stands in the menu of those at first; None if there is none."""
        return next(reversed(self._others(model)), None)

    @staticmethod
    def _nothing(notice: str) -> tuple[Any, ...]:
        return notice, *[""] * (OUTPUTS - 1)

    def restore(self, query: Mapping[str, str], paths: dict[str, str]) -> tuple[Any, ...]:
        """Values for every control: those of a link's query string, or of the first example if it says nothing.

        Returns:
            photo, task, model menu, absent labels, settings in the order of CONTROLS, view in the order of its fields.
            The photo is not named anew if it is the first example: the page has that already, and Gradio would call it
            a change, at which everything is computed again.
        """
        first = next(iter(paths))
        shared = self._restored(query, example=first)
        task = find_entry(shared.model).task
        settings = [getattr(shared.settings, name) for name in CONTROLS]
        label, other = self._menus(shared.model, shared.view.label, shared.view.other)
        view = {**vars(shared.view), "label": label, "other": other}
        photo = gr.skip() if shared.example == first else paths.get(shared.example)
        absent = self._boxes(shared.model, shared.absent)
        return photo, task, self.menu(task, shared.model), absent, *settings, *view.values()

    def _restored(self, query: Mapping[str, str], *, example: str = "") -> links.Shared:
        """What a link says as far as this server can follow it; the default model and `example` if it says nothing."""
        default = self.studio.default_model()
        models = {name: find_entry(name).task for name in self.studio.models_of()}
        shared = links.from_query(query, models=models, default=default)
        if shared is None:
            return links.Shared(default, Refinement(), View(), example)
        settings = fitted(self.studio.available(shared.settings), find_entry(shared.model))
        return dataclasses.replace(shared, settings=settings)

    def adapt(self, model: str, absent: list[str], vote: str, label: str, other: str) -> Any:
        """Controls that depend on the model: labels that are absent, threshold, votes, what is cut out, other model."""
        entry = self.served(model)
        return (
            self._boxes(entry.name, absent),
            gr.Slider(visible=len(entry.labels) == 2),
            self._votes(entry, vote),
            *self._menus(entry.name, label, other),
        )

    def served(self, model: str) -> Entry:
        """The row of a model, or that of the default where none of this name is served: a caller may say anything."""
        return find_entry(model if model in self.studio.models else self.studio.default_model())

    def _votes(self, entry: Entry, vote: str) -> gr.Dropdown:
        """The votes of a model; what is chosen stays, or a toast says why it cannot."""
        votes = [(v, v) for v in self.studio.choices("vote") if v != "classifier" or entry.regions]
        if vote != "classifier" or entry.regions:
            return gr.Dropdown(votes)
        used = Refinement().vote
        gr.Info(texts.no_classifier(entry.name, used))
        return gr.Dropdown(votes, value=used)

    @staticmethod
    def _boxes(model: str, absent: Any) -> gr.CheckboxGroup:
        """Labels of a model that a photo may lack; what is checked stays so. Of two labels none can be left out."""
        labels = find_entry(model).labels
        value = list(absent_from(absent, labels))
        return gr.CheckboxGroup(list(labels.names[1:]), value=value, visible=len(labels) > 2)

    def _menus(self, model: str, label: str, other: str) -> tuple[gr.Dropdown, gr.Dropdown]:
        """What can be cut out and the models to compare with; what is chosen stays where that makes sense."""
        entry = find_entry(model)
        return (
            gr.Dropdown(texts.cut_choices(entry), value=label if label in entry.labels.names[1:] else ""),
            gr.Dropdown(
                self.choices(entry.task, but=model),
                value=other if other in self._others(model) else self.other_of(model),
            ),
        )

    def menu(self, task: str, current: str) -> gr.Dropdown:
        """The models of a task; the current one stays chosen if it is among them."""
        names = self.studio.models_of(task)
        return gr.Dropdown(self.choices(task), value=current if current in names else self.studio.default_model(task))

    def choices(self, task: str | None = None, *, but: str = "") -> list[tuple[str, str]]:
        """Rows of a menu of models, all `but` one: what is shown and the name it stands for."""
        names = [name for name in self.studio.models_of(task) if name != but]
        return [(texts.model_choice(name, self.studio.speeds), name) for name in names]

    def take(self, kind: str, photo: Any, model: str, **values: Any) -> str:
        """Path of a file to download; refusals are said in a toast.

        Pictures are at the photo's own size, probabilities at working size.
        """
        if photo is None:
            raise refusal(texts.WELCOME)
        view, settings = View.of(values), settings_from(values)

        def make(path: Path) -> tuple[str, bytes]:
            absent = self._absent(model, values)
            if kind in ("settings", "probabilities"):
                analysis = self.studio.analyse(self.studio.open(path), model, settings, absent=absent)
                if kind == "settings":
                    return downloads.settings_file(analysis.settings, analysis.entry.task)
                return downloads.probabilities_file(analysis)
            seg = self.studio.whole(path, model, settings, absent=absent)
            if kind == "overlay":
                return downloads.overlay_file(seg, view)
            if kind == "labels":
                return downloads.labels_file(seg)
            if not views.cut_mask(seg, view.label).any():
                raise ValueError(texts.nothing_cut(view.label, "this result"))
            return downloads.cutout_file(seg, view)

        return self._file(*self._refusing(photo, make))

    # --- The API ------------------------------------------------------------------------------------------------------

    def segment(
        self, photo: Any = None, model: str = "", *, absent: Any = (), **settings: Any
    ) -> tuple[str, str, dict[str, Any]]:
        """Label every pixel of a photo.

        Returns:
            An indexed PNG whose values are label ids, the overlay as JPEG, which is smaller than the photo where that
            is longer than a JPEG can be, and a report: model, labels, the share of each in the photo, those that were
            said to be absent, and all settings.
        """
        if photo is None:  # left out: were there no default, Gradio would answer that with status 500
            raise refusal("photo is missing: upload one and pass its path")

        def label(path: Path) -> tuple[str, str, dict[str, Any]]:
            asked = Refinement(**settings)  # unlike the page, the API clamps nothing: it says what is wrong
            self.studio.model(model)
            entry = find_entry(model)
            asked.check_for(model, len(entry.labels), has_region_classifier=entry.regions is not None)
            seg = self.studio.whole(path, model, asked, absent=absent or ())
            report = {
                "model": model,
                "labels": list(seg.label_set.names),
                "areas": seg.areas(),
                "absent": list(absent or ()),
                "settings": asked.to_dict(),
            }
            return self._file(*downloads.labels_file(seg)), self._file(*downloads.overlay_file(seg, View())), report

        return self._refusing(photo, label)

    def models(self) -> list[dict[str, Any]]:
        """The models served here: name, task, labels, size and scores."""
        return [
            {
                "name": name,
                "task": (entry := find_entry(name)).task,
                "labels": list(entry.labels.names),
                "size_bytes": entry.size_bytes,
                "parameters": entry.parameters,
                "seconds": self.studio.speeds.get(name),
                "metrics": dict(entry.metrics),
            }
            for name in self.studio.models_of()
        ]

    def _refusing(self, photo: Any, work: Callable[[Path], Any]) -> Any:
        """What `work` returns for a photo; its foreseen failures become sentences, all others one sentence."""
        path = ""
        try:
            path = self._uploaded(photo)
            return self._workers.run(work, Path(path))
        except FileNotFoundError:
            failure = refusal(texts.GONE)
        except ImageError as error:
            failure = refusal(unreadable(error, path))
        except (HubmodelsError, ValueError, TypeError) as error:
            failure = refusal(self._without_paths(error))
        except Exception as error:
            log_failure(error)
            failure = refusal(texts.FAILED)
        raise failure from None

    def _uploaded(self, payload: Any) -> str:
        """The path of an uploaded file, from what Gradio hands over as it came.

        Raises:
            FileNotFoundError: it is none of the visitors' files.
            ValueError: it is no file.
        """
        path, url = (payload.get("path"), payload.get("url")) if isinstance(payload, dict) else (payload, "")
        if not isinstance(path, str) or not path or str(url).startswith("data:"):  # passes by the limit on uploads
            raise ValueError("Send the photo as an uploaded file, not inside of the request.")
        return own_upload(path, Path(self._cache_dir))

    def _file(self, name: str, content: bytes) -> str:
        """Path of a file with the content, below a digest nobody guesses.

        Visitors with the same photo and settings share it, so it is renamed into place: written over, as Gradio's own
        function would, it is cut short for a visitor who is downloading it.
        """
        return str(files.write_bytes(content, Path(self._cache_dir) / hash_bytes(content) / name))

    def _without_paths(self, error: Exception) -> str:
        """What is wrong, unless it names a place on the server: no message should, but strangers read them."""
        text = str(error)
        return texts.FAILED if any(f"{place}{os.sep}" in text for place in (self._cache_dir, *PLACES)) else text


async def fetch_nothing(url: str, *args: Any, **options: Any) -> str:
    """Stands in the place of Gradio's download of addresses that callers name: this server visits none."""
    raise refusal("Upload the photo itself: this server fetches no addresses.")


def refusal(message: str) -> gr.Error:
    """What a visitor did wrong, as a toast or an API error."""
    return gr.Error(html.escape(message, quote=False), duration=10, print_exception=False)


def unreadable(error: ImageError, path: str) -> str:
    """What is wrong with a photo, without the server's path to it."""
    return f"This photo cannot be read: {str(error).removeprefix(f'{path}: ')}."


def log_failure(error: Exception) -> None:
    """Where something failed, for the host; texts of errors hold names of visitors' files, so they are left out."""
    LOG.error("%s\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))


def _stage(side: str) -> str:
    return "final" if side in ("other", "truth") else side


def _as_result(final: Segmentation, ids: np.ndarray) -> Segmentation:
    """A ground truth in the form of a result; undecided pixels show as background."""
    labels = np.where(ids < len(final.label_set), ids, 0).astype(np.uint8)
    return Segmentation(final.image, labels, np.zeros_like(final.probs), final.label_set)


def _root_path(request: gr.Request) -> str:
    scope = getattr(getattr(request, "request", None), "scope", None) or {}
    return str(scope.get("root_path", "")).rstrip("/")
