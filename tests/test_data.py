"""Readers of the data layout, on a drawn data set; what is wrong names the file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from hubmodels.labels import FASHION
from hubmodels.metrics import IGNORE
from training.data import load_ccp, load_fashionista, load_sources
from training.errors import DataError
from training.tags import TO_FASHION, read_tags, tag_table


def test_a_split_is_read_with_the_labels_of_the_tasks_asked_for(drawn):
    samples = load_fashionista(drawn, "train", ["fashion", "person"])
    assert [s.name for s in samples] == ["fashionista/0001", "fashionista/0002", "fashionista/0003"]
    for sample in samples:
        assert sample.image.shape == (64, 48, 3) and set(sample.labels) == {"fashion", "person"}
        assert_array_equal(sample.labels["fashion"] > 0, sample.labels["person"])


def test_pixels_may_be_undecided(drawn):
    path = drawn / "fashionista/labels_fashion/0002.png"
    ids = np.array(Image.open(path))
    ids[:5] = IGNORE
    Image.fromarray(ids).save(path)
    assert_array_equal(load_fashionista(drawn, "train", ["fashion"])[1].labels["fashion"], ids)


def test_ccp_tags_become_labels_and_photos_one_width(drawn):
    sample = load_ccp(drawn, ["fashion", "person"], width_px=24)[3]  # drawn with tag 5: boots
    assert sample.image.shape == (32, 24, 3)
    assert set(np.unique(sample.labels["fashion"])) == {0, FASHION.id_of("shoes")}
    assert set(np.unique(sample.labels["person"])) == {0, 1}


def test_the_tag_mapping():
    tags = ["null", "sweater", "bag", "shirt", "coat"]
    assert_array_equal(tag_table(tags, "fashion")[:6], [0, IGNORE, 0, 3, 0, IGNORE])
    assert_array_equal(tag_table(tags, "person")[:6], [0, 1, 1, 1, 1, IGNORE])
    assert set(TO_FASHION.values()) == set(FASHION.names)
    with pytest.raises(ValueError, match="no tag mapping"):
        tag_table(tags, "pets")


def test_every_mapped_tag_exists(data_root):
    assert set(TO_FASHION) <= set(read_tags(data_root / "ccp" / "tags.json"))


def test_sources_are_joined_by_name(drawn):
    assert len(load_sources(drawn, ["fashionista", "ccp"], ["person"])) == 3 + 4
    with pytest.raises(ValueError, match="unknown data source 'coco'"):
        load_sources(drawn, ["coco"], ["person"])


def test_a_limit_takes_the_first_photos_of_every_source(drawn):
    (drawn / "ccp/images").rename(drawn / "ccp/unlabelled")
    shutil.copytree(drawn / "ccp/unlabelled", drawn / "ccp/images")
    sources = ["ccp_unlabelled", "fashionista", "ccp"]
    found = [sample.name for sample in load_sources(drawn, sources, ["person"], limit=2)]
    assert found == [f"{source}/{number}" for source in sources for number in ("0001", "0002")]


def spoil_byte(path: Path, at: int) -> None:
    """Change one byte: of a PNG, the 12th to 16th name its first chunk, and the 17th to 24th are width and height."""
    data = bytearray(path.read_bytes())
    data[at] ^= 0x40
    path.write_bytes(data)


@pytest.mark.parametrize(
    "spoil, file",
    [
        (lambda root: (root / "fashionista/labels_fashion/0002.png").unlink(), "labels_fashion/0002.png: missing"),
        (lambda root: (root / "fashionista/images/0002.jpg").unlink(), "images/0002.jpg: missing"),
        (lambda root: (root / "fashionista/images/0002.jpg").write_bytes(b"x"), "images/0002.jpg: cannot be decoded"),
        (lambda root: spoil_byte(root / "fashionista/labels_fashion/0002.png", 15), "0002.png: cannot be decoded"),
        (lambda root: spoil_byte(root / "fashionista/labels_fashion/0002.png", 19), "0002.png: cannot be decoded"),
        (
            lambda root: Image.new("L", (48, 64), 7).save(root / "fashionista/labels_fashion/0002.png"),
            "labels_fashion/0002.png: label id 7 is out of range",
        ),
        (
            lambda root: Image.new("L", (48, 63)).save(root / "fashionista/labels_fashion/0002.png"),
            "labels_fashion/0002.png: labels are",
        ),
        (
            lambda root: Image.new("RGB", (48, 64)).save(root / "fashionista/labels_fashion/0002.png"),
            "labels_fashion/0002.png: expected an 8-bit PNG",
        ),
        (lambda root: (root / "fashionista/splits.json").unlink(), "splits.json: missing"),
        (
            lambda root: (root / "fashionista/splits.json").write_text('{"train": []}'),
            "splits.json: split 'train' is empty",
        ),
        (lambda root: (root / "fashionista/splits.json").write_text('{"val": [1]}'), "no split 'train'"),
        (
            lambda root: (root / "fashionista/splits.json").write_text("{"),
            "splits.json: expected a JSON file .* Expecting",
        ),
        (lambda root: (root / "fashionista/splits.json").write_text(9_999 * "["), "splits.json: expected a JSON file"),
        (lambda root: (root / "fashionista/splits.json").write_bytes(b"\xff"), "splits.json: expected a JSON file"),
        (lambda root: (root / "fashionista/splits.json").write_text("[1]"), "the lists train, val, test; got list"),
        (
            lambda root: (root / "fashionista/splits.json").write_text('{"train": ["0001"]}'),
            r"expected photo numbers in train, like \[1, 2\]; got \['0001'\]",
        ),
        (
            lambda root: (root / "fashionista/splits.json").write_text('{"train": 5}'),
            r"expected photo numbers in train, like \[1, 2\]; got 5",
        ),
    ],
)
def test_a_fault_in_fashionista_names_the_file(drawn, spoil, file):
    spoil(drawn)
    with pytest.raises(DataError, match=file):
        load_fashionista(drawn, "train", ["fashion"])


def into_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "spoil, file",
    [
        (lambda root: (root / "ccp/tags.json").unlink(), "tags.json: missing"),
        (lambda root: (root / "ccp/tags.json").write_text("[1"), "tags.json: expected a JSON file"),
        (
            lambda root: (root / "ccp/tags.json").write_bytes('["café"]'.encode("latin-1")),
            "tags.json: expected a JSON file",
        ),
        (lambda root: into_a_folder(root / "ccp/tags.json"), r"tags.json: .* cannot be read \(Is a directory\)"),
        (lambda root: (root / "ccp/tags.json").write_text("{}"), "tags.json: expected a JSON list"),
        (
            lambda root: Image.new("L", (48, 64), 7).save(root / "ccp/labels_tags/0002.png"),
            "0002.png: tag id 7 is out of range; tags.json names 7 tags",
        ),
        (lambda root: [p.unlink() for p in (root / "ccp/images").iterdir()], "images: no photos"),
    ],
)
def test_a_fault_in_ccp_names_the_file(drawn, spoil, file):
    spoil(drawn)
    with pytest.raises(DataError, match=file):
        load_ccp(drawn, ["fashion"])


def test_no_test_photo_is_ever_trained_on(data_root):
    splits = json.loads((data_root / "fashionista" / "splits.json").read_text())
    for other in ("train", "val"):
        assert not set(splits["test"]) & set(splits[other])
    assert len(splits["test"]) == 120
