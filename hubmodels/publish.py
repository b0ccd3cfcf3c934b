"""Republish a model of ENTRIES on the Hugging Face Hub, with the very bytes of its weights."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from hubmodels import remote
from hubmodels.cards import PICTURE, entry_card, is_generated
from hubmodels.config import CONFIG, REGIONS, WEIGHTS, config_of
from hubmodels.entries import Entry, find_entry
from hubmodels.export import save_image
from hubmodels.files import write_bytes
from hubmodels.hub import load_model, weights_path
from hubmodels.model_upload import CARD, upload_model
from hubmodels.weights_files import read_verified

GAP_PX = 8


def write_repository(entry: Entry, repo: str, folder: Path) -> list[Path]:
    """The files of a repository for a published model: weights, perhaps a region classifier, config, card and picture.

    Args:
        entry: a network with weights.
        repo: "user/name", for the card's snippets.
        folder: where they go, made if it is missing; a repository that this wrote earlier is replaced.

    Returns:
        Their paths.

    Raises:
        ValueError: the row is no network, or has no weights; or a file would replace one that this did not write.
        WeightsError: the weights are missing or not those of the row, or no repository can have this name.
    """
    remote.check_name(repo)
    if not entry.is_network:
        raise ValueError(f"{entry.name} is part of the package only; publish the network that it decides for")
    card = entry_card(entry, repo=repo)
    config = config_of(entry)
    files = {WEIGHTS: read_verified(entry, weights_path(entry))}
    regions = find_entry(entry.regions) if entry.regions else None
    if regions is not None:
        files[REGIONS] = read_verified(regions, weights_path(regions))
    text = config.to_json(weights_sha256=entry.sha256, regions_sha256=regions.sha256 if regions else None)
    files |= {CONFIG: text.encode(), CARD: card.encode()}
    _check_free(folder, [*files, PICTURE])
    written = [write_bytes(data, folder / name) for name, data in files.items()]
    return [*written, save_image(example_picture(entry), folder / PICTURE, quality=88)]


def _check_free(folder: Path, names: list[str]) -> None:
    """Raise ValueError if files would be replaced that lie beside no card of ours, or one that somebody edited."""
    there = [name for name in names if (folder / name).exists()]
    card = folder / CARD
    if there and not (card.is_file() and is_generated(card.read_bytes())):
        raise ValueError(
            f"{folder} holds {', '.join(there)}, which would be lost, as no card of hubmodels lies there unedited; "
            "choose another folder"
        )


def example_picture(entry: Entry) -> Image.Image:
    """A public-domain portrait beside the labels that the model gives it."""
    from skimage import data  # the photo comes with scikit-image

    photo: np.ndarray = data.astronaut()
    overlay = load_model(entry.name).predict(photo).overlay().convert("RGB")
    sheet = Image.new("RGB", (2 * overlay.width + GAP_PX, overlay.height), "white")
    sheet.paste(Image.fromarray(photo), (0, 0))
    sheet.paste(overlay, (overlay.width + GAP_PX, 0))
    return sheet


def publish(entry: Entry, repo: str, *, private: bool | None = None) -> str:
    """Commit a published model to a repository of the Hub, made if there is none; returns the commit's address.

    A card that the repository has already is kept, with a warning, if somebody edited it.

    Raises:
        ValueError: the row is no network, or has no weights.
        WeightsError: the weights are missing or damaged; or offline, not allowed, no connection.
    """
    remote.check_sending(repo)
    with tempfile.TemporaryDirectory() as folder:
        files = [path.name for path in write_repository(entry, repo, Path(folder))]
        message = f"{entry.name} of hubmodels"
        return upload_model(Path(folder), files, repo, ["scores"], commit_message=message, private=private)
