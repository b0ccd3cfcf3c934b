"""What the page answers, without a server: pictures, numbers, links, code, and sentences where something is wrong."""

from __future__ import annotations

import html
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest
from PIL import Image

import hubmodels.app
from hubmodels import FASHION, PERSON, ImageError, Refinement, masks
from hubmodels.app import snippets, texts
from hubmodels.app.api import Api
from hubmodels.app.controls import CONTROLS
from hubmodels.app.guard import Guard
from hubmodels.app.handlers import OUTPUTS, Handlers
from hubmodels.app.menus import Menus
from hubmodels.app.studio import Photo, Studio
from hubmodels.app.views import SIDES, STYLES, View
from hubmodels.entries import DEFAULTS, find_entry
from tests.conftest import grid
from tests.page_examples import CLOTHES, PEOPLE
from tests.page_server import GRADIO_MARKS
from training import bench_page

pytestmark = GRADIO_MARKS


@pytest.fixture
def guard(tmp_path: Path) -> Guard:
    return Guard(cache_dir=str(tmp_path))


@pytest.fixture
def handlers(studio: Studio, guard: Guard) -> Handlers:
    return Handlers(studio, guard, examples={})


@pytest.fixture
def menus(studio: Studio) -> Menus:
    return Menus(studio)


@pytest.fixture
def api(studio: Studio, guard: Guard) -> Api:
    return Api(studio, guard)


def asked(**query: str) -> Any:
    """A request as handlers see it."""
    return SimpleNamespace(headers={"host": "127.0.0.1:7860"}, query_params=query)


def test_an_answer_has_pictures_numbers_a_link_and_code(handlers, photo, small):
    pictures, details, scores, link, python, command, client, curl = handlers.update(
        photo, CLOTHES, None, asked(), crf_iterations=1, opacity=30
    )
    assert pictures.count("<img") == 2 and "Found" in pictures
    assert "CRF" in details and not scores
    wanted = {"model": CLOTHES, "crf_iterations": "1", "opacity": "30", "task": "fashion"}
    address = html.unescape(link[link.index("<pre") :].partition(">")[2].partition("<")[0])
    assert dict(pair.split("=") for pair in address.split("?")[1].split("&")) == wanted
    settings = Refinement(crf_iterations=1)
    for shown, text in (
        (python, snippets.python(CLOTHES, settings, opacity=30)),
        (command, snippets.command(CLOTHES, settings)),
    ):
        assert html.escape(text) in shown
    assert "127.0.0.1:7860" in client and "127.0.0.1:7860" in curl
    assert photo not in link + python + command + client + curl
    assert "PASSWORD" not in client + curl


def test_absent_labels_are_found_nowhere_and_travel_in_link_and_code(studio, photo, small, guard, menus):
    handlers = Handlers(studio, guard, examples={Photo.of(small).key: "astronaut"})
    absent, settings = ["dress", "skin"], Refinement()
    assert "skin (" in handlers.update(photo, CLOTHES, None, asked())[1]
    values = {"absent": absent, "right": "other", "other": "u2net_small_fashion"}
    _, details, _, link, python, command, client, curl = handlers.update(photo, CLOTHES, None, asked(), **values)
    assert "skin (" not in details and "absent=skin%2Cdress" in link
    url = "http://127.0.0.1:7860"
    left_out: dict[str, Any] = {"absent": ("skin", "dress")}
    for shown, text in (
        (python, snippets.python(CLOTHES, settings, **left_out)),
        (command, snippets.command(CLOTHES, settings, **left_out)),
        (client, snippets.client(url, CLOTHES, settings, **left_out)),
        (curl, snippets.curl(url, CLOTHES, settings, **left_out)),
    ):
        assert html.escape(text) in shown and "dress" in shown
    with Image.open(handlers.take("labels", photo, CLOTHES, absent=absent)) as picture:
        assert not np.isin(np.asarray(picture), [1, 6]).any()
    boxes = handlers.restore({"example": "astronaut", "absent": "dress,skin"}, {"astronaut": ""})[3]
    assert boxes.value == ["skin", "dress"] and boxes.visible and len(boxes.choices) == 6
    assert menus.adapt(CLOTHES, absent, "probability", "", "")[0].value == ["skin", "dress"]
    assert menus.adapt(PEOPLE, absent, "probability", "", "")[0].value == []


