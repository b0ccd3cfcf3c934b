"""What the page says, as escaped HTML."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping

from hubmodels import entry_docs
from hubmodels.app.studio import KEPT_S, Analysis
from hubmodels.entries import Entry, find_entry
from hubmodels.masks import TruthScores

INTRO = """<h1>hubmodels</h1>
<p>A photo of a person goes in; a label for every pixel comes out. Tune it, compare it, take it with you.</p>"""
WELCOME = "Add a photo of a person, or pick an example."
LINKED = "The link carried settings, not a photo. Add your own, or pick an example."
GONE = "This photo is no longer here, as files are deleted within the hour. Please add it again."
FAILED = (
    "Something went wrong on the server; the photo may be at fault, or we are. Please try another setting or photo."
)
BUSY = "The server is busy with other visitors. Please try again in a moment."  # in a toast, and to API clients
NO_UPLOAD = (
    "photo must be an uploaded file: use handle_file(...), or POST it to /upload and pass the path it answers with"
)
NO_ANSWER = "The server gave no answer: it is busy with other visitors, or cannot be reached."
PREPARING = "Preparing …"  # on the button of a file that was asked for
PRIVACY = f"""<p>Photos are used for nothing but the answer you see. Uploaded files and results are deleted within the
hour; the last few photos stay in memory, without a name, until newer ones take their place or {KEPT_S // 60} minutes
pass. Links carry settings, never photos.</p>"""
TRUTH_HELP = """A PNG of the photo's size: indexed or grey with label ids (255 counts as undecided), black and white for
the person task, or in the colours of the legend. The scores then follow the sliders."""
STAGE_NAMES = {
    "network": "network",
    "crf": "CRF",
    "superpixels": "superpixels",
    "merge": "merge",
    "vote": "vote",
    "clean-up": "clean-up",
    "pictures": "pictures",
}


def percent(share: float) -> str:
    """A share of pixels as people read it; what is there at all is never 0 %."""
    number = "<0.1" if 0 < share < 0.0005 else f"{100 * share:.1f}" if share else "0"
    return f"{number}\u00a0%"  # kept on one line


def summary(areas: Mapping[str, float]) -> str:
    """A sentence for those who cannot see the picture; the first label is the background."""
    (background, rest), *others = areas.items()
    found = sorted(((share, name) for name, share in others if share), reverse=True)
    if not found:
        return f"Nothing found: all of the photo is {background}."
    return f"Found {', '.join(f'{name} ({percent(share)})' for share, name in found)}; {percent(rest)} is {background}."


def details_html(analysis: Analysis, seconds: Mapping[str, float], notes: list[str], *, whose: str = "") -> str:
    """A sentence that says what is seen, every label with colour and share, the time of each stage, the model.

    Args:
        analysis: the final result.
        seconds: by stage that ran.
        notes: sentences about what is shown.
        whose: the result that the numbers are of, where the pictures show others too.
    """
    areas, palette = analysis.final.areas(), analysis.final.label_set.palette
    rows = "".join(_legend_row(n, areas[n], palette[i]) for i, n in enumerate(areas))
    of = f"{html.escape(whose)}: " if whose else ""
    lead = f"<strong>{of}</strong>" if whose else ""
    said = "".join(f'<p class="note">{html.escape(note)}</p>' for note in notes)
    return (
        f'<p class="summary" role="status">{lead}{html.escape(summary(areas))}</p>{said}'
        f'<ul class="legend" aria-label="{of}Labels and their share of the photo">{rows}</ul>'
        f'<p class="times">{html.escape(times(seconds))}</p>'
        f'<p class="facts">{html.escape(model_facts(analysis.entry))}</p>'
    )


def _legend_row(name: str, share: float, colour: tuple[int, int, int]) -> str:
    """One line of the legend; a black background has no colour, as the photo shows through."""
    paint = f"background:rgb{colour}" if any(colour) else ""
    return (
        f'<li class="{"present" if share else "absent"}">'
        f'<span class="swatch{"" if paint else " clear"}" style="{paint}"></span>'
        f'<span class="name">{html.escape(name)}</span>'
        f'<span class="bar"><span style="width:{100 * share:.1f}%;{paint}"></span></span>'
        f'<span class="share">{percent(share)}</span></li>'
    )


def times(seconds: Mapping[str, float]) -> str:
    """Milliseconds of each stage that ran; what is not named was remembered."""
    if not seconds:
        return "Time on the server: none, all was remembered."
    ran = ", ".join(f"{STAGE_NAMES[stage]} {1000 * s:.0f} ms" for stage, s in seconds.items())
    return f"Time on the server: {1000 * sum(seconds.values()):.0f} ms ({ran})."


def scores_html(final: TruthScores, raw: TruthScores, *, scaled_to: tuple[int, int] | None = None) -> str:
    """A table of scores against the ground truth, the result beside the raw network.

    Args:
        final, raw: what was scored.
        scaled_to: height and width at which that was done; None for the photo's own.
    """
    rows = [("mIoU", final.miou, raw.miou), ("boundary F, 3 px", final.boundary_f, raw.boundary_f)]
    names = dict.fromkeys([*final.iou, *raw.iou])  # with what the raw network alone found: its mIoU counts that
    rows += [(f"IoU {name}", final.iou.get(name, math.nan), raw.iou.get(name, math.nan)) for name in names]
    body = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th><td>{_score(a)}</td><td>{_score(b)}</td>'
        f'<td class="{_trend(a - b)}">{_difference(a - b)}</td></tr>'
        for name, a, b in rows
    )
    head = "".join(f'<th scope="col">{text}</th>' for text in ("Score", "final", "raw", "gain"))
    caption = "Against your mask"
    if scaled_to is not None:
        caption += f", at {scaled_to[1]}x{scaled_to[0]} pixels, to which the page scales photo and mask down"
    return f'<table class="scores"><caption>{caption}</caption><tr>{head}</tr>{body}</table>'


def _score(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.2f}"


def _difference(value: float) -> str:
    return "" if math.isnan(value) else f"{100 * value:+.2f}"


def _trend(difference: float) -> str:
    return "up" if difference > 0 else "down" if difference < 0 else "same"


def model_facts(entry: Entry) -> str:
    """One line about a model."""
    scores = f" {entry_docs.scores_line(entry)}." if entry.metrics else ""
    size = f"{entry_docs.rounded(entry.parameters)} parameters, {entry_docs.rounded(entry.size_bytes)}B"
    return f"{entry.title}. {size}.{scores}"


def no_classifier(model: str, vote: str) -> str:
    """Why superpixels vote otherwise than was asked for."""
    return f"{model} has no region classifier: the vote is by {vote}."


def lost_labels(shares: Mapping[str, tuple[float, float]]) -> str:
    """What post-processing took most of: label -> share of the photo before and after."""
    lost = (f"{name} ({percent(before)}, now {percent(after)})" for name, (before, after) in shares.items())
    return f"Post-processing took most of {', '.join(lost)}."


def nothing_cut(label: str, where: str) -> str:
    """Why a cut-out is empty; without a label it would have been all that was found."""
    return f"There is {f'no {label}' if label else 'nothing'} in {where}: the cut-out is empty."


def cut_choices(entry: Entry) -> list[tuple[str, str]]:
    """Rows of the menu of what is cut out."""
    return [("all that was found", ""), *((name, name) for name in entry.labels.names[1:])]


def model_choice(name: str, speeds: Mapping[str, float]) -> str:
    """A row of the model menu: name, score, size, and seconds of the network if they were measured."""
    entry = find_entry(name)
    parts = [entry.name]
    if entry.metrics:
        parts.append(f"{100 * entry.metrics['miou']:.1f} mIoU")
    parts.append(f"{entry_docs.rounded(entry.size_bytes)}B")
    if name in speeds:
        parts.append(f"{speeds[name]:.2f} s")
    return " · ".join(parts)


def notice_html(message: str, *, error: bool = False, retry: str = "") -> str:
    """What stands where the pictures would be: an invitation, or what is wrong.

    Args:
        message: a sentence.
        error: whether something is wrong.
        retry: JavaScript of a button "Try again"; no button if empty.
    """
    mark = '<p class="mark" aria-hidden="true">!</p>' if error else ""
    role = "alert" if error else "status"
    button = f'<button type="button" onclick="{html.escape(retry)}">Try again</button>' if retry else ""
    shown = f"{mark}<p>{html.escape(message)}</p>{button}"
    return f'<div class="notice{" wrong" if error else ""}" role="{role}">{shown}</div>'


# Selecting first works without https too, where browsers deny pages the clipboard.
_COPY = (
    "const text = this.parentElement.querySelector('pre'); getSelection().selectAllChildren(text); "
    "document.execCommand('copy'); this.textContent = 'Copied'; setTimeout(() => this.textContent = 'Copy', 1500)"
)


def copy_html(label: str, text: str) -> str:
    """Text with a button that copies it."""
    return (
        f'<div class="copy"><span class="label">{html.escape(label)}</span>'
        f'<button type="button" onclick="{_COPY}" aria-label="Copy: {html.escape(label, quote=True)}">Copy</button>'
        f'<pre tabindex="0" role="region" aria-label="{html.escape(label, quote=True)}">{html.escape(text)}</pre></div>'
    )
