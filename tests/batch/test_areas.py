"""`hubmodels areas`: a table of which share of each photo its labels take."""

from __future__ import annotations

import csv
import os
import sys

import numpy as np
import pytest
from PIL import Image

from hubmodels import FASHION
from hubmodels.areas_table import areas_csv
from hubmodels.cli import main
from hubmodels.labelled_photos import LabelledPhoto
from tests.conftest import grid


@pytest.fixture
def areas(tmp_path, capsys):
    """`hubmodels areas` -> status, stdout, stderr; what it writes is areas.csv in tmp_path."""

    def call(*arguments):
        status = main(["areas", *map(str, arguments), "--out", str(tmp_path / "areas.csv")])
        return status, *capsys.readouterr()

    return call


def draw(folder, name, labels):
    for part, pixels in (("photos", np.full((*labels.shape, 3), 90, np.uint8)), ("masks", labels.astype(np.uint8))):
        (folder / part / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / part / f"{name}.png")


def rows(path):
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.reader(file))


def test_shares_by_hand():
    photos = [LabelledPhoto("a,b.jpg", grid("0061", "0661")), LabelledPhoto('"é".png', np.full((1, 3), 255, np.uint8))]
    assert areas_csv(photos, FASHION) == (
        "photo,width,height,background,skin,hair,t-shirt,shoes,pants,dress\n"
        '"a,b.jpg",4,2,0.375000,0.250000,0.000000,0.000000,0.000000,0.000000,0.375000\n'
        '"""é"".png",3,1,0.000000,0.000000,0.000000,0.000000,0.000000,0.000000,0.000000\n'
    )


def test_what_was_labelled_has_the_areas_of_its_results(areas, tmp_path, fashion, astronaut, capsys):
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    photo = Image.fromarray(astronaut[:256, :200])
    for name, orientation in (("a.png", 1), ("deep/b.png", 6)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        photo.save(tmp_path / "photos" / name, exif=exif)
    assert main(["label", str(tmp_path / "photos"), "--out", str(tmp_path / "out"), "--task", "fashion"]) == 0
    capsys.readouterr()
    status, out, _ = areas(tmp_path / "photos", "--masks", tmp_path / "out")
    assert status == 0 and out == f"2 photos, shares of fashion, {tmp_path / 'areas.csv'}\n"
    head, *found = rows(tmp_path / "areas.csv")
    assert head == ["photo", "width", "height", *FASHION.names]
    assert [row[:3] for row in found] == [["a.png", "200", "256"], ["deep/b.png", "256", "200"]]
    for row in found:
        mask = tmp_path / "out" / row[0].replace(".png", "_mask.png")
        ids = np.asarray(Image.open(mask))
        expected = [(ids == index).mean() for index in range(len(FASHION))]
        assert np.abs(np.array(row[3:], float) - expected).max() < 1e-6
        assert sum(map(float, row[3:])) == pytest.approx(1, abs=1e-5)


def test_what_cannot_be_used_is_named_and_the_rest_is_written(areas, tmp_path):
    for name in ("a", "b", "c"):
        draw(tmp_path, name, grid("0011", "0111"))
    (tmp_path / "photos" / "b.png").write_bytes(b"no photo")
    status, out, err = areas(tmp_path / "photos", "--masks", tmp_path / "masks", "--task", "person")
    assert status == 1 and out.startswith("2 photos, shares of person") and "photos/b.png: not an image" in err
    assert [row[0] for row in rows(tmp_path / "areas.csv")] == ["photo", "a.png", "c.png"]


def test_a_photo_in_the_place_of_the_table_is_not_replaced(tmp_path, capsys):
    draw(tmp_path, "a", grid("01"))
    photo = tmp_path / "photos" / "a.png"
    before = photo.read_bytes()
    call = ["areas", photo, "--masks", tmp_path / "masks", "--task", "person", "--out", photo]
    assert main([*map(str, call)]) == 2 and "expected a name that ends in .csv" in capsys.readouterr().err
    assert photo.read_bytes() == before


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text there")
def test_names_that_are_no_text_keep_their_bytes(areas, tmp_path):
    draw(tmp_path, "a", grid("01"))
    for part in ("photos", "masks"):
        (tmp_path / part / "a.png").rename(tmp_path / part / os.fsdecode(b"\xe9.png"))
    assert areas(tmp_path / "photos", "--masks", tmp_path / "masks", "--task", "person")[0] == 0
    assert b"\n\xe9.png,2,1,0.500000,0.500000\n" in (tmp_path / "areas.csv").read_bytes()
