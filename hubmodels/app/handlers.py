"""What happens when something on the page changes: values in, outputs for Gradio out."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from hubmodels import masks
from hubmodels.app import downloads, links, snippets, texts, views
from hubmodels.app.compare import Side, compare_html
from hubmodels.app.controls import CONTROLS, absent_from, settings_from
from hubmodels.app.guard import Guard, log_failure, refusal
from hubmodels.app.menus import Menus
from hubmodels.app.studio import Analysis, Studio, fitted
from hubmodels.app.views import View
from hubmodels.entries import find_entry
from hubmodels.errors import ImageError
from hubmodels.refine import Refinement
from hubmodels.result import Segmentation

OUTPUTS = 8  # of `update`: pictures, details, scores, link, and four snippets


class Handlers:
    """The page's functions, bound to what is served.

    Args:
        studio: models and memory.
        guard: reads uploads, runs the work, keeps results.
        examples: digest of an example's pixels -> its name.
    """

    def __init__(self, studio: Studio, guard: Guard, *, examples: dict[str, str]) -> None:
        self.studio, self._guard, self._examples = studio, guard, examples
        self.menus = Menus(studio)

    def update(self, photo: Any, model: str, mask: Any, request: gr.Request, **values: Any) -> tuple[Any, ...]:
        """Everything that the page shows for a photo; what is wrong stands in the place of the pictures."""
        if photo is None:
            invitation = texts.LINKED if links.lacks_photo(request.query_params) else texts.WELCOME
            return self._nothing(texts.notice_html(invitation))
        path = ""
        try:
            path = self._guard.upload(photo)
            return self._guard.workers.run(self._show, path, model, mask, request, values)
        except Exception as error:  # whatever it is, a visitor reads a sentence, and the log gets no file name
            if not isinstance(error, (FileNotFoundError, ImageError)):  # the page itself sends nothing else amiss
                log_failure(error)
            return self._nothing(texts.notice_html(self._guard.sentence(error, path), error=True))

    def _show(self, path: str, model: str, mask: Any, request: gr.Request, values: dict[str, Any]) -> tuple[Any, ...]:
        view = View.of(values)
        photo = self.studio.open(Path(path))
        absent = self._absent(model, values)
        settings = settings_from(values)
        analysis = self.studio.analyse(photo, model, settings, absent=absent)
        notes = self._unlike_the_link(request.query_params, model, view, settings)
        if analysis.settings.vote != settings.vote:  # until the menu follows: see `adapt`
            notes.append(texts.no_classifier(model, analysis.settings.vote))
        if lost := analysis.lost():
            notes.append(texts.lost_labels(lost))
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
        other = self.menus.other_of(model)
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
            return self.studio.truth(Path(self._guard.upload(mask)), analysis.photo, analysis.final.label_set)
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
        if side == "other" and view.other not in self.menus.others(analysis.entry.name):
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
        label = self.menus.cut_labels(shared.model, shared.view.label)
        other = self.menus.other_models(shared.model, shared.view.other)
        view = {**vars(shared.view), "label": label, "other": other}
        photo = gr.skip() if shared.example == first else paths.get(shared.example)
        absent = self.menus.absent_labels(shared.model, shared.absent)
        return photo, task, self.menus.of_task(task, shared.model), absent, *settings, *view.values()

    def _restored(self, query: Mapping[str, str], *, example: str = "") -> links.Shared:
        """What a link says as far as this server can follow it; the default model and `example` if it says nothing."""
        default = self.studio.default_model()
        models = {name: find_entry(name).task for name in self.studio.models_of()}
        shared = links.from_query(query, models=models, default=default)
        if shared is None:
            return links.Shared(default, Refinement(), View(), example)
        settings = fitted(self.studio.available(shared.settings), find_entry(shared.model))
        return dataclasses.replace(shared, settings=settings)

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

        return self._guard.file(*self._guard.answer(photo, make))


def _stage(side: str) -> str:
    return "final" if side in ("other", "truth") else side


def _as_result(final: Segmentation, ids: np.ndarray) -> Segmentation:
    """A ground truth in the form of a result; undecided pixels show as background."""
    labels = np.where(ids < len(final.label_set), ids, 0).astype(np.uint8)
    return Segmentation(final.image, labels, np.zeros_like(final.probs), final.label_set)


def _root_path(request: gr.Request) -> str:
    scope = getattr(getattr(request, "request", None), "scope", None) or {}
    return str(scope.get("root_path", "")).rstrip("/")
