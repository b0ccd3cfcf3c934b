"""Originals built back from drawings and from shared photos come out as the shared data; faults name file and fix."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import numpy as np
import pytest
import scipy.io
from numpy.testing import assert_array_equal
from PIL import Image

from hubmodels.errors import OutputError
from hubmodels.labels import FASHION
from tests.conftest import ROOT
from tests.folders import names
from training.data import load_ccp, load_fashionista
from training.errors import DataError
from training.import_data import FASHIONISTA_SIZE, LAYOUT, import_ccp, import_fashionista, main, read_splits
from training.originals import VOC_COLOURS, clothes_ids, person_ids, read_photo

SPLITS = {"train": [1, 2], "val": [5], "test": [8]}  # as the shipped models have these four photos
TAGS = json.loads((LAYOUT / "ccp_tags.json").read_text())


def voc_png(ids: np.ndarray) -> Image.Image:
    """Mode P with Pascal VOC's palette, as the originals are."""
    picture = Image.frombytes("P", ids.shape[::-1], ids.tobytes())
    picture.putpalette([channel for colour in VOC_COLOURS for channel in colour])
    return picture


def jpeg(image: np.ndarray, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def drawing(number: int, size=FASHIONISTA_SIZE, ids: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """A photo and labels of a few rectangles."""
    rng = np.random.default_rng(number)
    labels = np.zeros((size[1], size[0]), np.uint8)
    for _ in range(6):
        top, left = rng.integers(0, size[1] - 100), rng.integers(0, size[0] - 100)
        labels[top : top + 90, left : left + 70] = rng.integers(0, ids)
    colours = rng.integers(0, 256, (ids, 3), dtype=np.uint8)
    return colours[labels], labels


def write_fashionista(src, number, image: bytes, fashion, person) -> None:
    for folder in ("images", "labels"):
        (src / folder).mkdir(parents=True, exist_ok=True)
    (src / "images" / f"{number:04d}.jpg").write_bytes(image)
    fashion.save(src / "labels" / f"{number:04d}_clothes.png")
    person.save(src / "labels" / f"{number:04d}_person.png")


def write_ccp(src, number, image: bytes, tags=None, **options) -> None:
    for folder in ("photos", "annotations/pixel-level"):
        (src / folder).mkdir(parents=True, exist_ok=True)
    (src / "photos" / f"{number:04d}.jpg").write_bytes(image)
    if tags is not None:
        scipy.io.savemat(src / "annotations/pixel-level" / f"{number:04d}.mat", {"groundtruth": tags}, **options)


@pytest.fixture
def fashionista(tmp_path):
    """Four drawn originals, and a fifth that no split names."""
    src = tmp_path / "fashionista-download"
    for number in (1, 2, 3, 5, 8):
        image, labels = drawing(number)
        write_fashionista(src, number, jpeg(image), voc_png(labels), Image.fromarray((labels > 0).astype(np.uint8)))
    (src / "splits.json").write_text(json.dumps(SPLITS))
    return src


@pytest.fixture
def ccp(tmp_path):
    """Two labelled photos, one without annotation, one that is left out, and the list of tags."""
    src = tmp_path / "ccp-download"
    for number in (1, 2, 3):
        image, labels = drawing(number, size=(550, 600), ids=59)
        write_ccp(src, number, jpeg(image), labels)
    write_ccp(src, 1005, jpeg(drawing(4, size=(550, 610))[0]))
    cells = np.empty((1, len(TAGS)), object)
    cells[0] = TAGS
    scipy.io.savemat(src / "label_list.mat", {"label_list": cells})
    return src


def test_fashionista_becomes_what_training_reads(fashionista, tmp_path):
    counts = import_fashionista(fashionista, tmp_path / "data", splits=fashionista / "splits.json")
    assert counts == {"train": 2, "val": 1, "test": 1, "left out": 1}
    kinds = {"images": "jpg", "labels_fashion": "png", "labels_person": "png"}
    expected = [f"{kind}/{number:04d}.{suffix}" for kind, suffix in kinds.items() for number in (1, 2, 5, 8)]
    assert names(tmp_path / "data/fashionista") == sorted([*expected, "classes.json", "splits.json"])
    for split, numbers in SPLITS.items():
        samples = load_fashionista(tmp_path / "data", split, ["fashion", "person"])
        assert [sample.name for sample in samples] == [f"fashionista/{number:04d}" for number in numbers]
        for number, sample in zip(numbers, samples, strict=True):
            assert_array_equal(sample.labels["fashion"], drawing(number)[1])
            assert_array_equal(sample.labels["person"], drawing(number)[1] > 0)
    assert json.loads((tmp_path / "data/fashionista/classes.json").read_text()) == list(FASHION.names)


def test_ccp_becomes_what_training_reads(ccp, tmp_path):
    assert import_ccp(ccp, tmp_path / "data") == {"labelled": 2, "unlabelled": 1, "left out": 1}
    expected = ["images/0001.jpg", "images/0002.jpg", "labels_tags/0001.png", "labels_tags/0002.png", "tags.json"]
    assert names(tmp_path / "data/ccp") == [*expected, "unlabelled/1005.jpg"]
    assert len(load_ccp(tmp_path / "data", ["fashion"])) == 2
    for number in (1, 2):
        with Image.open(tmp_path / f"data/ccp/labels_tags/{number:04d}.png") as picture:
            assert picture.mode == "L"
            assert_array_equal(np.array(picture), drawing(number, size=(550, 600), ids=59)[1])


def test_shared_photos_built_back_and_imported_are_the_shared_ones(data_root, tmp_path):
    shared, src = data_root / "fashionista", tmp_path / "originals"
    whole = json.loads((shared / "splits.json").read_text())
    splits = {split: numbers[:2] for split, numbers in whole.items()}
    for index, number in enumerate([number for numbers in splits.values() for number in numbers]):
        with Image.open(shared / f"labels_fashion/{number:04d}.png") as picture:
            fashion = voc_png(np.array(picture))
        if index % 2:
            fashion = fashion.convert("RGBA")
        with Image.open(shared / f"labels_person/{number:04d}.png") as picture:
            person = Image.fromarray(np.array(picture) * np.uint8(255 if index % 2 else 1))
        write_fashionista(src, number, (shared / f"images/{number:04d}.jpg").read_bytes(), fashion, person)
    (tmp_path / "splits.json").write_text(json.dumps(splits))
    import_fashionista(src, tmp_path / "data", splits=tmp_path / "splits.json")
    assert_same_files(tmp_path / "data/fashionista", shared, photos=6 * 3, but="splits.json")


def test_shared_ccp_photos_built_back_and_imported_are_the_shared_ones(data_root, tmp_path):
    shared, src = data_root / "ccp", tmp_path / "originals"
    dtypes = {1: np.uint8, 2: np.float64, 4: np.int32, 1004: np.uint8}
    for number, dtype in dtypes.items():
        with Image.open(shared / f"labels_tags/{number:04d}.png") as picture:
            tags = np.array(picture).astype(dtype)
        photo = (shared / f"images/{number:04d}.jpg").read_bytes()
        write_ccp(src, number, photo, tags, do_compression=number != 4)
    for number in (1005, 2098):
        write_ccp(src, number, (shared / f"unlabelled/{number}.jpg").read_bytes())
    counts = import_ccp(src, tmp_path / "data")
    assert counts == {"labelled": len(dtypes), "unlabelled": 2, "left out": 0}
    assert_same_files(tmp_path / "data/ccp", shared, photos=2 * len(dtypes) + 2)


def assert_same_files(folder, shared, *, photos: int, but: str = "") -> None:
    """Photos and lists byte for byte; labels in mode and pixels, since a PNG may be packed in more than one way."""
    found = names(folder)
    assert len([name for name in found if not name.endswith(".json")]) == photos
    for name in set(found) - {but}:
        if name.endswith(".png"):
            with Image.open(folder / name) as ours, Image.open(shared / name) as theirs:
                assert ours.mode == theirs.mode
                assert_array_equal(np.array(ours), np.array(theirs))
        else:
            assert (folder / name).read_bytes() == (shared / name).read_bytes(), name


def test_splits_tags_and_left_out_photos_are_those_of_the_shared_data(data_root):
    splits, tags = data_root / "fashionista/splits.json", data_root / "ccp/tags.json"
    assert (LAYOUT / "fashionista_splits.json").read_bytes() == splits.read_bytes()
    assert (LAYOUT / "ccp_tags.json").read_bytes() == tags.read_bytes()
    have = {int(path.stem) for kind in ("images", "unlabelled") for path in (data_root / "ccp" / kind).glob("*.jpg")}
    assert json.loads((LAYOUT / "ccp_left_out.json").read_text()) == sorted(set(range(1, 2099)) - have)


def test_every_shared_photo_has_the_form_that_is_written(data_root, tmp_path):
    """Evidence for the rule of copying: no shared photo of a sample would be encoded anew."""
    for folder in ("fashionista/images", "ccp/images", "ccp/unlabelled"):
        for path in sorted((data_root / folder).glob("*.jpg"))[::150]:
            assert read_photo(path)[0] == path.read_bytes()


@pytest.mark.parametrize(
    "options", [{"quality": 90}, {"quality": 75, "subsampling": 0}, {"quality": 75, "comment": b"from a camera"}]
)
def test_a_photo_in_another_form_is_encoded_in_the_shared_one(tmp_path, options):
    image = drawing(1)[0]
    (tmp_path / "0001.jpg").write_bytes(jpeg(image, **options))
    with Image.open(tmp_path / "0001.jpg") as picture:
        expected = jpeg(np.array(picture), quality=75)
    assert read_photo(tmp_path / "0001.jpg") == (expected, FASHIONISTA_SIZE)
    (tmp_path / "again.jpg").write_bytes(expected)
    assert read_photo(tmp_path / "again.jpg")[0] == expected  # and then it is copied


def test_orientation_and_metadata_are_dropped_and_pixels_stay_with_their_labels(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray(drawing(1)[0]).save(tmp_path / "0001.jpg", exif=exif)
    data, size = read_photo(tmp_path / "0001.jpg")
    assert size == FASHIONISTA_SIZE
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.size == FASHIONISTA_SIZE and not picture.getexif()


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA"])
def test_clothes_may_be_ids_or_colours(tmp_path, mode):
    ids = drawing(1)[1]
    (Image.fromarray(ids) if mode == "L" else voc_png(ids).convert(mode)).save(tmp_path / "label.png")
    assert_array_equal(clothes_ids(tmp_path / "label.png", FASHIONISTA_SIZE), ids)


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA"])
def test_a_person_may_be_white_in_any_kind_of_picture(tmp_path, mode):
    ids = (drawing(1)[1] > 0).astype(np.uint8)
    Image.fromarray(ids * np.uint8(255)).convert(mode).save(tmp_path / "label.png")
    assert_array_equal(person_ids(tmp_path / "label.png", FASHIONISTA_SIZE), ids)


def test_a_second_run_repairs_and_changes_nothing_else(fashionista, tmp_path):
    def run():
        import_fashionista(fashionista, tmp_path / "data", splits=fashionista / "splits.json")
        return {name: (tmp_path / "data" / name).read_bytes() for name in names(tmp_path / "data")}

    first = run()
    (tmp_path / "data/fashionista/images/0002.jpg").write_bytes(b"half a pho")
    (tmp_path / "data/fashionista/labels_person/0005.png").unlink()
    assert run() == first


def test_an_annotation_that_comes_later_moves_its_photo(ccp, tmp_path):
    annotation = ccp / "annotations/pixel-level/0002.mat"
    later = annotation.read_bytes()
    annotation.unlink()
    import_ccp(ccp, tmp_path / "data")
    assert "unlabelled/0002.jpg" in names(tmp_path / "data/ccp")
    annotation.write_bytes(later)
    import_ccp(ccp, tmp_path / "data")
    assert [name for name in names(tmp_path / "data/ccp") if "0002" in name] == [
        "images/0002.jpg",
        "labels_tags/0002.png",
    ]


def test_a_stopped_import_leaves_no_half_file_and_no_splits(fashionista, tmp_path):
    damaged = fashionista / "images/0005.jpg"
    damaged.write_bytes(damaged.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"0005\.jpg: expected a JPEG"):
        import_fashionista(fashionista, tmp_path / "data", splits=fashionista / "splits.json")
    left = names(tmp_path / "data/fashionista")
    assert "images/0002.jpg" in left and "splits.json" not in left and not [name for name in left if "tmp" in name]


def save(picture, path):
    picture.save(path)


def lossy(path):
    """A label picture after a detour through JPEG: between two labels are now colours of neither."""
    with Image.open(path) as picture:
        Image.open(io.BytesIO(jpeg(np.array(picture.convert("RGB"))))).save(path)


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda s: (s / "images/0002.jpg").unlink(), r"0002\.jpg: expected original files; got none: complete"),
        (lambda s: [p.unlink() for p in (s / "labels").iterdir()], r"0001_clothes\.png and 7 more: expected original"),
        (lambda s: (s / "images/0002.jpg").write_bytes(b"<html>"), r"0002\.jpg: expected a JPEG; got"),
        (lambda s: save(Image.new("RGB", (600, 400)), s / "images/0002.jpg"), "expected 400x600 pixels; got 600x400"),
        (lambda s: (s / "labels/0002_person.png").write_bytes(b"x"), r"0002_person\.png: expected a PNG; got"),
        (
            lambda s: save(Image.new("L", (400, 599)), s / "labels/0002_clothes.png"),
            r"0002_clothes\.png: expected 400x600 pixels as in the photo; got 400x599: get both files again",
        ),
        (
            lambda s: save(Image.new("L", (400, 600), 7), s / "labels/0002_clothes.png"),
            r"0002_clothes\.png: expected label ids 0\.\.6; got 7: is it",
        ),
        (
            lambda s: lossy(s / "labels/0002_clothes.png"),
            r"0002_clothes\.png: expected the colours of background, skin",
        ),
        (
            lambda s: save(Image.new("I;16", (400, 600)), s / "labels/0002_clothes.png"),
            r"0002_clothes\.png: expected a grey, indexed or RGB PNG; got mode I;16",
        ),
        (
            lambda s: save(voc_png(drawing(2)[1]), s / "labels/0002_person.png"),
            r"0002_person\.png: expected 0 for background and one other value for person; got the values 0, 1, ",
        ),
        (
            lambda s: save(voc_png(drawing(2)[1]).convert("RGB"), s / "labels/0002_person.png"),
            r"0002_person\.png: expected 0 for background and one other value for person; got colours",
        ),
    ],
)
def test_a_fault_in_fashionista_names_the_file_and_the_fix(fashionista, tmp_path, spoil, message):
    spoil(fashionista)
    with pytest.raises(DataError, match=message):
        import_fashionista(fashionista, tmp_path / "data", splits=fashionista / "splits.json")


