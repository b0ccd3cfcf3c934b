"""Model cards: the README.md of a repository on the Hugging Face Hub, written from a row of ENTRIES or a config."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from hubmodels.card_scores import read_scores
from hubmodels.config import ModelConfig
from hubmodels.entries import Entry
from hubmodels.entry_docs import markdown
from hubmodels.labels import LabelSet, hex_colour
from hubmodels.score_names import SCORES

TAGS = ("image-segmentation", "semantic-segmentation", "human-parsing", "hubmodels", "pytorch")
DATASET = "Fashionista"
PICTURE = "example.jpg"
SCORE_NAMES = dict(zip(SCORES, ("mean IoU", "pixel accuracy", "boundary F-measure"), strict=True))
_SEAL = re.compile(r"\n<!-- Written by hubmodels, ([0-9a-f]{16})\. Once it is edited, this text is kept\. -->\n$")

LABEL_NOTES = {
    "fashion": (
        "Coats, jackets, suits, cardigans, scarves and bags are background, tights and leggings count as pants, "
        "shirts, blouses and tops as t-shirt, skirts as dress. Small accessories vanish in what surrounds them."
    ),
    "person": "What a person wears and carries counts as person. There is one label for all people in a photo.",
}


def entry_card(entry: Entry, *, repo: str) -> str:
    """The card of a published model; it ends with a seal, for `is_generated`.

    Args:
        entry: a row with weights.
        repo: the repository that the card is for, as its snippets name it.

    Raises:
        ValueError: the row has no weights, so there is nothing to publish.
    """
    if not entry.is_trained:
        raise ValueError(f"{entry.name} has no weights of ours; there is no card for it")
    parts = [
        f"# {entry.name}",
        f"{entry.title}.",
        f"![A photo, and the labels that {entry.name} gives it]({PICTURE})" if entry.is_network else "",
        _snippets(entry, repo) if entry.is_network else _regions_snippet(entry),
        "## Labels",
        _label_table(entry.labels, entry.metrics.get("iou", {})),
        LABEL_NOTES.get(entry.task, ""),
        "## Scores",
        _scores(entry),
        "## Intended use",
        _intended(entry.task),
        "## Limits and bias",
        _limits(entry),
        "## Training",
        f"It was {entry.data}. The last command of its training, in a clone of hubmodels: `{entry.recipe}`. What has "
        "to be run before it is said at the top of the recipes, and in training/EXPERIMENTS.md.",
        f"Architecture: {entry.paper}.",
        f"{entry.parameters:,} learned values in {entry.size_bytes:,} bytes of safetensors, sha256 `{entry.sha256}`.",
        "## Licence",
        f"{entry.license} for code and weights. The training photos are research data with terms of their own: check "
        "whether your use of models trained on them is covered.",
    ]
    front = _front_matter(entry.name, entry.license, _results(entry))
    return _sealed(front + "\n\n".join(filter(None, parts)) + "\n")


def model_card(
    config: ModelConfig,
    *,
    license: str = "",
    data: str = "",
    limits: str = "",
    metrics: Mapping[str, Any] | str | Path | None = None,
) -> str:
    """The card of a model that somebody trained, with what they say of it; it ends with a seal, for `is_generated`.

    Args:
        config: the model.
        license: of the weights, as the Hub spells it, such as "apache-2.0".
        data: what it was trained on.
        limits: what the labels mean and where the model fails.
        metrics: its scores, or a file with them, as of `hubmodels.card_scores.read_scores`.

    Raises:
        ValueError: scores that cannot be, or a licence of several lines.
        OSError: the file of scores cannot be read.
    """
    if not license.isprintable():
        raise ValueError(f'license must be a name as the Hub spells it, such as "apache-2.0"; got {license!r:.100}')
    scores = {} if metrics is None else read_scores(metrics, config.labels)
    parts = [
        f"# {config.name}",
        f"A {config.arch} network that labels every pixel of a photo with one of {len(config.labels)} labels.",
        "```python\nimport hubmodels\n\n"
        'model = hubmodels.load("user/name")        # this repository, or a folder with its files\n'
        'seg = model.predict("photo.jpg")\nseg.overlay().save("overlay.jpg")\n```',
        "## Labels",
        _label_table(config.labels, scores.get("iou", {})),
        "## Scores",
        _own_scores(scores) if scores else "Not measured.",
        "## Limits and bias",
        limits or "Not described. Say here what the labels mean, and for which photos the model was never tried.",
        "## Training",
        f"Trained on {data}." if data else "Not described. Say here what it was trained on, and under which terms.",
        "## Licence",
        f"{license}." if license else "Not stated. Say here under which terms others may use the weights.",
    ]
    results = _own_results(config.labels, scores) if scores else []
    return _sealed(_front_matter(config.name, license, results) + "\n\n".join(parts) + "\n")


def is_generated(card: bytes) -> bool:
    """Whether a card is as `model_card` or `entry_card` wrote it; a new one replaces it, edited ones are kept."""
    text = card.decode("utf-8", errors="replace")
    seal = _SEAL.search(text)
    return seal is not None and _digest(text[: seal.start()]) == seal[1]


def _sealed(text: str) -> str:
    return f"{text}\n<!-- Written by hubmodels, {_digest(text)}. Once it is edited, this text is kept. -->\n"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _front_matter(name: str, license: str, results: list[EvalResult]) -> str:
    data = ModelCardData(
        model_name=name,
        license=license.lower() or None,
        library_name="hubmodels",
        pipeline_tag="image-segmentation",
        tags=list(TAGS),
        eval_results=results or None,
    )
    return f"---\n{data.to_yaml()}\n---\n\n"


def _results(entry: Entry) -> list[EvalResult]:
    """The rows of model-index; none for a model that was exported and not yet measured."""
    if not entry.metrics:
        return []
    facts = {
        "dataset_type": "fashionista",
        "dataset_name": f"{DATASET}, public half of the test split, {entry.metrics['images']} photos",
        "dataset_split": entry.metrics.get("data", "").removeprefix(f"{DATASET} ").removesuffix(" split"),
    }
    return _eval_results(entry.labels, entry.metrics, facts)


def _own_results(labels: LabelSet, scores: Mapping[str, Any]) -> list[EvalResult]:
    slug = re.sub(r"[^a-z0-9]+", "-", scores["data"].lower()).strip("-")[:64]
    return _eval_results(labels, scores, {"dataset_type": slug or "custom", "dataset_name": _photos(scores)})


def _eval_results(labels: LabelSet, scores: Mapping[str, Any], facts: Mapping[str, Any]) -> list[EvalResult]:
    values = {name: scores[key] for key, name in SCORE_NAMES.items() if key in scores}
    iou = scores.get("iou", {})
    values |= {f"IoU of {label}": iou[label] for label in labels.names if label in iou}
    return [
        EvalResult(
            task_type="image-segmentation",
            metric_type=name.lower().replace(" ", "_").replace("-", "_"),
            metric_name=name,
            metric_value=round(100 * value, 2),
            **facts,
        )
        for name, value in values.items()
    ]


def _own_scores(scores: Mapping[str, Any]) -> str:
    within = f" Boundaries agree within {scores['boundary_px']} pixels." if "boundary_px" in scores else ""
    return f"{_score_table(scores)}\n\nMeasured on: {_photos(scores)}.{within}"


def _photos(scores: Mapping[str, Any]) -> str:
    return f"{scores['data']}, {scores['images']} photos" if "images" in scores else scores["data"]


def _snippets(entry: Entry, repo: str) -> str:
    where = "its weights are in a git clone, not in the wheel" if entry.large else "its weights are in the package"
    return f"""## Use