def test_all_labels_at_once_are_not_left_out_and_that_is_said(handlers, photo):
    labels, words = list(FASHION.names[1:]), "none is left out"
    details = handlers.update(photo, CLOTHES, None, asked(), absent=labels)[1]
    assert words in details and "skin (" in details
    assert words not in handlers.update(photo, CLOTHES, None, asked(), absent=labels[1:])[1]
    assert words not in handlers.update(photo, PEOPLE, None, asked(), absent=["dress"])[1]


def test_copied_api_calls_log_in_if_the_visitor_did(handlers, photo):
    request = SimpleNamespace(**vars(asked()), username="me")
    *_, client, curl = handlers.update(photo, PEOPLE, None, request)
    settings = Refinement()
    for shown, snippet in ((client, snippets.client), (curl, snippets.curl)):
        assert html.escape(snippet("http://127.0.0.1:7860", PEOPLE, settings, login=True)) in shown
        assert "PASSWORD" in shown


def test_what_post_processing_takes_most_of_is_said(handlers, tmp_path, astronaut):
    Image.fromarray(astronaut).save(tmp_path / "a.png")
    path = str(tmp_path / "a.png")
    said = "Post-processing took most of dress (0.3\xa0%, now 0\xa0%)."
    assert said in handlers.update(path, CLOTHES, None, asked(), min_region_px=1000)[1]
    assert "took most" not in handlers.update(path, CLOTHES, None, asked())[1]
    assert "took most" not in handlers.update(path, PEOPLE, None, asked(), crf_iterations=2)[1]


def test_other_models_are_those_of_the_task(menus):
    label, others = menus.adapt(PEOPLE, [], "probability", "dress", CLOTHES)[3:]
    assert label.value == "" and others.value != CLOTHES
    names = [name for _, name in others.choices]
    assert PEOPLE not in names and names and {find_entry(name).task for name in names} == {"person"}
    label, others = menus.adapt(CLOTHES, [], "probability", "dress", "u2net_small_fashion")[3:]
    assert (label.value, others.value) == ("dress", "u2net_small_fashion")


def test_a_mask_is_read_once_whether_or_not_it_can_be_used(handlers, photo, tmp_path, monkeypatch):
    reads = []
    real = masks.read_truth
    monkeypatch.setattr("hubmodels.app.studio.read_truth", lambda *a, **k: reads.append(1) or real(*a, **k))
    for value in (1, 200):
        mask = str(tmp_path / f"{value}.png")
        Image.fromarray(np.full((96, 64), value, np.uint8)).save(mask)
        for px in (0, 10, 20):
            details = handlers.update(photo, CLOTHES, mask, asked(), min_region_px=px)[1]
            assert ("truth is not used" in details) == (value == 200)
    assert len(reads) == 2


@pytest.mark.parametrize(
    "query", [{"crf_iterations": "3"}, {"task": "bogus"}, {"model": CLOTHES}, {"example": "nope"}], ids=str
)
def test_a_link_without_a_photo_says_that_it_carried_settings(handlers, query):
    assert "The link carried settings" in handlers.update(None, CLOTHES, None, asked(**query))[0]
    for other in ({"utm": "x"}, {**query, "example": "astronaut"}):  # that one was there, and was taken away
        assert "The link carried" not in handlers.update(None, CLOTHES, None, asked(**other))[0]


