"""The components of the page, part by part; `hubmodels.app.page` says what each of them does."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import gradio as gr

from hubmodels.app import texts, views
from hubmodels.app.controls import CONTROLS, SECTIONS, Control
from hubmodels.app.downloads import KINDS
from hubmodels.app.examples import EXAMPLES
from hubmodels.app.look import as_used
from hubmodels.app.menus import Menus
from hubmodels.app.studio import Studio
from hubmodels.app.views import View
from hubmodels.entries import find_entry
from hubmodels.refine import PRESETS

IN_BROWSER: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


@dataclass
class Parts:
    """The components that events tie together."""

    photo: gr.Image
    examples: gr.Dataset
    paths: dict[str, str]  # example -> file
    task: gr.Radio
    model: gr.Dropdown
    absent: gr.CheckboxGroup
    settings: dict[str, Any]
    view: dict[str, Any]
    truth: gr.Image
    presets: dict[str, gr.Button]
    reset: gr.Button
    outputs: list[Any]
    takes: dict[str, gr.Button]
    files: dict[str, gr.DownloadButton]


def photo_input() -> tuple[gr.Image, gr.Dataset, dict[str, str]]:
    """Where a photo comes in, the examples beside it, and where the file of each is."""
    first, *_ = EXAMPLES.values()
    photo = upload(
        first.pixels(),
        sources=["upload", "clipboard", "webcam"],
        height=260,
        label="Photo",
        alt_text="The photo to label",
        elem_id="photo",
    )
    paths: dict[str, str] = {}
    for name, example in EXAMPLES.items():
        paths[name] = str(photo.postprocess(example.pixels()).path)  # type: ignore[union-attr]
    photo.keep_in_cache.update(paths.values())
    examples = gr.Examples(
        [[path] for path in paths.values()],
        [photo],
        label="Examples",
        example_labels=[example.title for example in EXAMPLES.values()],
        elem_id="examples",
    )
    return photo, examples.dataset, paths


def upload(value: Any, **options: Any) -> gr.Image:
    """An image input for files as they come; who reads them knows orientation, 16 bits and palettes."""
    return gr.Image(value, type="filepath", image_mode=None, format="png", buttons=["fullscreen"], **options)


def model_inputs(menus: Menus) -> tuple[gr.Radio, gr.Dropdown, gr.CheckboxGroup]:
    """Task, model, and labels that the photo does not show."""
    studio = menus.studio
    tasks = gr.Radio(
        [(task.capitalize(), task) for task in studio.tasks], value=studio.tasks[0], label="Task", elem_id="task"
    )
    # All models are choices at first: an API call, which has no page, is checked against them.
    model = gr.Dropdown(
        menus.choices(),
        value=studio.default_model(),
        filterable=False,
        label="Model",
        info="Name, score on the test split, size of its file, seconds of the network for a photo on this server.",
        elem_id="model",
    )
    labels = find_entry(studio.default_model()).labels
    absent = gr.CheckboxGroup(
        list(labels.names[1:]),
        value=[],
        label="Not in this photo",
        info="What you know it does not show: the other labels share what would be taken for these.",
        visible=len(labels) > 2,
        elem_id="absent",
    )
    return tasks, model, absent


def settings_form(studio: Studio) -> tuple[dict[str, gr.Button], gr.Button, dict[str, Any]]:
    """Buttons of presets, one that turns all off, and a control for every setting."""
    entry = find_entry(studio.default_model())
    with gr.Row(elem_id="presets"):
        presets = {name: gr.Button(name.capitalize(), size="md", elem_id=f"preset-{name}") for name in PRESETS}
        reset = gr.Button("Reset", size="md", variant="secondary", elem_id="reset")
    made: dict[str, Any] = {}
    for section, title in SECTIONS.items():
        controls = [control for control in CONTROLS.values() if control.section == section]
        if section == "main":
            made |= {control.name: _control(control, studio) for control in controls}
            continue
        with gr.Accordion(title, open=False, elem_id=f"section-{section}"):
            made |= {control.name: _control(control, studio) for control in controls}
    made["person_threshold"].visible = len(entry.labels) == 2
    return presets, reset, {name: made[name] for name in CONTROLS}


def _control(control: Control, studio: Studio) -> Any:
    """The component of a setting; a menu has the choices that work here."""
    common: dict[str, Any] = {"label": control.label, "info": control.info, "elem_id": control.name}
    made: Any
    if control.choices == (False, True):
        made = gr.Checkbox(control.default, **common)
    elif control.choices:
        choices = [(str(choice), choice) for choice in studio.choices(control.name)]
        made = gr.Dropdown(choices, value=control.default, filterable=False, **common)
    else:
        low, high, step = control.minimum, control.maximum, control.step
        made = gr.Slider(low, high, value=control.default, step=step, **common)
        _show_what_is_used(made, whole=control.whole)
    return made


def _show_what_is_used(slider: gr.Slider, *, whole: bool) -> None:
    """Let the number box of a slider, once it is left, show what the server makes of what was typed."""
    js = as_used(slider.minimum, slider.maximum, slider.value, whole=whole)
    slider.release(None, [slider], [slider], js=js, **IN_BROWSER)


def _menu(label: str, choices: Any, value: str | None, elem_id: str, **options: Any) -> Any:
    pairs = [(title, key) for key, title in choices.items()]
    return gr.Dropdown(pairs, value=value, filterable=False, label=label, elem_id=elem_id, **options)


def view_form(menus: Menus) -> dict[str, Any]:
    """A control for every field of a `View`."""
    off = View()
    with gr.Row(elem_id="choose"):
        left = _menu("Left", views.SIDES, off.left, "left")
        right = _menu("Right", views.SIDES, off.right, "right")
        style = _menu("View", views.STYLES, off.style, "style")
        layout = _menu("Layout", views.LAYOUTS, off.layout, "layout-choice")
    opacity = gr.Slider(0, 100, value=off.opacity, step=5, label="Overlay opacity, percent", elem_id="opacity")
    _show_what_is_used(opacity, whole=True)
    with gr.Row(elem_id="cut"):
        first = menus.studio.default_model()
        cuts = {key: title for title, key in texts.cut_choices(find_entry(first))}
        label = _menu("Cut out", cuts, off.label, "cut-label", visible=False)
        edges = _menu("Edges", views.EDGES, off.edges, "edges", visible=False)
        ground = _menu("Background", views.GROUNDS, off.ground, "ground", visible=False)
        colour = gr.ColorPicker(off.colour, label="Colour", elem_id="ground-colour", visible=False)
    models = {key: title for title, key in menus.choices(find_entry(first).task, but=first)}
    other = _menu("Other model", models, menus.other_of(first), "other-model", visible=False)
    made = {
        "left": left,
        "right": right,
        "style": style,
        "layout": layout,
        "opacity": opacity,
        "label": label,
        "ground": ground,
        "colour": colour,
        "other": other,
        "edges": edges,
    }
    return {field.name: made[field.name] for field in fields(View)}


def truth_form() -> gr.Image:
    """Where a mask comes in."""
    with gr.Column(elem_id="truth-part"), gr.Accordion("Ground truth", open=False, elem_id="section-truth"):
        gr.HTML(f"<p>{texts.TRUTH_HELP}</p>", label="About ground truth", elem_id="truth-help")
        return upload(
            None,
            sources=["upload"],
            height=180,
            label="Mask (PNG)",
            alt_text="The ground truth of the photo",
            elem_id="truth",
        )


def take_form() -> tuple[dict[str, gr.Button], dict[str, gr.DownloadButton]]:
    """Buttons, and for each a place for its file: with a single one, a file could take another's place."""
    with gr.Column(elem_id="take"), gr.Row(elem_id="files"):
        takes = {kind: gr.Button(title, size="md", elem_id=f"take-{kind}") for kind, title in KINDS.items()}
        files = {
            kind: gr.DownloadButton(title, elem_id=f"file-{kind}", visible="hidden") for kind, title in KINDS.items()
        }
    return takes, files


def code_form() -> list[gr.HTML]:
    """Places for the link and for code: Python, command, API client, curl."""
    with gr.Column(elem_id="code"):
        link = gr.HTML("", label="Link", container=True, padding=True, elem_id="link")
        with gr.Accordion("Copy as code", open=False, elem_id="section-code"), gr.Tabs():
            with gr.Tab("Python", elem_id="tab-python"):
                python = gr.HTML("", label="Python", elem_id="python")
            with gr.Tab("CLI", elem_id="tab-cli"):
                command = gr.HTML("", label="Command", elem_id="command")
            with gr.Tab("API", elem_id="tab-api"):
                client = gr.HTML("", label="API call from Python", elem_id="client")
                curl = gr.HTML("", label="API call by curl", elem_id="curl")
    return [link, python, command, client, curl]