def test_missing_files_are_found_before_anything_is_written(fashionista, tmp_path):
    with pytest.raises(DataError, match=r"0006\.jpg and \d+ more: expected original files"):
        import_fashionista(fashionista, tmp_path / "data")  # the shipped models' splits name 480
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", r"expected a JSON file of that name; Expecting"),
        ("[1]", "expected a JSON object of the lists train, val, test; got list"),
        ('{"train": [1]}', "expected a JSON object of the lists train, val, test; got the keys train"),
        (
            '{"train": ["1"], "val": [], "test": []}',
            r"expected photo numbers from 1 in train, like \[1, 2\]; got \['1'\]",
        ),
        ('{"train": [true], "val": [], "test": []}', r"expected photo numbers from 1 in train"),
        ('{"train": [0], "val": [], "test": []}', r"expected photo numbers from 1 in train, .* got \[0\]"),
        ('{"train": [], "val": [], "test": [10000]}', r"expected photo numbers from 1 in test, .* got \[10000\]"),
        ('{"train": [1, 2, 3, 4, 5], "val": [], "test": [1, 2, 3, 4, 5]}', "got 1, 2, 3, 4, 5 more than once"),
        ('{"train": [1, 2], "val": [2], "test": []}', "expected every photo once; got 2 more than once"),
        ('{"train": [], "val": [], "test": []}', "got three empty lists"),
        ('{"train": [1, 8], "val": [5], "test": []}', "only train and val photos .* in train and val; got 8, on which"),
        ('{"train": [1], "val": [3], "test": []}', "only train and val photos .* in train and val; got 3, on which"),
    ],
)
def test_splits_that_cannot_be_used(tmp_path, text, message):
    (tmp_path / "splits.json").write_text(text)
    with pytest.raises(DataError, match=message):
        read_splits(tmp_path / "splits.json")