@pytest.mark.parametrize("style", STYLES)
def test_every_side_is_drawn_in_every_style(handlers, photo, tmp_path, style):
    Image.fromarray(np.zeros((96, 64), np.uint8)).save(tmp_path / "mask.png")
    for side in SIDES:
        other = "u2net_small_fashion"
        values = {"left": "photo", "right": side, "style": style, "other": other}
        pictures, *_ = handlers.update(photo, CLOTHES, str(tmp_path / "mask.png"), asked(), **values)
        assert pictures.count("<img") == 2, side
        assert {"other": other}.get(side, SIDES[side]) in pictures


def test_what_is_missing_for_a_comparison_is_said(handlers, photo, tmp_path):
    for side, words in (("truth", "add a mask"), ("other", "Choose another model")):
        details = handlers.update(photo, CLOTHES, None, asked(), right=side, other=CLOTHES)[1]
        assert words in details
    details = handlers.update(photo, CLOTHES, None, asked(), right="other", other=PEOPLE)[1]
    assert "Choose another model of this task" in details  # the legend is of one task
    Image.fromarray(np.full((96, 64), 200, np.uint8)).save(tmp_path / "mask.png")
    details = handlers.update(photo, CLOTHES, str(tmp_path / "mask.png"), asked(), right="truth")[1]
    assert "is it for another task?</p>" in details and "add a mask" not in details
    assert "scale 60" in handlers.update(photo, CLOTHES, None, asked(), style="superpixels")[1]


def test_a_cut_out_of_nothing_is_said_and_not_taken_away(handlers, photo, tmp_path):
    black = str(tmp_path / "black.png")
    Image.new("RGB", (64, 96)).save(black)
    shown = {"style": "cutout", "left": "network"}
    empty: list[tuple[str, str, dict[str, Any], str]] = [
        (photo, CLOTHES, {"absent": ["dress"], "label": "dress"}, "There is no dress in"),
        (black, PEOPLE, {}, "There is nothing in"),
    ]
    for path, model, values, words in empty:
        details = handlers.update(path, model, None, asked(), **values, **shown)[1]
        assert all(f"{words} “{side}”: the cut-out is empty." in details for side in ("Raw network", "Final"))
        assert "cut-out" not in handlers.update(path, model, None, asked(), **values)[1]
        with pytest.raises(gr.Error, match=f"{words} this result: the cut-out is empty"):
            handlers.take("cutout", path, model, **values)
    assert "cut-out" not in handlers.update(photo, CLOTHES, None, asked(), label="skin", **shown)[1]
    assert handlers.take("cutout", photo, CLOTHES, label="skin").endswith("skin.png")


def test_numbers_say_whose_they_are_where_other_results_are_shown(handlers, photo):
    said, other = f"Final of {CLOTHES}: ", "u2net_small_fashion"
    for left, right, named in (
        ("photo", "final", False),
        ("final", "photo", False),
        ("photo", "truth", False),  # in whose place the final result stands
        ("photo", "photo", True),
        ("network", "final", True),
        ("photo", "network", True),
        ("photo", "other", True),
    ):
        details = handlers.update(photo, CLOTHES, None, asked(), left=left, right=right, other=other)[1]
        assert (said in details) == named, (left, right)


def test_scores_follow_the_settings(handlers, tmp_path, studio, astronaut):
    Image.fromarray(astronaut).save(tmp_path / "large.png")
    photo = str(tmp_path / "large.png")
    truth = studio.analyse(Photo.of(astronaut), CLOTHES, Refinement(min_region_px=1000)).final.labels
    Image.fromarray(truth).save(tmp_path / "mask.png")
    mask = str(tmp_path / "mask.png")
    off = handlers.update(photo, CLOTHES, mask, asked())[2]
    best = handlers.update(photo, CLOTHES, mask, asked(), min_region_px=1000)[2]
    assert '<th scope="row">mIoU</th><td>100.00</td>' in best and off != best and "boundary F" in off
    Image.fromarray(grid("01")).save(tmp_path / "mask.png")
    _, details, scores, *_ = handlers.update(photo, CLOTHES, mask, asked())
    assert "ground truth is not used: the mask is 2x1" in details and not scores


