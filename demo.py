"""A page to try the models: `python demo.py`, then open the address it prints.

`analyse` does the work and knows nothing of Gradio; `build` returns the page; only running this file serves it.
"""

from __future__ import annotations

import os

# Gradio and huggingface_hub read these when they are imported; without them the server reports to their makers.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import argparse
import functools
import hashlib
import html
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np
from gradio.processing_utils import save_pil_to_cache
from PIL import Image

import hubmodels
from hubmodels import HubmodelsError, ImageError, Refinement, Segmentation, entry_docs, export, render
from hubmodels.entries import DEFAULTS, find_entry

if TYPE_CHECKING:
    from hubmodels.images import ImageSource
    from hubmodels.segmenter import PhotoTuner, Segmenter

MAX_PIXELS = 24_000_000  # a phone's photo; larger ones are refused, and the cache holds so many pixels in all
PREVIEW_PX = 1024  # long side of the pictures that a browser gets
CLEAN_EVERY_S, FILE_AGE_S = 600, 3000  # together: no visitor's file outlives an hour


@dataclass(frozen=True)
class Control:
    """A slider from 0 (off) to `maximum` for the field `name` of `Refinement`, which gives its default."""

    name: str
    label: str
    info: str
    maximum: int
    step: int

    @property
    def default(self) -> float:
        """What the library does unless told otherwise."""
        return getattr(Refinement(), self.name)

    def clamp(self, value: float) -> float:
        """`value` brought into range; what is not a number is left for `Refinement` to refuse."""
        return min(max(value, 0), self.maximum) if isinstance(value, (int, float)) else value


# In the order of the stages. Another slider is one more row.
CONTROLS = (
    Control(
        name="crf_iterations",
        label="CRF iterations",
        info="Moves borders to the edges of the photo, a little further each time. 0 is off, 5 to 10 is usual.",
        maximum=20,
        step=1,
    ),
    Control(
        name="superpixel_scale",
        label="Superpixel scale",
        info="Areas of one colour vote on one label each. Larger values, larger areas; 0 is off, 50 to 200 is usual.",
        maximum=400,
        step=10,
    ),
    Control(
        name="min_region_px",
        label="Smallest region, pixels",
        info="Smaller patches take the label around them, counted on 600 x 400. 0 is off, 50 to 500 is usual.",
        maximum=1000,
        step=10,
    ),
)


@dataclass(frozen=True)
class Analysis:
    """What the page shows of a photo: its labels, the settings after clamping, and two pictures free of metadata."""

    segmentation: Segmentation
    settings: Refinement
    photo: Image.Image
    overlay: Image.Image


