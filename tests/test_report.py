"""The report: tables, maps and order by hand from drawn label maps; the page of real models; what is refused."""

from __future__ import annotations

import base64
import io
import json
from html.parser import HTMLParser

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

import training.evaluate
import training.report as module
from hubmodels.entries import find_entry
from hubmodels.errors import ModelNotFoundError, OutputError
from hubmodels.labels import FASHION, PERSON, LabelSet
from hubmodels.metrics import IGNORE, Scores
from hubmodels.refine import Refinement
from tests.conftest import grid
from tests.drawn_data import draw_data
from training.data import Sample, read_split
from training.errors import CommandError, DataError
from training.evaluate import Answer, evaluate
from training.report import describe, main, settings_for
from training.report_page import NOTES, Photo, Report, confusion_table, label_table, page, percent, spread, worst
from training.report_pictures import ERROR_COLOURS, HEAT, data_uri, error_map, heat, mean_errors
from training.soft_labels import main as soft_labels
from training.train import main as train

THREE = LabelSet("three", ("ground", "cat", "dog"), ((0, 0, 0), (200, 0, 0), (0, 200, 0)))
MISSED, EXTRA, CONFUSED = ERROR_COLOURS.values()


class Page(HTMLParser):
    """Rows of every table as text, all images and headings; complains about tags that do not match."""

    VOID = ("meta", "img")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.images: list[dict[str, str]] = []
        self.headings: list[str] = []
        self.tags: list[str] = []
        self.cells: list[dict[str, str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == [], f"never closed: {self._open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in self.VOID:
            self._open.append(tag)
        if tag == "img":
            self.images.append(dict(attrs))
        elif tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.cells.append(dict(attrs))
        elif tag in ("h1", "h2", "h3"):
            self.headings.append("")

    def handle_endtag(self, tag):
        assert self._open and self._open.pop() == tag, f"</{tag}> without its beginning"

    def handle_data(self, data):
        self.text += data
        if set(self._open) & {"td", "th"}:
            self.tables[-1][-1][-1] += data
        if self._open and self._open[-1] in ("h1", "h2", "h3"):
            self.headings[-1] += data


def scored(truth, predicted, labels=THREE) -> Scores:
    scores = Scores(len(labels))
    scores.add(truth, predicted)
    return scores


def photo(name, truth, predicted, labels=THREE) -> Photo:
    image = np.full((*truth.shape, 3), 90, np.uint8)
    return Photo(name, image, truth, predicted, scored(truth, predicted, labels))


def report(photos, *, split="val", labels=THREE, title="a model", facts=None) -> Report:
    total = Scores(len(labels))
    for each in photos:
        total.include(each.scores)
    return Report(title, split, labels, facts or {"photos": str(len(photos))}, total, photos)


# Of 8 pixels of ground 6 are found and 2 called cat; of 2 of cat 1 is found; dog never occurs and is said once.
TRUTH, PREDICTED = grid("00000", "00011"), grid("00011", "00012")


def test_the_table_of_labels_by_hand():
    (rows,) = Page(label_table(scored(TRUTH, PREDICTED), THREE)).tables
    assert rows == [
        ["label", "IoU", "precision", "recall", "share of pixels"],
        ["ground", "75.0", "100.0", "75.0", "80.0"],
        ["cat", "25.0", "33.3", "50.0", "20.0"],
        ["dog", "0.0", "0.0", "–", "0.0"],  # noqa: RUF001
    ]


def test_the_confusion_matrix_by_hand():
    parsed = Page(confusion_table(scored(TRUTH, PREDICTED), THREE))
    (rows,) = parsed.tables
    assert rows == [
        ["true \\ predicted", "ground", "cat", "dog", "pixels"],
        ["ground", "75.0", "25.0", "0.0", "8"],
        ["cat", "0.0", "50.0", "50.0", "2"],
        ["dog", "–", "–", "–", "0"],  # noqa: RUF001
    ]
    grounds = [cell["style"] for cell in parsed.cells if "style" in cell]
    assert grounds[:3] == [
        f"background:rgba({rgb},{0.65 * share**0.5:.3f})"
        for rgb, share in (("0,114,178", 0.75), ("213,94,0", 0.25), ("213,94,0", 0))
    ]
    assert [cell["title"] for cell in parsed.cells if "title" in cell][:2] == ["6 pixels", "2 pixels"]


def test_the_error_map_by_hand():
    truth = np.array([[0, 1, 0, 1, IGNORE]], np.uint8)
    drawn = np.array(error_map(np.full((1, 5, 3), 255, np.uint8), truth, grid("00121")))
    pale = (240, 240, 240)
    assert drawn[0].tolist() == [list(colour) for colour in (pale, MISSED, EXTRA, CONFUSED, pale)]
    dark = np.array(error_map(np.zeros((1, 5, 3), np.uint8), truth, grid("00121")))
    assert dark[0, 0].tolist() == [140, 140, 140]


def test_the_mean_error_map_by_hand():
    undecided = np.array([[IGNORE, IGNORE, 1, 1]], np.uint8)
    pairs = [(grid("0011"), grid("0111")), (undecided, grid("1101"))]
    assert_array_equal(mean_errors(pairs), [[0, 1, 0.5, 0]])
    assert_array_equal(mean_errors([(undecided, grid("1101"))]), [[0, 0, 1, 0]])  # 0 where nothing is decided
    with pytest.raises(ValueError, match="at least one photo"):
        mean_errors([])


def test_photos_of_another_size_are_stretched_in_the_mean():
    wrong = (grid("0000", "0000", "0000", "0000"), grid("1100", "1100", "0000", "0000"))
    right = (grid("00", "00"), grid("00", "00"))
    assert_array_equal(mean_errors([wrong, right]), np.where(wrong[1], 0.5, 0))
    assert_array_equal(mean_errors([right, wrong]), [[0.5, 0], [0, 0]])


def test_heat_goes_from_the_first_colour_to_the_last():
    drawn = np.array(heat(np.array([[0, 0.1, 0.2, 0.4, 0.9]]), top=0.4))
    assert drawn[0].tolist() == [list(HEAT[index]) for index in (0, 1, 2, 4, 4)]
    assert_array_equal(np.array(heat(np.zeros((2, 2)), top=0.0)), np.zeros((2, 2, 3)))


def test_pictures_are_scaled_down_but_never_up():
    for size, expected in (((40, 60), (40, 60)), ((400, 600), (320, 480)), ((1000, 500), (480, 240))):
        uri, got = data_uri(Image.new("RGB", size, (200, 30, 30)))
        with Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/jpeg;base64,")))) as picture:
            assert got == picture.size == expected
            assert np.abs(np.array(picture).astype(int) - (200, 30, 30)).max() < 8


def test_the_worst_come_first_then_by_name_and_undecided_ones_never():
    truth = grid("0011")
    photos = [
        photo("c", truth, grid("0011")),
        photo("b", truth, grid("0111")),
        photo("undecided", np.full((1, 4), IGNORE, np.uint8), truth),
        photo("d", truth, grid("1100")),
        photo("a", truth, grid("0001")),
    ]
    assert photos[1].scores.miou == photos[4].scores.miou
    assert [each.name for each in worst(photos)] == ["d", "a", "b", "c"]
    assert [each.name for each in worst(photos, 2)] == ["d", "a"]


def test_a_page_shows_the_twelve_worst_in_order():
    truth = grid(*["0" * 10 + "1" * 10] * 8)
    photos = []
    for extra in range(14):  # the more is called label 1, the worse
        predicted = truth.copy()
        predicted.flat[np.flatnonzero(truth == 0)[:extra]] = 1
        photos.append(photo(f"photo {extra:02d}", truth, predicted))
    parsed = Page(page(report(photos)))
    ranks = [text for text in parsed.headings if text[0].isdigit()]
    assert [text.split(":")[0] for text in ranks] == [f"{rank}. photo {14 - rank:02d}" for rank in range(1, 13)]
    # photo 13: 67 of 80 and 80 of 93 pixels
    assert ranks[0].startswith(
        f"1. photo 13: mIoU {50 * (67 / 80 + 80 / 93):.1f}, accuracy {100 * 147 / 160:.1f}, boundary F "
    )
    assert "The 12 worst photos" in parsed.headings
    assert len(parsed.images) == 1 + 12 * 4


def test_a_page_is_one_file_whose_pictures_have_alternatives_in_words():
    text = page(report([photo("p/1", TRUTH, PREDICTED)]))
    parsed = Page(text)
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in parsed.images)
    assert [image["alt"] for image in parsed.images] == [
        "Mean error map: wrong in 30.0 % of the photos on average, 100.0 % at most",
        "Photo p/1",
        "True labels of p/1: ground 80.0 %, cat 20.0 %",
        "Predicted labels of p/1: ground 60.0 %, cat 30.0 %, dog 10.0 %",
        "Error map of p/1: 30.0 % of the pixels are wrong",
    ]
    assert not {"script", "link", "iframe", "object"} & set(parsed.tags)
    assert "http" not in text and "prefers-color-scheme: dark" in text and '<html lang="en">' in text
    assert ["mIoU", "33.3"] in parsed.tables[1] and ["pixel accuracy", "70.0"] in parsed.tables[1]


def test_undecided_pixels_of_a_photo_are_no_label():
    truth = np.where(np.arange(5) < 2, np.uint8(IGNORE), TRUTH)
    alternatives = [image["alt"] for image in Page(page(report([photo("p", truth, PREDICTED)]))).images]
    assert "True labels of p: ground 40.0 %, cat 20.0 %" in alternatives
    assert "Error map of p: 30.0 % of the pixels are wrong" in alternatives


def test_the_legend_names_what_is_painted():
    text = page(report([photo("p", TRUTH, PREDICTED)]))
    legend = text.partition('aria-label="labels">')[2].partition("</ul>")[0]
    assert Page(legend).text == "catdog"  # the background is not


def test_a_report_has_the_scores_of_all_photos_and_the_median_of_their_times():
    samples = [Sample(name, np.zeros((2, 5, 3), np.uint8), {"three": TRUTH}) for name in "abc"]
    seconds, said = (9.0, 1.0, 2.0), (PREDICTED, TRUTH, TRUTH)
    total, photos, median = module.measure(map(Answer, samples, said, seconds), THREE)
    assert total.images == 3 and total.confusion.tolist() == [[22, 2, 0], [0, 5, 1], [0, 0, 0]] and median == 2.0
    assert [each.name for each in photos] == ["a", "b", "c"] and photos[0].scores.pixel_accuracy == 0.7


@pytest.mark.parametrize(
    "split, words", [("val", "Checkpoints and settings are chosen on it"), ("test", "nothing may")]
)
def test_a_page_says_which_split_it_shows_and_what_may_be_chosen_on_it(split, words):
    parsed = Page(page(report([photo("p", TRUTH, PREDICTED)], split=split)))
    assert parsed.headings[0] == f"a model on the {split} split"
    assert NOTES[split] in parsed.text and words in parsed.text
    assert sum(note in parsed.text for note in NOTES.values()) == 1


def test_all_text_is_escaped():
    bad = '<script>alert("1")</script>&amp;'
    labels = LabelSet("bad", (f"0{bad}", f"1{bad}", f"2{bad}"), THREE.palette)
    photos = [photo(f"photo{bad}", TRUTH, PREDICTED, labels)]
    text = page(report(photos, labels=labels, title=f"title{bad}", facts={f"fact{bad}": f"value{bad}"}))
    parsed = Page(text)
    assert "<script" not in text and "script" not in parsed.tags
    for name in ("title", "fact", "value", "0", "1", "2", "photo"):
        assert name + bad in parsed.text, name  # shown as it was written
    assert parsed.images[1]["alt"] == f"Photo photo{bad}"


def test_a_page_without_decided_pixels_has_dashes():
    undecided = np.full((2, 5), IGNORE, np.uint8)
    empty = report([photo("p", undecided, PREDICTED)])
    parsed = Page(page(empty))
    assert "No pixel of any photo is decided." in parsed.text and "The 0 worst photos" in parsed.headings
    assert [row[1] for row in parsed.tables[1][:2]] == ["–", "–"]  # noqa: RUF001


def test_how_much_photos_differ_by_hand():
    truth = grid("0011")
    photos = [photo(predicted, truth, grid(predicted)) for predicted in ("0011", "1100", "0001", "0111")]
    photos.append(photo("undecided", np.full((1, 4), IGNORE, np.uint8), truth))
    # of 0001 and 0111 one label has 2 of 3 pixels, the other 1 of 2
    assert "photo: 0.0 at worst, 58.3 in the median, 100.0 at best" in spread(photos)


def test_a_page_says_that_photos_of_other_sizes_were_stretched():
    photos = [photo("p", TRUTH, PREDICTED), photo("q", TRUTH, TRUTH), photo("r", TRUTH.T, PREDICTED.T)]
    assert "stretched to that of the first" in page(report(photos))
    assert "stretched" not in page(report(photos[:2]))


def test_percent():
    assert [percent(value) for value in (0.0, 0.12345, 1.0, float("nan"))] == ["0.0", "12.3", "100.0", "–"]  # noqa: RUF001


def test_the_page_of_a_real_model_on_two_val_photos(data_root, fashion, tmp_path, monkeypatch, capsys):
    """What the page says is what `evaluate` makes of the same predictions, which are those of the shipped model."""
    predicted = []

    def once(model, samples, **options):
        assert model.name == fashion.name and not options["flip"]
        predicted.extend(training.evaluate.answers(model, samples, **options))
        return iter(predicted)

    monkeypatch.setattr(training.evaluate, "load_model", lambda name: fashion)
    monkeypatch.setattr(module, "answers", once)
    main(["deeplabv3plus_fashion", "--limit", "2", "--out", str(tmp_path / "new" / "folder")])
    text = (tmp_path / "new/folder/index.html").read_text(encoding="utf-8")
    assert [each.sample.name for each in predicted] == [f"fashionista/{n}" for n in read_split(data_root, "val")[:2]]
    monkeypatch.setattr(training.evaluate, "answers", lambda *args, **options: iter(predicted))
    expected = evaluate(fashion, data=data_root, split="val", limit=2)
    facts, scores, labels, confusion = Page(text).tables
    assert ["photos", "2 of the Fashionista val split"] in facts and ["post-processing", "none"] in facts
    assert scores[0] == ["mIoU", percent(expected["miou"])]
    assert scores[2] == ["boundary F within 3 px", percent(expected["boundary_f"])]
    confused = np.array(expected["confusion"])
    iou = np.diag(confused) / (confused.sum(0) + confused.sum(1) - np.diag(confused))
    assert [row[:2] for row in labels[1:]] == [[n, percent(v)] for n, v in zip(FASHION.names, iou, strict=True)]
    assert [row[-1] for row in confusion[1:]] == [f"{sum(row):,}" for row in expected["confusion"]]
    assert len(Page(text).images) == 1 + 2 * 4
    assert [name.name for name in (tmp_path / "new/folder").iterdir()] == ["index.html"]
    assert "index.html: mIoU" in capsys.readouterr().out


@pytest.fixture
def drawn(tmp_path):
    splits = {"train": [1], "val": [2], "test": [3]}
    return draw_data(tmp_path / "data", np.random.default_rng(0), size=(64, 96), splits=splits)


@pytest.fixture
def called(drawn, fashion, person, tmp_path, monkeypatch):
    """Runs the command on the drawing in an empty folder, and gives the page's facts."""
    models = {model.name: model for model in (fashion, person)}
    monkeypatch.setattr(training.evaluate, "load_model", models.__getitem__)
    monkeypatch.chdir(tmp_path)

    def call(*arguments, folder):
        main([*arguments, "--data", str(drawn)])
        parsed = Page((tmp_path / "runs" / folder / "index.html").read_text(encoding="utf-8"))
        return dict(parsed.tables[0]), parsed

    return call


def test_options_say_how_photos_went_through_the_model(called, tmp_path):
    facts, parsed = called("deeplabv3plus_person", folder="report_deeplabv3plus_person")
    assert facts["photos"] == "1 of the Fashionista val split" and facts["post-processing"] == "none"
    assert [row[0] for row in parsed.tables[2][1:]] == list(PERSON.names)
    facts, parsed = called(
        *("deeplabv3plus_person", "--split", "test", "--preset", "gentle", "--flip"),
        folder="report_deeplabv3plus_person_test_gentle_augmented",
    )
    assert facts["photos"] == "1 of the Fashionista test split" and NOTES["test"] in parsed.text
    assert facts["post-processing"] == describe(Refinement.preset("gentle", task="person")) != "none"
    assert facts["passes of the network"] == "at size 1, each also mirrored"
    (tmp_path / "tuned.json").write_text(json.dumps(Refinement(min_region_px=7).to_dict()))
    facts, _ = called(
        *("deeplabv3plus_person", "--settings", "tuned.json"), folder="report_deeplabv3plus_person_settings"
    )
    assert facts["post-processing"] == "min_region_px=7"


def test_a_region_classifier_is_shown_with_its_network_and_superpixels(called):
    facts, _ = called("regions_fashion", folder="report_regions_fashion")
    assert "vote='classifier'" in facts["post-processing"]


def test_post_processing_reaches_the_photos(drawn, person, tmp_path, monkeypatch):
    """With a threshold of 1 nothing is a person."""
    monkeypatch.setattr(training.evaluate, "load_model", lambda name: person)
    (tmp_path / "none.json").write_text(json.dumps(Refinement(person_threshold=1.0).to_dict()))
    main(
        [
            "deeplabv3plus_person",
            "--data",
            str(drawn),
            "--settings",
            str(tmp_path / "none.json"),
            "--out",
            str(tmp_path),
        ]
    )
    matrix = Page((tmp_path / "index.html").read_text(encoding="utf-8")).tables[3]
    assert [row[1:3] for row in matrix[1:]] == [["100.0", "0.0"], ["100.0", "0.0"]]


def test_a_place_that_cannot_be_written_is_refused_before_the_work(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("work was done")

    monkeypatch.setattr(module, "subject", refuse)
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match=r"file.*: expected a folder to write into; got .*: name another place"):
            main(["deeplabv3plus_person", "--out", str(place)])


@pytest.mark.parametrize("text", ["0", "-1", "1.5"])
@pytest.mark.parametrize(
    "command", [[main, "deeplabv3plus_person"], [train, "x.toml"], [soft_labels, "--out", "soft", "--person", "x"]]
)
def test_a_limit_of_no_photo_is_refused_before_the_work(capsys, command, text):
    call, *arguments = command
    with pytest.raises(SystemExit):
        call([*arguments, "--limit", text])
    assert f"--limit: expected a whole number of 1 or more; got {text!r}" in capsys.readouterr().err


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(ModelNotFoundError, match="did you mean 'deeplabv3plus_person'"):
        main(["deeplabv3plus_persons"])
    with pytest.raises(CommandError, match="deeplabv3plus_resnet101 has none of ours"):
        main(["deeplabv3plus_resnet101"])
    with pytest.raises(CommandError, match="regions_fashion comes with post-processing of its own: leave out"):
        main(["regions_fashion", "--preset", "gentle"])
    with pytest.raises(DataError, match=r"splits\.json: missing"):
        main(["deeplabv3plus_person", "--data", str(tmp_path), "--out", str(tmp_path / "out")])


def test_settings_that_cannot_be_used(tmp_path):
    entry, file = find_entry("deeplabv3plus_person"), tmp_path / "settings.json"
    with pytest.raises(CommandError, match=r"got both 'gentle' and .*: leave out one"):
        settings_for(entry, preset="gentle", file=file)
    with pytest.raises(CommandError, match=r"settings\.json: no such file of settings"):
        settings_for(entry, preset="off", file=file)
    for text, message in (
        ("{", "expected a JSON file"),
        ("[]", "a JSON object of settings; got list"),
        ('{"a": 1}', "'a'"),
        ('{"task": "fashion"}', "was tuned for fashion, but deeplabv3plus_person labels person"),
    ):
        file.write_text(text)
        with pytest.raises(CommandError, match=message):
            settings_for(entry, preset="off", file=file)
    assert settings_for(entry, preset="off", file=None) is None
    assert settings_for(entry, preset="gentle", file=None) == Refinement.preset("gentle", task="person")
    assert describe(None) == describe(Refinement()) == "none"
    assert describe(Refinement(crf_iterations=3, vote="majority")) == "crf_iterations=3, vote='majority'"