def test_what_is_wrong_with_a_mask_is_remembered_without_the_calls_that_asked(studio, tmp_path, astronaut):
    """An exception that is kept gathers the frames of all calls that raise it, and so their pictures."""
    Image.fromarray(grid("01")).save(tmp_path / "mask.png")
    raised = []
    for _ in range(2):
        with pytest.raises(ImageError, match="the mask is 2x1") as caught:
            studio.truth(tmp_path / "mask.png", Photo.of(astronaut), PERSON)
        raised.append(caught.value)
    assert raised[0] is not raised[1]


@pytest.mark.parametrize(
    "content", [b"", b"no photo at all", b"\x89PNG\r\n\x1a\n cut off"], ids=["empty", "text", "cut"]
)
def test_unreadable_photos_get_a_plain_sentence(handlers, api, tmp_path, content):
    path = tmp_path / "private-name.jpg"
    path.write_bytes(content)
    notice, *rest = handlers.update(str(path), PEOPLE, None, asked())
    assert 'role="alert"' in notice and "This photo cannot be read: " in notice and rest == [""] * (OUTPUTS - 1)
    assert "private-name" not in notice and str(tmp_path) not in notice
    with pytest.raises(gr.Error, match="This photo cannot be read") as caught:
        api.segment(str(path), PEOPLE)
    assert "private-name" not in caught.value.message and not caught.value.print_exception


def test_photos_are_analysed_on_one_thread_whoever_calls(handlers, api, photo, monkeypatch):
    """Every further thread that runs a network keeps memory of its own."""
    seen, real = set(), handlers.studio.answer

    def noted(*args: Any) -> Any:
        seen.add(threading.get_ident())
        return real(*args)

    monkeypatch.setattr(handlers.studio, "answer", noted)
    with ThreadPoolExecutor(4) as callers:
        done = [callers.submit(handlers.update, photo, PEOPLE, None, asked()) for _ in range(4)]
        done.append(callers.submit(handlers.take, "labels", photo, PEOPLE))
        done.append(callers.submit(api.segment, photo, PEOPLE))
        assert all(each.result() for each in done)
    assert len(seen) == 1 and threading.get_ident() not in seen


def test_a_file_is_whole_while_the_same_answer_is_made_for_somebody_else(handlers, photo):
    """A visitor downloads a file that another visitor's call makes again, from the same photo and settings."""
    file = Path(handlers.take("labels", photo, PEOPLE))
    with file.open("rb") as download:
        start = download.read(8)
        os.truncate(Path(handlers.take("labels", photo, PEOPLE)), 8)
        assert len(start + download.read()) > 8  # the file being downloaded is none that anybody writes to


def test_unforeseen_failures_are_logged_without_names(handlers, photo, monkeypatch, caplog):
    def explode(*args: object, **options: object) -> None:
        raise RuntimeError(" ".join(["sec" + "ret", photo]))

    monkeypatch.setattr(handlers.studio, "analyse", explode)
    notice, *_ = handlers.update(photo, PEOPLE, None, asked())
    assert "went wrong on the server" in notice and "secret" not in notice
    with pytest.raises(gr.Error, match="went wrong on the server"):
        handlers.take("labels", photo, PEOPLE)
    assert "RuntimeError" in caplog.text and "explode" in caplog.text
    assert "secret" not in caplog.text and "photo.png" not in caplog.text


def test_other_failures_are_plain_sentences_too(handlers, tmp_path, photo):
    gone = str(tmp_path / "gone.png")
    assert "no longer here" in handlers.update(gone, PEOPLE, None, asked())[0]
    with pytest.raises(gr.Error, match="no longer here"):
        handlers.take("labels", gone, PEOPLE)
    assert "Served models" in handlers.update(photo, "<b>", None, asked())[0]
    assert "<b>" not in handlers.update(photo, "<b>", None, asked())[0]