With the package, by the name of the model ({where}) or of this repository:

```python
import hubmodels

model = hubmodels.load("{entry.name}")
model = hubmodels.load("{repo}")  # revision="<commit>" pins it
seg = model.predict("photo.jpg")  # path, bytes, PIL image or (H, W, 3) uint8 array
seg.labels, seg.areas()  # (H, W) uint8 label ids; share of pixels per label
seg.overlay().save("overlay.jpg")
```

From torch.hub, with a clone of the project:

```python
import torch

model = torch.hub.load("path/to/a/clone", "{entry.name}", source="local")
logits = model(torch.rand(1, 3, 600, 400))  # float RGB in 0..1 -> (1, {len(entry.labels)}, 600, 400)
```

By its class, as other libraries on the Hub do, from this repository or a folder with its files:

```python
from hubmodels import Segmenter

model = Segmenter.from_pretrained("{repo}")
```"""


def _regions_snippet(entry: Entry) -> str:
    return f"""## Use

It is no network: it decides on each superpixel of a network's answer.

```python
import hubmodels

settings = hubmodels.Refinement(superpixel_scale=60, vote="classifier")
seg = hubmodels.load("deeplabv3plus_{entry.task}").predict("photo.jpg", refinement=settings)
```"""


def _label_table(labels: LabelSet, iou: dict[str, float]) -> str:
    rows = []
    for index, (name, colour) in enumerate(zip(labels.names, labels.palette, strict=True)):
        text = name.replace("\\", r"\\").replace("|", r"\|").replace("<", "&lt;")  # a name is no markup
        score = f"{100 * iou[name]:.1f}" if name in iou else "-"
        rows.append((str(index), text, hex_colour(colour), *([score] if iou else [])))
    return markdown(("id", "label", "colour", *(["IoU"] if iou else [])), rows)


def _scores(entry: Entry) -> str:
    m = entry.metrics
    if not m:
        return "Not measured yet."
    return (
        f"{_score_table(m)}\n\n{m['data']}, the {m['images']} photos of its public half, of 600x400 pixels; one pass "
        "per photo, no post-processing. Mean IoU is the mean over labels of the IoU of the confusion matrix summed "
        "over all photos; "
        f"boundary F is the mean over photos of the F-measure of label boundaries within {m['boundary_px']} pixels. "
        "No choice was made on these photos."
    )


def _score_table(scores: Mapping[str, Any]) -> str:
    rows = [(name, f"{100 * scores[key]:.2f}") for key, name in SCORE_NAMES.items() if key in scores]
    return markdown(("score", "value"), rows) if rows else "IoU by label: see above."


def _intended(task: str) -> str:
    what = {"person": "the person in a photo", "fashion": "skin, hair and clothing in photos of a person"}[task]
    return (
        f"Labelling {what} at full length, for catalogues, cut-outs and research. It is not meant to tell people "
        "apart, to guess who or what they are, to watch people, or for decisions about them."
    )


def _limits(entry: Entry) -> str:
    return (
        "The training photos were labelled superpixel by superpixel, so their edges are rough and some labels are "
        "wrong; scores above count those errors too.\n\n"
        "The photos show people at full length, one to a photo, from fashion sites. Who is in them was not counted: "
        "not by gender, age, skin colour, body or country. So nobody knows for whom the model works less well, and it "
        "may well do so for people and clothing that fashion sites show seldom. Close-ups, groups, children, other "
        "clothing and other cameras are outside of what was measured."
        + (" Try it on photos like yours before relying on it." if entry.is_network else "")
    )