def test_own_splits_may_move_photos_between_train_and_val_and_into_test(tmp_path):
    own = {"train": [5], "val": [1], "test": [2, 3, 8]}
    (tmp_path / "splits.json").write_text(json.dumps(own))
    assert read_splits(tmp_path / "splits.json") == own
    with pytest.raises(DataError, match=r"none\.json: missing; expected a JSON file"):
        read_splits(tmp_path / "none.json")


def mat(path, **content):
    scipy.io.savemat(path, content)


PIXELS = "annotations/pixel-level"


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda s: (s / "photos/0002.jpg").unlink(), r"0002\.jpg: expected original files; got none: complete"),
        (lambda s: (s / "photos").rename(s / "pictures"), r"photos: missing; expected CCP's files NNNN\.jpg: is SRC"),
        (lambda s: [p.unlink() for p in (s / PIXELS).iterdir()], r"pixel-level: expected files NNNN\.mat; got none"),
        (
            lambda s: (s / PIXELS / "0002.mat").write_bytes(b""),
            r"0002\.mat: expected a MATLAB file .* got one that cannot",
        ),
        (lambda s: (s / PIXELS / "0002.mat").write_text("<html>" * 99), r"0002\.mat: expected a MATLAB file"),
        (lambda s: cut(s / PIXELS / "0002.mat", 0.5), r"0002\.mat: expected a MATLAB file"),
        (lambda s: cut(s / PIXELS / "0002.mat", 0.01), r"0002\.mat: expected a MATLAB file"),
        (
            lambda s: mat(s / PIXELS / "0002.mat", tags=np.arange(3)),
            r"0002\.mat: expected an array under the key 'groundtruth'; got tags: is it in its folder",
        ),
        (
            lambda s: mat(s / PIXELS / "0002.mat", groundtruth=np.zeros((550, 600), np.uint8)),
            r"0002\.mat: expected 550x600 pixels as in the photo; got 600x550: get both files again",
        ),
        (
            lambda s: mat(s / PIXELS / "0002.mat", groundtruth=np.full((600, 550), 59)),
            r"0002\.mat: expected whole tag ids 0\.\.58; got 59",
        ),
        (
            lambda s: mat(s / PIXELS / "0002.mat", groundtruth=np.full((600, 550), 1.5)),
            r"0002\.mat: expected whole tag ids 0\.\.58; got 1\.5",
        ),
        (
            lambda s: mat(s / PIXELS / "0002.mat", groundtruth=np.full((600, 550), np.nan)),
            r"0002\.mat: expected whole tag ids 0\.\.58; got nan",
        ),
        (
            lambda s: mat(s / PIXELS / "0002.mat", groundtruth=np.zeros((600, 550, 3))),
            r"0002\.mat: expected groundtruth to be a matrix of tag ids; got \(600, 550, 3\) float64",
        ),
        (lambda s: write_ccp(s, 2099, jpeg(drawing(1)[0])), r"2099\.jpg: expected numbers 0001 to 2098; got '2099'"),
        (
            lambda s: (s / "photos/0002.jpg").rename(s / "photos/x.jpg"),
            r"x\.jpg: expected numbers 0001 to 2098; got 'x'",
        ),
        (lambda s: write_ccp(s, 1005, jpeg(drawing(1)[0])), r"1005\.jpg: expected a width of 550 pixels; got 400x600"),
        (
            lambda s: mat(s / "label_list.mat", label_list=np.array([[*TAGS[:2], "bags", *TAGS[3:]]], object)),
            r"label_list\.mat: expected tag 2 to be 'bag'; got 'bags': is it another release",
        ),
        (
            lambda s: mat(s / "label_list.mat", label_list=np.array([TAGS[:58]], object)),
            r"label_list\.mat: expected 59 tags; got 58",
        ),
    ],
)
def test_a_fault_in_ccp_names_the_file_and_the_fix(ccp, tmp_path, spoil, message):
    spoil(ccp)
    with pytest.raises(DataError, match=message):
        import_ccp(ccp, tmp_path / "data")