def test_no_photo_is_an_invitation(handlers):
    assert "pick an example" in handlers.update(None, PEOPLE, None, asked())[0]
    assert "not a photo" in handlers.update(None, PEOPLE, None, asked(model=PEOPLE))[0]


def test_a_link_sets_every_control(handlers):
    paths = {"photographer": "/x/photographer.png", "astronaut": "/x/astronaut.png"}
    values = handlers.restore(
        {"model": PEOPLE, "example": "astronaut", "crf_iterations": "7", "style": "labels"}, paths
    )
    photo, task, menu, absent, *rest = values
    assert not absent.visible and absent.value == []  # of two labels
    assert (photo, task, menu.value) == ("/x/astronaut.png", "person", PEOPLE)
    assert rest[: len(CONTROLS)] == [7 if name == "crf_iterations" else c.default for name, c in CONTROLS.items()]
    view = dict(zip(vars(View()), rest[len(CONTROLS) :], strict=True))
    assert view["label"].choices[1:] == [("person", "person")] and view["other"].value == "u2net_person"
    assert view == {**vars(View(style="labels")), "label": view["label"], "other": view["other"]}
    assert handlers.restore({"model": PEOPLE}, paths)[0] is None  # somebody's own photo does not travel
    first = handlers.restore({}, paths)
    assert first[:2] == (gr.skip(), "fashion") and first[4 : 4 + len(CONTROLS)] == tuple(
        control.default for control in CONTROLS.values()
    )


def test_a_link_to_a_model_that_is_not_here_says_what_is_shown_instead(handlers, photo):
    query = {"model": "u2net_shoes", "task": "person", "other": "u2net_hats", "right": "other"}
    _, _, menu, _, *rest = handlers.restore(query, {"astronaut": ""})
    other = dict(zip(vars(View()), rest[len(CONTROLS) :], strict=True))["other"].value
    said = f"The link asked for u2net_shoes, which this server does not have; shown is {menu.value}."
    compared = f"The link compared with u2net_hats, which this server does not have; shown is {other}."

    def details(model: str, **values: str) -> str:
        return handlers.update(photo, model, None, asked(**query), **values)[1]

    assert said in details(menu.value, right="other", other=other)
    assert compared in details(menu.value, right="other", other=other)
    assert compared not in details(menu.value, other=other)
    assert compared not in details(menu.value, right="other", other="u2net_small_person")
    assert "The link" not in details(CLOTHES, right="other", other="u2net_fashion")  # chosen since then
    assert "The link" not in handlers.update(photo, CLOTHES, None, asked(model=PEOPLE))[1]


def test_the_vote_of_a_model_without_a_classifier_is_the_one_in_the_menu_and_that_is_said(
    handlers, photo, capsys, menus
):
    other = "u2net_small_fashion"
    said = f"{other} has no region classifier: the vote is by probability."
    votes = menus.adapt(other, [], "classifier", "", "")[2]
    assert votes.value == "probability" and "classifier" not in dict(votes.choices)
    assert said in capsys.readouterr().out  # a toast, where there is a page
    for model, vote in ((CLOTHES, "classifier"), (other, "majority")):
        assert vote in dict(menus.adapt(model, [], vote, "", "")[2].choices)
    assert not capsys.readouterr().out
    assert said in handlers.update(photo, other, None, asked(), vote="classifier")[1]
    compared = {"right": "other", "other": other}
    assert said in handlers.update(photo, CLOTHES, None, asked(), vote="classifier", **compared)[1]
    assert said not in handlers.update(photo, CLOTHES, None, asked(), vote="majority", **compared)[1]
    query = {"model": other, "vote": "classifier"}
    values = dict(zip(CONTROLS, handlers.restore(query, {"astronaut": ""})[4:], strict=False))
    assert values["vote"] == "probability"
    assert said in handlers.update(photo, other, None, asked(**query), **values)[1]
    for model, vote in ((other, "majority"), (CLOTHES, "classifier"), (CLOTHES, "probability")):
        assert "classifier" not in handlers.update(photo, model, None, asked(**query), vote=vote)[1]


