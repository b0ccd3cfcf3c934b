"""The page: components, and which of them do what."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import gradio as gr
from gradio import processing_utils
from gradio.exceptions import InvalidPathError
from gradio.utils import get_upload_folder
from pydantic import ValidationError

from hubmodels.app import texts, views
from hubmodels.app.busy import HEAVY, MAX_LIGHT, bound
from hubmodels.app.controls import CONTROLS, SECTIONS, Control
from hubmodels.app.downloads import KINDS
from hubmodels.app.examples import EXAMPLES
from hubmodels.app.handlers import Handlers, fetch_nothing, refusal
from hubmodels.app.internals import replaceable
from hubmodels.app.look import AGAIN, ASK, OPEN, OPEN_AND_ASK, SAVE_FILE, TOOLTIPS, as_used, show, watch_connection
from hubmodels.app.studio import Photo, Studio
from hubmodels.app.views import View
from hubmodels.entries import find_entry
from hubmodels.refine import PRESETS, Refinement

DOWNLOAD = "async_ssrf_protected_download"  # Gradio's function that gets files from addresses
# Empties a component and leaves an empty one alone, which would count as changed, so that all would be asked for again.
EMPTY = "value => value ? null : ({__type__: 'update'})"
UNCHECK = "boxes => [boxes.length ? [] : {__type__: 'update'}]"  # likewise
# Handlers get what came from the browser or the API and check it themselves, also whose files they are: the page clamps
# where the API refuses, and no photo is opened by anybody else.
_AS_IT_CAME: dict[str, Any] = {"preprocess": False}
_IN_BROWSER: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
_LIGHT: dict[str, Any] = {**_AS_IT_CAME, **_IN_BROWSER, "trigger_mode": "always_last"}


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


def build(studio: Studio, *, queue_size: int = 32, concurrency: int = 1) -> gr.Blocks:
    """The page, not yet served. `hubmodels.app.server` deletes the files of its visitors.

    Args:
        studio: what is served.
        queue_size: heavy calls that may wait; further ones are told that the server is busy.
        concurrency: heavy calls at a time.

    Raises:
        ImportError: this version of Gradio lacks a part that has to be replaced.
    """
    replaceable(processing_utils, DOWNLOAD, purpose="callers could let the server visit addresses of their choice")
    setattr(processing_utils, DOWNLOAD, fetch_nothing)
    with gr.Blocks(title="hubmodels", analytics_enabled=False) as page:
        gr.HTML(texts.INTRO, label="About", elem_id="intro")
        names = {Photo.of(each.pixels()).key: name for name, each in EXAMPLES.items()}
        handlers = Handlers(studio, cache_dir=get_upload_folder(), examples=names, concurrency=concurrency)
        with gr.Row(elem_id="layout"):
            with gr.Column(elem_id="controls"):  # on a narrow screen the columns dissolve: see CSS
                with gr.Column(elem_id="input"):
                    photo, examples, paths = _photo_input()
                    task, model, absent = _model_inputs(handlers)
                with gr.Column(elem_id="tune"):
                    presets, reset, settings = _settings_form(studio)
            with gr.Column(elem_id="answer"):
                with gr.Column(elem_id="view"):
                    view = _view_form(handlers)
                    pictures = gr.HTML(
                        texts.notice_html("One moment …"), label="Comparison", container=True, elem_id="compare"
                    )
                with gr.Column(elem_id="details"):
                    legend = gr.HTML("", label="Legend", container=True, padding=True, elem_id="legend")
                    scores = gr.HTML("", label="Scores", elem_id="scores")
                truth = _truth_form()
                takes, files = _take_form()
                code = _code_form()
        gr.HTML(texts.PRIVACY, label="Privacy", elem_id="privacy")
        outputs = [pictures, legend, scores, *code]
        parts = Parts(
            photo, examples, paths, task, model, absent, settings, view, truth, presets, reset, outputs, takes, files
        )
        _tie_updates(page, parts, handlers, concurrency)
        _tie_light_events(parts, handlers)
        _tie_downloads(parts, handlers, concurrency)
        _add_api(parts, handlers, concurrency)
    page.queue(max_size=queue_size + MAX_LIGHT, api_open=False)
    bound(page._queue, max_heavy=queue_size, message=texts.BUSY)
    _tell_what_is_no_upload(page)
    return page


# --- Components -------------------------------------------------------------------------------------------------------


def _photo_input() -> tuple[gr.Image, gr.Dataset, dict[str, str]]:
    first, *_ = EXAMPLES.values()
    photo = _upload(
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


def _upload(value: Any, **options: Any) -> gr.Image:
    """An image input for files as they come; who reads them knows orientation, 16 bits and palettes."""
    return gr.Image(value, type="filepath", image_mode=None, format="png", buttons=["fullscreen"], **options)


def _model_inputs(handlers: Handlers) -> tuple[gr.Radio, gr.Dropdown, gr.CheckboxGroup]:
    studio = handlers.studio
    tasks = gr.Radio(
        [(task.capitalize(), task) for task in studio.tasks], value=studio.tasks[0], label="Task", elem_id="task"
    )
    # All models are choices at first: an API call, which has no page, is checked against them.
    model = gr.Dropdown(
        handlers.choices(),
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


def _settings_form(studio: Studio) -> tuple[dict[str, gr.Button], gr.Button, dict[str, Any]]:
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
    slider.release(None, [slider], [slider], js=js, **_IN_BROWSER)


def _menu(label: str, choices: Any, value: str | None, elem_id: str, **options: Any) -> Any:
    pairs = [(title, key) for key, title in choices.items()]
    return gr.Dropdown(pairs, value=value, filterable=False, label=label, elem_id=elem_id, **options)


def _view_form(handlers: Handlers) -> dict[str, Any]:
    off = View()
    with gr.Row(elem_id="choose"):
        left = _menu("Left", views.SIDES, off.left, "left")
        right = _menu("Right", views.SIDES, off.right, "right")
        style = _menu("View", views.STYLES, off.style, "style")
        layout = _menu("Layout", views.LAYOUTS, off.layout, "layout-choice")
    opacity = gr.Slider(0, 100, value=off.opacity, step=5, label="Overlay opacity, percent", elem_id="opacity")
    _show_what_is_used(opacity, whole=True)
    with gr.Row(elem_id="cut"):
        first = handlers.studio.default_model()
        cuts = {key: title for title, key in texts.cut_choices(find_entry(first))}
        label = _menu("Cut out", cuts, off.label, "cut-label", visible=False)
        edges = _menu("Edges", views.EDGES, off.edges, "edges", visible=False)
        ground = _menu("Background", views.GROUNDS, off.ground, "ground", visible=False)
        colour = gr.ColorPicker(off.colour, label="Colour", elem_id="ground-colour", visible=False)
    models = {key: title for title, key in handlers.choices(find_entry(first).task, but=first)}
    other = _menu("Other model", models, handlers.other_of(first), "other-model", visible=False)
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


def _truth_form() -> gr.Image:
    with gr.Column(elem_id="truth-part"), gr.Accordion("Ground truth", open=False, elem_id="section-truth"):
        gr.HTML(f"<p>{texts.TRUTH_HELP}</p>", label="About ground truth", elem_id="truth-help")
        return _upload(
            None,
            sources=["upload"],
            height=180,
            label="Mask (PNG)",
            alt_text="The ground truth of the photo",
            elem_id="truth",
        )


def _take_form() -> tuple[dict[str, gr.Button], dict[str, gr.DownloadButton]]:
    """Buttons, and for each a place for its file: with a single one, a file could take another's place."""
    with gr.Column(elem_id="take"), gr.Row(elem_id="files"):
        takes = {kind: gr.Button(title, size="md", elem_id=f"take-{kind}") for kind, title in KINDS.items()}
        files = {
            kind: gr.DownloadButton(title, elem_id=f"file-{kind}", visible="hidden") for kind, title in KINDS.items()
        }
    return takes, files


