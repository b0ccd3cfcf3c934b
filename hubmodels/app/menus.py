"""What the page's menus and boxes offer: models, labels and votes, each as far as this server and its model have it."""

from __future__ import annotations

from typing import Any

import gradio as gr

from hubmodels.app import texts
from hubmodels.app.controls import absent_from
from hubmodels.app.studio import Studio
from hubmodels.entries import Entry, find_entry
from hubmodels.refine import Refinement


class Menus:
    """Choices, bound to what is served."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    def adapt(self, model: str, absent: list[str], vote: str, label: str, other: str) -> Any:
        """Controls that depend on the model: labels that are absent, threshold, votes, what is cut out, other model."""
        entry = self.served(model)
        return (
            self.absent_labels(entry.name, absent),
            gr.Slider(visible=len(entry.labels) == 2),
            self._votes(entry, vote),
            self.cut_labels(entry.name, label),
            self.other_models(entry.name, other),
        )

    def served(self, model: str) -> Entry:
        """The row of a model, or that of the default where none of this name is served: a caller may say anything."""
        return find_entry(model if model in self.studio.models else self.studio.default_model())

    def of_task(self, task: str, current: str) -> gr.Dropdown:
        """The models of a task; the current one stays chosen if it is among them."""
        names = self.studio.models_of(task)
        return gr.Dropdown(self.choices(task), value=current if current in names else self.studio.default_model(task))

    def choices(self, task: str | None = None, *, but: str = "") -> list[tuple[str, str]]:
        """Rows of a menu of models, all `but` one: what is shown and the name it stands for."""
        names = [name for name in self.studio.models_of(task) if name != but]
        return [(texts.model_choice(name, self.studio.speeds), name) for name in names]

    def others(self, model: str) -> list[str]:
        """The models that one can be compared with: others of its task, as the legend is of one task."""
        return [name for name in self.studio.models_of(find_entry(model).task) if name != model]

    def other_of(self, model: str, chosen: str = "") -> str | None:
        """Which of those stands in their menu: what is chosen where that makes sense; None if there is none."""
        others = self.others(model)
        return chosen if chosen in others else next(reversed(others), None)

    def other_models(self, model: str, chosen: str) -> gr.Dropdown:
        """The models to compare with."""
        return gr.Dropdown(self.choices(find_entry(model).task, but=model), value=self.other_of(model, chosen))

    @staticmethod
    def absent_labels(model: str, checked: Any) -> gr.CheckboxGroup:
        """Labels of a model that a photo may lack; what is checked stays so. Of two labels none can be left out."""
        labels = find_entry(model).labels
        value = list(absent_from(checked, labels))
        return gr.CheckboxGroup(list(labels.names[1:]), value=value, visible=len(labels) > 2)

    @staticmethod
    def cut_labels(model: str, chosen: str) -> gr.Dropdown:
        """What can be cut out; what is chosen stays if the model knows it."""
        entry = find_entry(model)
        return gr.Dropdown(texts.cut_choices(entry), value=chosen if chosen in entry.labels.names[1:] else "")

    def _votes(self, entry: Entry, chosen: str) -> gr.Dropdown:
        """The votes of a model; what is chosen stays, or a toast says why it cannot."""
        votes = [(v, v) for v in self.studio.choices("vote") if v != "classifier" or entry.regions]
        if chosen != "classifier" or entry.regions:
            return gr.Dropdown(votes)
        used = Refinement().vote
        gr.Info(texts.no_classifier(entry.name, used))
        return gr.Dropdown(votes, value=used)