def cut(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])


def test_originals_are_never_written_over(fashionista):
    source = fashionista.rename(fashionista.with_name("fashionista"))
    before = (source / "images/0001.jpg").read_bytes()
    with pytest.raises(DataError, match="away from the originals"):
        import_fashionista(source, source.parent, splits=source / "splits.json")
    assert (source / "images/0001.jpg").read_bytes() == before and not (source / "labels_fashion").exists()


def test_a_destination_that_is_a_file_is_refused(ccp, tmp_path):
    (tmp_path / "data").write_text("not a folder")
    with pytest.raises(OutputError, match="expected a folder to write into; got Not a directory: name another place"):
        import_ccp(ccp, tmp_path / "data")


def test_the_command(fashionista, ccp, tmp_path, capsys):
    main(["fashionista", str(fashionista), str(tmp_path / "data"), "--splits", str(fashionista / "splits.json")])
    assert capsys.readouterr().out.endswith("data/fashionista: 2 train, 1 val, 1 test, 1 left out\n")
    call = [sys.executable, "-m", "training.import_data", "ccp", str(ccp), str(tmp_path / "data")]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("data/ccp: 2 labelled, 1 unlabelled, 1 left out\n")
    with pytest.raises(SystemExit):
        main(["ccp", str(ccp), str(tmp_path / "data"), "--splits", str(fashionista / "splits.json")])
    assert "--splits is for fashionista" in capsys.readouterr().err