def _code_form() -> list[gr.HTML]:
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


# --- Events -----------------------------------------------------------------------------------------------------------


def _heavy(concurrency: int) -> dict[str, Any]:
    return {**_AS_IT_CAME, "concurrency_id": HEAVY, "concurrency_limit": concurrency}


def _tie_updates(page: gr.Blocks, parts: Parts, handlers: Handlers, concurrency: int) -> None:
    options: dict[str, Any] = {
        "inputs": [parts.photo, parts.model, parts.truth],
        "outputs": parts.outputs,
        "inputs_kwargs": {"absent": parts.absent, **parts.settings, **parts.view},
        "show_progress": "minimal",
        "show_progress_on": parts.outputs[:1],
        "api_visibility": "private",
        **_heavy(concurrency),
    }
    # `change` alone covers drag, keys, typed numbers, reset, presets and examples. The task acts through the model.
    watched = [parts.photo, parts.model, parts.absent, parts.truth, *parts.settings.values(), *parts.view.values()]
    again = gr.Button("Try again", visible="hidden", elem_id="again")  # clicked by a notice, and by every change
    updated = again.click(handlers.update, trigger_mode="always_last", **options)
    gr.on([component.change for component in watched], None, js=ASK, **_IN_BROWSER)

    outputs = [parts.photo, parts.task, parts.model, parts.absent, *parts.settings.values(), *parts.view.values()]

    def restore(request: gr.Request) -> Any:
        return list(handlers.restore(dict(request.query_params), parts.paths))

    restored = page.load(restore, None, outputs, api_visibility="private", show_progress="hidden")
    restored.success(None, js=OPEN_AND_ASK, **_IN_BROWSER)
    restored.failure(None, js=OPEN, **_IN_BROWSER)
    # A call that the server refused has no answer that could say so; without these, pictures of a photo or of settings
    # before would stay as if they were the answer, and at first sight "One moment" for ever.
    notice = functools.partial(texts.notice_html, texts.NO_ANSWER, error=True)
    for call, retry in ((restored, "location.reload()"), (updated, AGAIN)):
        call.failure(None, None, parts.outputs[:1], js=show(notice(retry=retry)))
    page.load(None, js=TOOLTIPS)
    page.load(None, js=watch_connection(texts.notice_html(texts.NO_ANSWER, error=True, retry="location.reload()")))