class TunerCache:
    """The networks' answers to the last few photos, for all visitors, bounded in pixels and in number.

    Keys hold a digest of the photo, so nobody gets an answer without having the photo it belongs to.
    """

    def __init__(self, max_pixels: int = MAX_PIXELS, max_photos: int = 8) -> None:
        self._max_pixels, self._max_photos = max_pixels, max_photos
        self._items: OrderedDict[Hashable, tuple[PhotoTuner, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, pixels: int, compute: Callable[[], PhotoTuner]) -> PhotoTuner:
        """The answer remembered under `key`, else a computed one; the least recently used go when room is short."""
        with self._lock:
            if key in self._items:
                self._items.move_to_end(key)
                return self._items[key][0]
        tuner = compute()  # outside of the lock: known photos need not wait for a network
        with self._lock:
            self._items[key] = (tuner, pixels)
            while len(self._items) > 1 and self._is_full():
                self._items.popitem(last=False)
        return tuner

    def _is_full(self) -> bool:
        return len(self._items) > self._max_photos or sum(n for _, n in self._items.values()) > self._max_pixels


TUNERS = TunerCache()


@functools.cache
def load_model(name: str) -> Segmenter:
    """A published model, loaded once per process."""
    return hubmodels.load(name)


def analyse(photo: ImageSource, model_name: str, **settings: float) -> Analysis:
    """Label a photo; the network runs only if it has not answered for the same pixels lately.

    Args:
        photo: path, bytes, PIL image or (H, W, 3) uint8 array.
        model_name: one of `hubmodels.list_models()`.
        **settings: fields of `Refinement`; a number beyond its slider's range is clamped.

    Raises:
        ImageError: the photo cannot be read, or has more than MAX_PIXELS pixels.
        ModelNotFoundError: no such model.
        ValueError, TypeError: an unknown setting, or a value that is not a number.
    """
    ranges = {control.name: control for control in CONTROLS}
    refinement = Refinement.from_dict({k: ranges[k].clamp(v) if k in ranges else v for k, v in settings.items()})
    model = load_model(model_name)
    image = hubmodels.read_image(photo, max_pixels=MAX_PIXELS)
    key = (model_name, image.shape, hashlib.sha256(np.ascontiguousarray(image)).digest())
    tuner = TUNERS.get(key, image.shape[0] * image.shape[1], lambda: model.tune(image))
    segmentation = tuner.refine(refinement)
    return Analysis(segmentation, refinement, *previews(segmentation))


def previews(segmentation: Segmentation) -> tuple[Image.Image, Image.Image]:
    """The photo without and with its labels, the long side at most PREVIEW_PX."""
    height, width = segmentation.labels.shape
    factor = min(1.0, PREVIEW_PX / max(height, width))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    photo = Image.fromarray(segmentation.image).resize(size, Image.Resampling.BOX)
    labels = Image.fromarray(segmentation.labels).resize(size, Image.Resampling.NEAREST)  # ids are never blended
    return photo, render.overlay(np.asarray(photo), np.asarray(labels), segmentation.label_set)


def example_photo() -> np.ndarray:
    """scikit-image's astronaut, (512, 512, 3) uint8; it comes with that package."""
    from skimage import data

    return data.astronaut()


# --- Text -------------------------------------------------------------------------------------------------------------

INTRO = """<h1>hubmodels</h1>
<p>A photo of a person goes in; a label for every pixel comes out. Drag the handle to compare.</p>"""
WELCOME = "Add a photo of a person, or pick the example."
GONE = "This photo is no longer here, as files are deleted within the hour. Please add it again."
PRIVACY = """<p>Photos are used for nothing but the answer you see. Uploaded files and results are deleted within the
hour; the last few photos stay in memory, without a name, until newer ones take their place.</p>"""


def legend_html(segmentation: Segmentation, model_name: str) -> str:
    """A sentence that says what the picture shows, every label with its colour and share, and the model's facts."""
    areas, palette = segmentation.areas(), segmentation.label_set.palette
    rows = "".join(_legend_row(n, areas[n], palette[i] if i else None) for i, n in enumerate(areas))
    return (
        f'<p class="summary" role="status">{html.escape(summary(areas))}</p>'
        f'<ul class="legend" aria-label="Labels and their share of the photo">{rows}</ul>'
        f'<p class="facts">{html.escape(model_facts(model_name))}</p>'
    )


def _legend_row(name: str, share: float, colour: tuple[int, int, int] | None) -> str:
    """One line of the legend; the background has no colour, as the photo shows through."""
    paint = f"background:rgb{colour}" if colour else ""
    return (
        f'<li class="{"present" if share else "absent"}">'
        f'<span class="swatch{"" if colour else " clear"}" style="{paint}"></span>'
        f'<span class="name">{html.escape(name)}</span>'
        f'<span class="bar"><span style="width:{100 * share:.1f}%;{paint}"></span></span>'
        f'<span class="share">{percent(share)}</span></li>'
    )


def summary(areas: dict[str, float]) -> str:
    """A sentence for those who cannot see the picture; the first label is the background."""
    (background, rest), *others = areas.items()
    found = sorted(((share, name) for name, share in others if share), reverse=True)
    if not found:
        return f"Nothing found: all of the photo is {background}."
    return f"Found {', '.join(f'{name} ({percent(share)})' for share, name in found)}; {percent(rest)} is {background}."


def percent(share: float) -> str:
    """A share of pixels as people read it; what is there at all is never 0 %."""
    number = "<0.1" if 0 < share < 0.0005 else f"{100 * share:.1f}" if share else "0"
    return f"{number}\u00a0%"  # kept on one line


def model_facts(name: str) -> str:
    """One line about a model."""
    entry = find_entry(name)
    scores = f" {entry_docs.scores_line(entry)}." if entry.metrics else ""
    return f"{entry.title}. {entry.parameters / 1e6:.1f} M parameters, {entry.size_bytes / 1e6:.1f} MB.{scores}"


def model_choices(task: str | None = None) -> list[tuple[str, str]]:
    """Rows of the model menu: what is shown (name and score) and the name it stands for."""
    entries = [find_entry(name) for name in hubmodels.list_models(task)]
    return [(e.name + (f" · {100 * e.metrics['miou']:.1f} mIoU" if e.metrics else ""), e.name) for e in entries]


# --- The page ---------------------------------------------------------------------------------------------------------

_PRIVATE: dict[str, Any] = {"api_visibility": "private", "trigger_mode": "always_last", "show_progress": "hidden"}


def build() -> gr.Blocks:
    """The page, not yet served."""
    with gr.Blocks(title="hubmodels", analytics_enabled=False, delete_cache=(CLEAN_EVERY_S, FILE_AGE_S)) as page:
        gr.HTML(INTRO, label="About", elem_id="intro")
        with gr.Row(elem_id="layout"):
            with gr.Column(elem_id="controls"):  # on a narrow screen the columns dissolve: see CSS
                with gr.Column(elem_id="input"):
                    photo, tasks, model = _photo_input(), *_model_inputs()
                with gr.Column(elem_id="tune"):
                    sliders = {control.name: _slider(control) for control in CONTROLS}
            with gr.Column(elem_id="answer"):
                with gr.Column(elem_id="view"):
                    compare = gr.ImageSlider(
                        label="Photo | labels",
                        interactive=False,
                        format="jpeg",  # a preview; webp takes ten times as long to write
                        buttons=["fullscreen"],
                        max_height=560,
                        elem_id="compare",
                    )
                with gr.Column(elem_id="details"):
                    legend = gr.HTML(_notice(WELCOME), label="Legend", container=True, padding=True, elem_id="legend")
                    mask = gr.DownloadButton("Download labels (PNG)", size="md", elem_id="mask")
                    report = gr.JSON(label="Report", visible=False, elem_id="report")  # for those who call the API
        gr.HTML(PRIVACY, label="Privacy", elem_id="privacy")
        outputs = [compare, mask, report, legend]
        # `change` alone covers drag, keys, typed numbers, reset and example. The task acts through the model's menu.
        run = gr.on(
            [page.load, photo.change, model.change, *(slider.change for slider in sliders.values())],
            functools.partial(segment, cache_dir=mask.GRADIO_CACHE),
            [photo, model],
            outputs,
            inputs_kwargs=sliders,
            trigger_mode="always_last",
            show_progress="minimal",
            show_progress_on=[compare],
            concurrency_id="segment",
            concurrency_limit=1,
            api_name="segment",
            api_description="Label every pixel of a photo: comparison, indexed PNG of label ids, shares, legend.",
        )
        run.failure(clear_unreadable, [photo], outputs, **_PRIVATE)
        gr.on([page.load, tasks.change], model_menu, [tasks, model], [model], **_PRIVATE)
    return page.queue(max_size=16, api_open=False)


def _photo_input() -> gr.Image:
    photo = gr.Image(
        example_photo(),
        type="filepath",
        image_mode=None,  # the file as it came: read_image knows orientation, 16 bits and transparency
        format="png",
        sources=["upload", "clipboard", "webcam"],
        buttons=["fullscreen"],
        height=260,
        label="Photo",
        alt_text="The photo to label",
        elem_id="photo",
    )
    photo.preprocess = _uploaded_path  # Gradio's own would open the file, and fail on a broken one without a word
    example = photo.value["path"]
    gr.Examples([[example]], [photo], label="Example", example_labels=["Astronaut"], elem_id="examples")
    return photo


def _uploaded_path(payload: Any) -> str | None:
    """The path of an uploaded photo; nothing is opened."""
    if payload is not None and (payload.url or "").startswith("data:"):  # these pass by the limit on uploads
        raise _refusal("Send the photo as an uploaded file, not inside of the request.")
    return None if payload is None else payload.path


def _model_inputs() -> tuple[gr.Radio, gr.Dropdown]:
    task, name = next(iter(DEFAULTS.items()))
    tasks = gr.Radio([(key.capitalize(), key) for key in DEFAULTS], value=task, label="Task", elem_id="task")
    # All models are choices at first: an API call, which has no page, is checked against them.
    return tasks, gr.Dropdown(model_choices(), value=name, filterable=False, label="Model", elem_id="model")


def _slider(control: Control) -> gr.Slider:
    slider = gr.Slider(
        0,
        control.maximum,
        value=control.default,
        step=control.step,
        precision=0,
        label=control.label,
        info=control.info,
        elem_id=control.name,
    )
    # Gradio's own refuses a typed number beyond the range; the browser corrects the box, but sends nothing more.
    slider.preprocess = lambda value: round(control.clamp(value)) if _is_finite(value) else value
    return slider


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def segment(photo: str | None, model: str, *, cache_dir: str, **settings: float) -> tuple[Any, ...]:
    """`analyse` for the page and the API: comparison, mask file, report, legend."""
    if photo is None:
        return _nothing(WELCOME)
    try:
        analysis = analyse(Path(photo), model, **settings)
    except FileNotFoundError:
        raise _refusal(GONE) from None
    except ImageError as error:
        raise _refusal(_unreadable(error, photo)) from None
    except (HubmodelsError, ValueError, TypeError) as error:
        raise _refusal(str(error)) from None
    segmentation = analysis.segmentation
    indexed = export.indexed_png(segmentation.labels, segmentation.label_set)
    path = save_pil_to_cache(indexed, cache_dir, name="labels", format="png")  # in the folder that is cleaned
    report = {"model": model, "areas": segmentation.areas(), "settings": analysis.settings.to_dict()}
    return (analysis.photo, analysis.overlay), path, report, legend_html(segmentation, model)


def clear_unreadable(photo: str | None) -> tuple[Any, ...]:
    """After a failure: if it was for the photo, the result of the one before must not stay beside it."""
    try:
        hubmodels.read_image(Path(photo or ""), max_pixels=MAX_PIXELS)
    except ImageError as error:
        return _nothing(_unreadable(error, photo))
    except FileNotFoundError:
        return _nothing(GONE)
    return gr.skip(), gr.skip(), gr.skip(), gr.skip()


def model_menu(task: str, current: str) -> gr.Dropdown:
    """The models of a task; the current one stays chosen if it is among them."""
    names = hubmodels.list_models(task)
    return gr.Dropdown(model_choices(task), value=current if current in names else DEFAULTS[task])


def _nothing(message: str) -> tuple[Any, ...]:
    return None, None, None, _notice(message)


def _notice(message: str) -> str:
    return f'<p class="notice" role="status">{html.escape(message)}</p>'


def _unreadable(error: ImageError, path: str | None) -> str:
    """What is wrong with a photo, without the server's path to it."""
    return f"This photo cannot be read: {str(error).removeprefix(f'{path}: ')}."


def _refusal(message: str) -> gr.Error:
    return gr.Error(html.escape(message), duration=10, print_exception=False)


# --- Serving ----------------------------------------------------------------------------------------------------------

THEME = gr.themes.Base(
    primary_hue=gr.themes.colors.teal,
    neutral_hue=gr.themes.colors.slate,
    radius_size=gr.themes.sizes.radius_lg,
    # Bundled with Gradio, so no request leaves. Its weight 600 lacks Latin letters (6.31), hence 700.
    font=(gr.themes.LocalFont("Source Sans Pro", weights=(400, 700)), "system-ui", "sans-serif"),
).set(
    body_background_fill="*neutral_50",
    block_background_fill="white",
    block_info_text_color="*neutral_600",  # the theme's neutral_400 is too pale to read on white
    block_info_text_color_dark="*neutral_300",
    body_text_color_subdued="*neutral_600",
    body_text_color_subdued_dark="*neutral_400",
    block_label_text_color="*neutral_600",
    block_title_text_color="*neutral_700",
    block_title_text_weight="600",
    slider_color="*primary_600",
)

CSS = """
.gradio-container {max-width: 1240px !important; margin: 0 auto !important}
#intro .html-container, #privacy .html-container {padding: 0}
#intro h1 {font-size: 1.7rem; margin: 0}
#intro p {margin: .1rem 0 0; color: var(--body-text-color-subdued); font-size: 1.05rem}
#layout {display: grid; grid-template-columns: minmax(300px, 4fr) 8fr; align-items: start}
#layout .column {min-width: 0 !important; gap: 12px}
#layout, #controls, #answer {gap: 16px}
#tune input[type=range]::-webkit-slider-thumb {background: var(--slider-color)}
#tune input[type=range]::-moz-range-thumb {background: var(--slider-color)}
#legend .summary {margin: 0 0 .7rem}
#legend .legend {list-style: none; margin: 0; padding: 0; display: grid; gap: .3rem}
#legend li {display: grid; grid-template-columns: 1rem 6.2rem 1fr 3.6rem; gap: .6rem; align-items: center; margin: 0}
#legend li.absent {opacity: .6}
#legend .swatch {width: 1rem; height: 1rem; border-radius: 4px}
#legend .swatch.clear {border: 1px dashed var(--body-text-color-subdued)}
#legend .bar {height: .5rem; border-radius: 4px; background: var(--border-color-primary); overflow: hidden}
#legend .bar > span {display: block; height: 100%; background: var(--body-text-color-subdued)}
#legend .share {text-align: right; font-variant-numeric: tabular-nums}
#legend .facts, #privacy p {color: var(--body-text-color-subdued); font-size: .9rem; margin: .8rem 0 0}
#legend .notice {text-align: center; padding: 2.5rem 1rem; margin: 0; color: var(--body-text-color-subdued)}
#mask {width: fit-content; align-self: end}
#details:has(.notice) #mask {display: none}  /* nothing to download */
footer .divider {display: none !important}
@media (max-width: 820px) {  /* one column, and the sliders right below the picture they change */
  #layout {display: flex; flex-direction: column; align-items: stretch}
  #controls, #answer {display: contents}
  #input {order: 1} #view {order: 2} #tune {order: 3} #details {order: 4}
}
"""

LAUNCH: dict[str, Any] = {
    "theme": THEME,
    "css": CSS,
    "footer_links": ["api"],
    "max_file_size": "25mb",
    "run_history": False,  # Gradio would keep photos and results in the visitor's browser
    "show_error": False,  # texts of unforeseen errors hold paths; foreseen ones are gr.Error
    "ssr_mode": False,
    "state_session_capacity": 200,
}


def warm_up() -> None:
    """Load every model and run every stage once, so that no visitor waits for it."""
    names = hubmodels.list_models()
    for i, name in enumerate(names, 1):
        print(f"Loading models: {i} of {len(names)}, {name}", flush=True)
        analyse(example_photo(), name, **{control.name: control.step for control in CONTROLS})


def main(arguments: list[str] | None = None) -> None:
    """Serve the page until it is interrupted."""
    parser = argparse.ArgumentParser(description="Serve the hubmodels page.")
    parser.add_argument("--share", action="store_true", help="ask Gradio for a public link, good for a week at most")
    parser.add_argument("--host", help="address to listen at; GRADIO_SERVER_NAME or 127.0.0.1 unless given")
    parser.add_argument("--port", type=int, help="GRADIO_SERVER_PORT or the first free one from 7860 unless given")
    options = parser.parse_args(arguments)
    warm_up()
    page = build()
    where: dict[str, Any] = {"server_name": options.host, "server_port": options.port, "share": options.share}
    try:
        *_, share_url = page.launch(prevent_thread_lock=True, **where, **LAUNCH)
    except OSError as error:
        raise SystemExit(f"The page cannot be served: {error}") from None
    if options.share and not share_url:
        print("No public link: Gradio's sharing service cannot be reached. The local address works.", flush=True)
    page.block_thread()


if __name__ == "__main__":
    main()
