"""The page: its components together, and what each of them does."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import gradio as gr
from gradio import processing_utils
from gradio.exceptions import InvalidPathError
from gradio.utils import get_upload_folder
from pydantic import ValidationError

from hubmodels.app import texts
from hubmodels.app.api import Api
from hubmodels.app.busy import HEAVY, MAX_LIGHT, bound
from hubmodels.app.components import (
    IN_BROWSER,
    Parts,
    code_form,
    model_inputs,
    photo_input,
    settings_form,
    take_form,
    truth_form,
    upload,
    view_form,
)
from hubmodels.app.controls import CONTROLS
from hubmodels.app.downloads import KINDS
from hubmodels.app.examples import EXAMPLES
from hubmodels.app.guard import Guard, fetch_nothing, refusal
from hubmodels.app.handlers import Handlers
from hubmodels.app.internals import replaceable
from hubmodels.app.look import AGAIN, ASK, OPEN, OPEN_AND_ASK, SAVE_FILE, TOOLTIPS, show, watch_connection
from hubmodels.app.menus import Menus
from hubmodels.app.studio import Photo, Studio
from hubmodels.app.views import View
from hubmodels.refine import Refinement

DOWNLOAD = "async_ssrf_protected_download"  # Gradio's function that gets files from addresses
# Empties a component and leaves an empty one alone, which would count as changed, so that all would be asked for again.
EMPTY = "value => value ? null : ({__type__: 'update'})"
UNCHECK = "boxes => [boxes.length ? [] : {__type__: 'update'}]"  # likewise
# Handlers get what came from the browser or the API and check it themselves, also whose files they are: the page clamps
# where the API refuses, and no photo is opened by anybody else.
_AS_IT_CAME: dict[str, Any] = {"preprocess": False}
_LIGHT: dict[str, Any] = {**_AS_IT_CAME, **IN_BROWSER, "trigger_mode": "always_last"}


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
        guard = Guard(cache_dir=get_upload_folder(), concurrency=concurrency)
        handlers = Handlers(studio, guard, examples=names)
        menus = handlers.menus
        with gr.Row(elem_id="layout"):
            with gr.Column(elem_id="controls"):  # on a narrow screen the columns dissolve: see CSS
                with gr.Column(elem_id="input"):
                    photo, examples, paths = photo_input()
                    task, model, absent = model_inputs(menus)
                with gr.Column(elem_id="tune"):
                    presets, reset, settings = settings_form(studio)
            with gr.Column(elem_id="answer"):
                with gr.Column(elem_id="view"):
                    view = view_form(menus)
                    pictures = gr.HTML(
                        texts.notice_html("One moment …"), label="Comparison", container=True, elem_id="compare"
                    )
                with gr.Column(elem_id="details"):
                    legend = gr.HTML("", label="Legend", container=True, padding=True, elem_id="legend")
                    scores = gr.HTML("", label="Scores", elem_id="scores")
                truth = truth_form()
                takes, files = take_form()
                code = code_form()
        gr.HTML(texts.PRIVACY, label="Privacy", elem_id="privacy")
        outputs = [pictures, legend, scores, *code]
        parts = Parts(
            photo, examples, paths, task, model, absent, settings, view, truth, presets, reset, outputs, takes, files
        )
        _tie_updates(page, parts, handlers, concurrency)
        _tie_light_events(parts, menus)
        _tie_downloads(parts, handlers, concurrency)
        _add_api(parts, Api(studio, guard), concurrency)
    page.queue(max_size=queue_size + MAX_LIGHT, api_open=False)
    bound(page._queue, max_heavy=queue_size, message=texts.BUSY)
    _tell_what_is_no_upload(page)
    return page


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
    gr.on([component.change for component in watched], None, js=ASK, **IN_BROWSER)

    outputs = [parts.photo, parts.task, parts.model, parts.absent, *parts.settings.values(), *parts.view.values()]

    def restore(request: gr.Request) -> Any:
        return list(handlers.restore(dict(request.query_params), parts.paths))

    restored = page.load(restore, None, outputs, api_visibility="private", show_progress="hidden")
    restored.success(None, js=OPEN_AND_ASK, **IN_BROWSER)
    restored.failure(None, js=OPEN, **IN_BROWSER)
    # A call that the server refused has no answer that could say so; without these, pictures of a photo or of settings
    # before would stay as if they were the answer, and at first sight "One moment" for ever.
    notice = functools.partial(texts.notice_html, texts.NO_ANSWER, error=True)
    for call, retry in ((restored, "location.reload()"), (updated, AGAIN)):
        call.failure(None, None, parts.outputs[:1], js=show(notice(retry=retry)))
    page.load(None, js=TOOLTIPS)
    page.load(None, js=watch_connection(texts.notice_html(texts.NO_ANSWER, error=True, retry="location.reload()")))


def _tie_light_events(parts: Parts, menus: Menus) -> None:
    # Only for what a visitor chooses: `restore` sets the menu itself, and an answer to the task's change, asked before
    # the restored model had reached the menu, would put the default in its place.
    parts.task.input(menus.of_task, [parts.task, parts.model], [parts.model], **_LIGHT)

    vote, cut, other = parts.settings["vote"], parts.view["label"], parts.view["other"]
    adapted = [parts.absent, parts.settings["person_threshold"], vote, cut, other]
    parts.model.change(menus.adapt, [parts.model, parts.absent, vote, cut, other], adapted, **_LIGHT)
    # A mask is of one photo; kept, it would be compared with the next one of the same size.
    parts.photo.change(None, [parts.truth], [parts.truth], js=EMPTY, **IN_BROWSER)
    # So are the boxes; but a link brings its own along with its example, which changes the photo too.
    gr.on([parts.photo.input, parts.examples.click], None, [parts.absent], [parts.absent], js=UNCHECK, **IN_BROWSER)

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
            settings = Refinement.preset(name, task=menus.served(model).task)
            return [getattr(settings, control) for control in CONTROLS]

        return chosen

    settings = list(parts.settings.values())
    for name, button in parts.presets.items():
        button.click(choose(name), [parts.model], settings, **_LIGHT)

    def reset(other: str) -> Any:
        # Its choices depend on the model; Gradio hands over and logs whatever a caller says.
        view = {**vars(View()), "other": other if other in menus.studio.models else None}
        return [[]] + [control.default for control in CONTROLS.values()] + [view[name] for name in parts.view]

    parts.reset.click(reset, [other], [parts.absent, *settings, *view.values()], **_LIGHT)


def _tie_downloads(parts: Parts, handlers: Handlers, concurrency: int) -> None:
    for kind, button in parts.takes.items():
        # Not disabled: that would take the keyboard's focus away. A second click asks for nothing, see trigger_mode.
        button.click(None, None, [button], js=show(texts.PREPARING), **IN_BROWSER)
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
        made.success(None, [parts.files[kind]], js=SAVE_FILE, **IN_BROWSER)
        for done in (made.success, made.failure):  # a call that the server refused has no `then`
            done(None, None, [button], js=show(KINDS[kind]), **IN_BROWSER)


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


def _add_api(parts: Parts, api: Api, concurrency: int) -> None:
    ask = gr.Button("Segment", visible=False, elem_id="api-segment")
    # The page's own photo has an example as its value, which would be labelled for callers who leave the photo out.
    photo = upload(None, visible=False, label="photo", elem_id="api-photo")
    answers = [
        gr.File(visible=False, label="mask", elem_id="api-mask"),
        gr.File(visible=False, label="overlay", elem_id="api-overlay"),
        gr.JSON(visible=False, label="report", elem_id="api-report"),
    ]
    ask.click(
        api.segment,
        [photo, parts.model],
        answers,
        inputs_kwargs={**parts.settings, "absent": parts.absent},
        api_name="segment",
        api_description="Label every pixel of a photo: indexed PNG of label ids, overlay, report.",
        **_heavy(concurrency),
    )
    gr.api(api.models, api_name="models", api_description="The models served here.")