def _tie_light_events(parts: Parts, handlers: Handlers) -> None:
    # Only for what a visitor chooses: `restore` sets the menu itself, and an answer to the task's change, asked before
    # the restored model had reached the menu, would put the default in its place.
    parts.task.input(handlers.menu, [parts.task, parts.model], [parts.model], **_LIGHT)

    vote, cut, other = parts.settings["vote"], parts.view["label"], parts.view["other"]
    adapted = [parts.absent, parts.settings["person_threshold"], vote, cut, other]
    parts.model.change(handlers.adapt, [parts.model, parts.absent, vote, cut, other], adapted, **_LIGHT)
    # A mask is of one photo; kept, it would be compared with the next one of the same size.
    parts.photo.change(None, [parts.truth], [parts.truth], js=EMPTY, **_IN_BROWSER)
    # So are the boxes; but a link brings its own along with its example, which changes the photo too.
    gr.on([parts.photo.input, parts.examples.click], None, [parts.absent], [parts.absent], js=UNCHECK, **_IN_BROWSER)

    def arrange(left: str, right: str, style: str, ground: str) -> Any:
        cut = style == "cutout"
        return (
            gr.Slider(visible=style == "overlay"),
            gr.Dropdown(visible=cut),
            gr.Dropdown(visible=cut),
            gr.ColorPicker(visible=cut and ground == "colour"),
            gr.Dropdown(visible="other" in (left, right)),
            gr.Dropdown(visible=cut),
        )

    view = parts.view
    deciding = [view[name] for name in ("left", "right", "style", "ground")]
    arranged = [view[name] for name in ("opacity", "label", "ground", "colour", "other", "edges")]
    gr.on([c.change for c in deciding], arrange, deciding, arranged, **_LIGHT)

    def choose(name: str) -> Callable[[str], Any]:
        def chosen(model: str) -> Any:
            settings = Refinement.preset(name, task=find_entry(model).task)
            return [getattr(settings, control) for control in CONTROLS]

        return chosen

    settings = list(parts.settings.values())
    for name, button in parts.presets.items():
        button.click(choose(name), [parts.model], settings, **_LIGHT)

    def reset(other: str) -> Any:
        # Its choices depend on the model; Gradio hands over and logs whatever a caller says.
        view = {**vars(View()), "other": other if other in handlers.studio.models else None}
        return [[]] + [control.default for control in CONTROLS.values()] + [view[name] for name in parts.view]

    parts.reset.click(reset, [other], [parts.absent, *settings, *view.values()], **_LIGHT)


def _tie_downloads(parts: Parts, handlers: Handlers, concurrency: int) -> None:
    for kind, button in parts.takes.items():
        # Not disabled: that would take the keyboard's focus away. A second click asks for nothing, see trigger_mode.
        button.click(None, None, [button], js=show(texts.PREPARING), **_IN_BROWSER)
        made = button.click(
            functools.partial(handlers.take, kind),
            [parts.photo, parts.model],
            [parts.files[kind]],
            inputs_kwargs={"absent": parts.absent, **parts.settings, **parts.view},
            api_visibility="private",
            show_progress="hidden",
            trigger_mode="once",
            **_heavy(concurrency),
        )
        made.success(None, [parts.files[kind]], js=SAVE_FILE, **_IN_BROWSER)
        for done in (made.success, made.failure):  # a call that the server refused has no `then`
            done(None, None, [button], js=show(KINDS[kind]), **_IN_BROWSER)


def _tell_what_is_no_upload(page: gr.Blocks) -> None:
    """Let calls whose photo is no upload hear that.

    Gradio checks files before any handler, so also where it hands over what came; it would say nothing, and log the
    caller's text.

    Raises:
        ImportError: this version of Gradio checks them elsewhere.
    """
    preprocess = replaceable(page, "preprocess_data", purpose="callers would not be told that a photo is no upload")

    async def told(*args: Any, **options: Any) -> Any:
        try:
            return await preprocess(*args, **options)
        except (ValidationError, InvalidPathError):
            raise refusal(texts.NO_UPLOAD) from None

    page.preprocess_data = told  # type: ignore[method-assign]


def _add_api(parts: Parts, handlers: Handlers, concurrency: int) -> None:
    ask = gr.Button("Segment", visible=False, elem_id="api-segment")
    # The page's own photo has an example as its value, which would be labelled for callers who leave the photo out.
    photo = _upload(None, visible=False, label="photo", elem_id="api-photo")
    answers = [
        gr.File(visible=False, label="mask", elem_id="api-mask"),
        gr.File(visible=False, label="overlay", elem_id="api-overlay"),
        gr.JSON(visible=False, label="report", elem_id="api-report"),
    ]
    ask.click(
        handlers.segment,
        [photo, parts.model],
        answers,
        inputs_kwargs={**parts.settings, "absent": parts.absent},
        api_name="segment",
        api_description="Label every pixel of a photo: indexed PNG of label ids, overlay, report.",
        **_heavy(concurrency),
    )
    gr.api(handlers.models, api_name="models", api_description="The models served here.")