@pytest.mark.parametrize(
    ("width", "caption"),
    [(800, "Against your mask"), (1000, "Against your mask, at 800x160 pixels, to which the page scales")],
    ids=["whole", "scaled"],
)
def test_scores_say_at_which_size_they_are(handlers, tmp_path, small, width, caption):
    Image.fromarray(small).resize((width, 200)).save(tmp_path / "large.png")
    Image.new("L", (width, 200)).save(tmp_path / "mask.png")
    scores = handlers.update(str(tmp_path / "large.png"), PEOPLE, str(tmp_path / "mask.png"), asked())[2]
    said = scores.partition("<caption>")[2].partition("</caption>")[0]
    assert said.startswith(caption) and ("pixels" in said) == ("pixels" in caption)


def test_choices_that_do_not_work_here_are_refused_in_a_sentence(guard, photo):
    studio = Studio([CLOTHES])
    studio.unavailable = {"merge": {"kmeans"}, "vote": {"majority"}}
    handlers = Handlers(studio, guard, examples={})
    with pytest.raises(gr.Error, match="merge 'kmeans' is not available on this server; choose one of"):
        Api(studio, guard).segment(photo, CLOTHES, merge="kmeans")
    votes = Menus(studio).adapt(CLOTHES, [], "probability", "", "")[2]
    assert [value for value, _ in votes.choices] == ["probability", "classifier"]
    query = {"merge": "kmeans", "superpixel_scale": "60"}
    restored = handlers.restore(query, {"astronaut": ""})[4:]
    values = dict(zip(CONTROLS, restored, strict=False))
    assert (values["merge"], values["superpixel_scale"]) == ("off", 60)
    details = handlers.update(photo, CLOTHES, None, asked(**query), **values)[1]
    assert "The link asked for merge kmeans, which this server does not have; shown is off." in details
    assert "The link" not in handlers.update(photo, CLOTHES, None, asked(**query), **{**values, "merge": "cut"})[1]


def test_photos_longer_than_a_jpeg_can_be_are_answered(handlers, api, tmp_path):
    Image.new("RGB", (65_600, 4), "red").save(tmp_path / "long.png")
    mask, overlay, _ = api.segment(str(tmp_path / "long.png"), PEOPLE)
    for path, width in ((mask, 65_600), (overlay, 65_500), (handlers.take("overlay", mask, PEOPLE), 65_500)):
        with Image.open(path) as picture:
            assert picture.width == width


def test_the_task_chooses_the_models(menus):
    menu = menus.of_task("person", CLOTHES)
    assert {name for _, name in menu.choices} == set(hubmodels.list_models("person"))
    assert menu.value == DEFAULTS["person"]
    assert menus.of_task("fashion", CLOTHES).value == CLOTHES


@pytest.mark.parametrize("place", ["uploads", "package", "home"])
def test_messages_name_no_place_on_the_server(handlers, photo, tmp_path, monkeypatch, place):
    path = {"uploads": tmp_path, "package": Path(hubmodels.__file__).parent, "home": Path.home()}[place] / "x.bin"
    texts_of_errors = [f"{path}: is damaged", "vote must be a/tmp"]

    def failing(*_: Any) -> Any:
        raise ValueError(texts_of_errors.pop(0))

    monkeypatch.setattr(handlers, "_show", failing)
    said = handlers.update(photo, PEOPLE, None, asked())[0]
    assert str(path) not in said and texts.FAILED in said
    assert "vote must be a/tmp" in handlers.update(photo, PEOPLE, None, asked())[0]


def test_the_benchmark_of_the_page_asks_as_the_page_does(tmp_path):
    """Otherwise `make bench` would be the first to find out that a part of the page has changed."""
    times, runtime = bench_page.measure(1, tmp_path, "torch")
    assert runtime == "torch" and set(bench_page.BARS_MS) <= set(times)
    assert all(each and min(each) > 0 for each in times.values())
