"""The HTML of a report: one file without scripts, its pictures inside, readable on light and on dark ground."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from PIL import Image

from hubmodels.labels import Colour, LabelSet
from hubmodels.metrics import IGNORE, Scores, ratio
from hubmodels.render import overlay
from training.report_pictures import ERROR_COLOURS, HEAT, data_uri, error_map, heat, is_wrong, mean_errors

WORST = 12
OPACITY = 0.7  # of labels over a photo
RIGHT, WRONG = (0, 114, 178), (213, 94, 0)  # cells of the confusion matrix

# What may be concluded from a page, by split.
NOTES = {
    "val": "This is the validation split. Checkpoints and settings are chosen on it, so expect a little less on new "
    "photos.",
    "test": "This is the test split, for evaluation only: nothing may be trained, tuned or chosen by what this page "
    "shows.",
}

STYLE = """
:root { color-scheme: light dark; --ground: #fff; --text: #1b1e23; --soft: #5b6270; --line: #d5d9e0; --note: #fff4d6 }
@media (prefers-color-scheme: dark) {
  :root { --ground: #15181c; --text: #e8eaee; --soft: #a5acb8; --line: #3a404a; --note: #3d3210 }
}
body { max-width: 76rem; margin: 0 auto; padding: 1rem; background: var(--ground); color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif }
h1, h2, h3 { line-height: 1.2; margin: 2rem 0 .5rem; overflow-wrap: anywhere } h1 { margin-top: .5rem }
h3 { margin-top: 1.5rem; font-size: 1rem }
p { max-width: 48rem; margin: .5rem 0 }
.note { background: var(--note); border-left: .3rem solid #b58900; padding: .5rem .75rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
caption { text-align: left; color: var(--soft); padding-bottom: .25rem }
th, td { border: 1px solid var(--line); padding: .25rem .6rem; text-align: right; white-space: nowrap }
th { font-weight: 600 } tbody th, thead th:first-child { text-align: left; white-space: normal }
td.text { text-align: left; white-space: normal; overflow-wrap: anywhere }
.swatch { display: inline-block; width: .8em; height: .8em; margin-right: .4em; border: 1px solid var(--soft) }
.legend { list-style: none; padding: 0; margin: .5rem 0; display: flex; flex-wrap: wrap; gap: .25rem 1.25rem }
.row { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(10rem, 45%), 1fr)); gap: .5rem }
figure { margin: 0; max-width: 20rem } figcaption { color: var(--soft); font-size: .875rem }
img { max-width: 100%; height: auto; display: block }
.scale { display: flex; gap: .5rem; max-width: 20rem } .bar { flex: 1; border: 1px solid var(--line) }
"""


@dataclass(frozen=True)
class Photo:
    """One photo of a report.

    Attributes:
        name: data set and number.
        image: (H, W, 3) uint8.
        truth, predicted: (H, W) uint8 label ids; truth is IGNORE where undecided.
        scores: of this photo alone.
    """

    name: str
    image: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray
    scores: Scores


@dataclass(frozen=True)
class Report:
    """What a page shows.

    Attributes:
        title: name of the model.
        split: a key of `NOTES`.
        labels: of the model.
        facts: what was measured and how, in the order in which it is shown.
        scores: over all photos.
        photos: at least one.
    """

    title: str
    split: str
    labels: LabelSet
    facts: Mapping[str, str]
    scores: Scores
    photos: Sequence[Photo]


def worst(photos: Sequence[Photo], count: int = WORST) -> list[Photo]:
    """The photos of the lowest mIoU, lowest first, by name where equal; photos without a decided pixel are left out."""
    scored = [photo for photo in photos if photo.scores.confusion.sum()]
    return sorted(scored, key=lambda photo: (photo.scores.miou, photo.name))[:count]


def page(report: Report) -> str:
    """The whole HTML document."""
    title = f"{report.title} on the {report.split} split"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="note" role="note">{escape(NOTES[report.split])}</p>',
        _table("What was measured", (), [(name, _text(value)) for name, value in report.facts.items()]),
        "<h2>Scores</h2>",
        score_table(report.scores),
        spread(report.photos),
        "<h2>Labels</h2>",
        label_table(report.scores, report.labels),
        "<h2>Confusion matrix</h2>",
        confusion_table(report.scores, report.labels),
        "<h2>Where errors are</h2>",
        mean_error_figure(report.photos),
        *worst_photos(report.photos, report.labels),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def score_table(scores: Scores) -> str:
    """Scores over all photos, in percent."""
    rows = [
        ("mIoU", _cell(scores.miou)),
        ("pixel accuracy", _cell(scores.pixel_accuracy)),
        (f"boundary F within {scores.boundary_px} px", _cell(scores.boundary_f)),
    ]
    return _table("Over all photos, in percent", (), rows)


def spread(photos: Sequence[Photo]) -> str:
    """A sentence on how much photos differ."""
    values = sorted(photo.scores.miou for photo in photos if photo.scores.confusion.sum())
    if not values:
        return "<p>No pixel of any photo is decided.</p>"
    low, middle, high = (percent(value) for value in (values[0], float(np.median(values)), values[-1]))
    return f"<p>mIoU of a single photo: {low} at worst, {middle} in the median, {high} at best.</p>"


def label_table(scores: Scores, labels: LabelSet) -> str:
    """IoU, precision, recall and share of pixels of every label, in percent."""
    columns = (scores.iou, scores.precision, scores.recall, scores.share)
    rows = [
        (_swatch(colour) + escape(name), *(_cell(column[index]) for column in columns))
        for index, (name, colour) in enumerate(zip(labels.names, labels.palette, strict=True))
    ]
    head = ("label", "IoU", "precision", "recall", "share of pixels")
    return _table("In percent; a dash where a label does not occur or is not predicted", head, rows, raw_first=True)


def confusion_table(scores: Scores, labels: LabelSet) -> str:
    """What becomes of the pixels of every label: rows are true labels and sum to 100 %."""
    shares = ratio(scores.confusion, scores.confusion.sum(1, keepdims=True))
    rows = []
    for index, (name, colour) in enumerate(zip(labels.names, labels.palette, strict=True)):
        cells = [
            _share_cell(float(share), int(count), RIGHT if column == index else WRONG)
            for column, (share, count) in enumerate(zip(shares[index], scores.confusion[index], strict=True))
        ]
        rows.append((_swatch(colour) + escape(name), *cells, f"<td>{scores.confusion[index].sum():,}</td>"))
    caption = "Rows are true labels, columns predicted ones, in percent of the row; the last column counts pixels"
    return _table(caption, ("true \\ predicted", *labels.names, "pixels"), rows, raw_first=True)


def mean_error_figure(photos: Sequence[Photo]) -> str:
    """How often each place is wrong, with its scale."""
    errors = mean_errors((photo.truth, photo.predicted) for photo in photos)
    top = float(errors.max())
    stops = ", ".join(_rgb(colour) for colour in HEAT)
    alt = (
        f"Mean error map: wrong in {percent(float(errors.mean()))} % of the photos on average, {percent(top)} % at most"
    )
    stretched = len({photo.truth.shape for photo in photos}) > 1
    return (
        "<p>In how many of the photos each pixel has a wrong label"
        + (", photos of other sizes stretched to that of the first.</p>" if stretched else ".</p>")
        + _figure(heat(errors, top=top), alt, "mean error map")
        + f'<div class="scale"><span>0 %</span><span class="bar" style="background:linear-gradient(90deg,{stops})">'
        + f"</span><span>{percent(top)} %</span></div>"
    )


def worst_photos(photos: Sequence[Photo], labels: LabelSet) -> list[str]:
    """Photo, truth, prediction and error map of each of the worst, under a legend."""
    chosen = worst(photos)
    legend = [f"<li>{_swatch(colour)}{escape(name)}</li>" for name, colour in _palette(labels)]
    errors = [f"<li>{_swatch(colour)}{escape(name)}</li>" for name, colour in ERROR_COLOURS.items()]
    parts = [
        f"<h2>The {len(chosen)} worst photos</h2>",
        "<p>By mIoU of the photo alone, over the labels that occur in it or are predicted. "
        "The photos are research data: do not publish this page.</p>",
        f'<ul class="legend" aria-label="labels">{"".join(legend)}</ul>',
        f'<ul class="legend" aria-label="errors">{"".join(errors)}</ul>',
    ]
    return parts + [_worst_photo(rank, photo, labels) for rank, photo in enumerate(chosen, 1)]


def _worst_photo(rank: int, photo: Photo, labels: LabelSet) -> str:
    scores, name = photo.scores, photo.name
    truth = np.where(photo.truth == IGNORE, 0, photo.truth)  # undecided pixels show the photo
    wrong = float(is_wrong(photo.truth, photo.predicted).mean())
    pictures = (
        (Image.fromarray(photo.image), f"Photo {name}", "photo"),
        (
            overlay(photo.image, truth, labels, opacity=OPACITY),
            f"True labels of {name}: {_shares(photo.truth, labels)}",
            "truth",
        ),
        (
            overlay(photo.image, photo.predicted, labels, opacity=OPACITY),
            f"Predicted labels of {name}: {_shares(photo.predicted, labels)}",
            "prediction",
        ),
        (
            error_map(photo.image, photo.truth, photo.predicted),
            f"Error map of {name}: {percent(wrong)} % of the pixels are wrong",
            "errors",
        ),
    )
    return (
        f"<h3>{rank}. {escape(name)}: mIoU {percent(scores.miou)}, accuracy {percent(scores.pixel_accuracy)}, "
        f"boundary F {percent(scores.boundary_f)}</h3>\n"
        f'<div class="row">{"".join(_figure(*each) for each in pictures)}</div>'
    )


def percent(share: float) -> str:
    """A share as percent with one decimal; a dash for NaN."""
    return "–" if math.isnan(share) else f"{100 * share:.1f}"  # noqa: RUF001


def _palette(labels: LabelSet) -> list[tuple[str, Colour]]:
    """Names and colours of the labels that are painted; the background is not."""
    return list(zip(labels.names, labels.palette, strict=True))[1:]


def _shares(ids: np.ndarray, labels: LabelSet) -> str:
    """The labels that occur, with their shares of the photo; nothing of undecided pixels."""
    counts = np.bincount(ids[ids != IGNORE], minlength=len(labels))
    return ", ".join(f"{labels.names[i]} {percent(counts[i] / ids.size)} %" for i in np.flatnonzero(counts))


def _figure(picture: Image.Image, alt: str, caption: str) -> str:
    uri, (width, height) = data_uri(picture)
    image = f'<img src="{uri}" width="{width}" height="{height}" alt="{escape(alt)}">'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def _table(caption: str, head: Sequence[str], rows: Sequence[tuple[str, ...]], *, raw_first: bool = False) -> str:
    """A table.

    Args:
        caption: what it shows; text.
        head: names of the columns; text. Empty: no head.
        rows: the first cell names the row, as text or with `raw_first` as HTML; the others are whole <td> elements.
        raw_first: see `rows`.
    """
    columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    lines = [f'<div class="wide"><table><caption>{escape(caption)}</caption>']
    if head:
        lines.append(f"<thead><tr>{columns}</tr></thead>")
    lines.append("<tbody>")
    for first, *cells in rows:
        lines.append(f'<tr><th scope="row">{first if raw_first else escape(first)}</th>{"".join(cells)}</tr>')
    return "\n".join([*lines, "</tbody></table></div>"])


def _cell(share: float) -> str:
    return f"<td>{percent(float(share))}</td>"


def _text(value: str) -> str:
    return f'<td class="text">{escape(value)}</td>'


def _share_cell(share: float, count: int, colour: Colour) -> str:
    """A cell as strong in colour as its share; at most 0.65, so that text stays readable on either ground."""
    strength = 0 if math.isnan(share) else 0.65 * math.sqrt(share)
    ground = f"rgba({colour[0]},{colour[1]},{colour[2]},{strength:.3f})"
    return f'<td style="background:{ground}" title="{count:,} pixels">{percent(share)}</td>'


def _swatch(colour: Colour) -> str:
    return f'<span class="swatch" style="background:{_rgb(colour)}"></span>'


def _rgb(colour: Colour) -> str:
    return f"rgb({colour[0]},{colour[1]},{colour[2]})"
