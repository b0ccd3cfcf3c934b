"""Text about entries, rendered from their rows: torch.hub help, model tables, one model's facts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hubmodels.entries import Entry
from hubmodels.score_names import SCORES

COLUMNS = ("model", "labels", *SCORES.values(), "parameters", "file")


def table_row(entry: Entry) -> tuple[str, ...]:
    """The cells of `COLUMNS`."""
    return (
        entry.name,
        str(len(entry.labels)),
        *(f"{100 * entry.metrics[key]:.1f}" if entry.metrics else "-" for key in SCORES),
        *((rounded(entry.parameters), f"{rounded(entry.size_bytes)}B") if entry.is_trained else ("-", "-")),
    )


def rounded(count: int) -> str:
    """Parameters or bytes in millions, or few of them in thousands: "3.3 M", "2.1 k"."""
    return f"{count / 1e6:.1f} M" if count >= 100_000 else f"{count / 1e3:.1f} k"


def markdown(head: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown: titles of columns, and rows of as many cells."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def markdown_table(entries: Iterable[Entry]) -> str:
    """The model table of the README."""
    return markdown(COLUMNS, map(table_row, entries))


def text_table(entries: Iterable[Entry]) -> str:
    """The model table for a terminal, in aligned columns."""
    rows = [COLUMNS, *(table_row(entry) for entry in entries)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def scores_line(entry: Entry) -> str:
    """Where the scores come from and what they are."""
    m = entry.metrics
    if not m:
        return "not measured yet"
    return (
        f"{100 * m['miou']:.1f} mIoU, {100 * m['pixel_accuracy']:.1f} % pixel accuracy, "
        f"{100 * m['boundary_f']:.1f} boundary F at {m['boundary_px']} px on {m['images']} photos ({m['data']})"
    )


def file_line(entry: Entry) -> str:
    """The weights file, or that there is none."""
    if not entry.is_trained:
        return "no weights of ours; pretrained=True loads the backbone's from timm's repository on the Hub"
    return f"{entry.filename}, {rounded(entry.size_bytes)}B, sha256 {entry.sha256}"


def entry_facts(entry: Entry) -> str:
    """All that is known about one model, for `hubmodels info`."""
    iou = entry.metrics.get("iou", {})
    per_label = ", ".join(f"{name} {100 * iou[name]:.1f}" for name in entry.labels.names if name in iou)
    lines = [
        ("name", entry.name),
        ("title", entry.title),
        ("labels", ", ".join(f"{i} {name}" for i, name in enumerate(entry.labels.names))),
        ("scores", scores_line(entry)),
        ("IoU by label", per_label),
        ("input", f"any photo; its long side is brought to about {entry.input_px} px" if entry.is_network else ""),
        ("parameters", f"{entry.parameters:,}" if entry.is_trained else ""),
        ("file", file_line(entry)),
        ("paper", entry.paper),
        ("recipe", entry.recipe),
        ("license", f"{entry.license}; {entry.data}"),
    ]
    return "\n".join(f"{key + ':':14}{value}" for key, value in lines if value)


def entry_docstring(entry: Entry) -> str:
    """What `torch.hub.help` shows."""
    labels = ", ".join(f"{i} {name}" for i, name in enumerate(entry.labels.names))
    weights = "the shipped weights" if entry.is_trained else "the backbone's ImageNet weights through timm"
    return f"""{entry.title}.

    Args:
        pretrained: load {weights}; False leaves the network as initialised.
        device: where it goes, such as "cpu" or "cuda".
        num_classes: for a model of other labels, to be trained: keeps all weights but those of the layers that answer
            for labels, which are initialised anew.
        labels: names of these labels, the background first; "label 0", "label 1", ... unless given.
        runtime: "torch"; "onnx", which is faster on CPU and cannot be trained; or "auto", the faster that works.

    Returns:
        An nn.Module in eval mode: (N, 3, H, W) float RGB in 0..1, any H and W >= 32, to (N, {len(entry.labels)}, H, W)
        logits. Mean and standard deviation are applied inside. `predict(photo)` takes a path, bytes, a PIL image or
        an array and returns labels and probabilities at the photo's own size.

    Labels: {labels}
    Scores: {scores_line(entry)}
    License: {entry.license}; {entry.data}
    Paper: {entry.paper}
    """
