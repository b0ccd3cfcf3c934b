"""The page without a browser: what it is built of, what it answers, its API and its command."""

from __future__ import annotations

import ast
import html
import json
import subprocess
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import gradio_client
import numpy as np
import pytest
from gradio_client.exceptions import AppError
from numpy.testing import assert_array_equal
from PIL import Image

import demo
import hubmodels.app
from hubmodels import Refinement
from hubmodels.app import server as serving
from hubmodels.app import snippets
from hubmodels.app.controls import CONTROLS
from hubmodels.app.examples import EXAMPLES
from hubmodels.app.handlers import OUTPUTS, Handlers
from hubmodels.app.page import HEAVY, build
from hubmodels.app.studio import Photo, Studio
from hubmodels.app.views import SIDES, STYLES, View
from hubmodels.cli import build_parser
from hubmodels.entries import DEFAULTS
from tests.conftest import ROOT, grid
from tests.page_server import get, no_stray_event_loops, served_here

CLOTHES, PEOPLE = "deeplabv3plus_fashion", "deeplabv3plus_person"

# Gradio 6.31 counts its events with what pandas 3.1 calls outdated.
pytestmark = [
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]


@pytest.fixture(autouse=True, scope="module")
def quiet_gradio() -> Iterator[None]:
    with no_stray_event_loops():
        yield


@pytest.fixture(scope="module")
def studio() -> Studio:
    return Studio()


@pytest.fixture(scope="module")
def page(studio: Studio) -> gr.Blocks:
    return build(studio)


@pytest.fixture
def handlers(studio: Studio, tmp_path: Path) -> Handlers:
    return Handlers(studio, cache_dir=str(tmp_path / "cache"), examples={})


@pytest.fixture
def small(astronaut: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(astronaut).resize((64, 96)))


@pytest.fixture
def photo(tmp_path: Path, small: np.ndarray) -> str:
    Image.fromarray(small).save(tmp_path / "photo.png")
    return str(tmp_path / "photo.png")


def asked(**query: str) -> Any:
    """A request as handlers see it."""
    return SimpleNamespace(headers={"host": "127.0.0.1:7860"}, query_params=query)


# --- What it is built of ----------------------------------------------------------------------------------------------


def test_every_component_can_be_found_and_named(page):
    from gradio.components.api_component import Api  # stands for the types of gr.api; never shown

    components = [block for block in page.blocks.values() if isinstance(block, gr.components.Component)]
    shown = [block for block in components if not isinstance(block, Api)]
    assert len(shown) > 40
    for block in shown:
        assert block.elem_id and (getattr(block, "label", None) or getattr(block, "value", None)), block
    assert len({block.elem_id for block in shown}) == len(shown)


def test_controls_come_from_the_library(page):
    blocks = {block.elem_id: block for block in page.blocks.values() if getattr(block, "elem_id", None)}
    for control in CONTROLS.values():
        component = blocks[control.name]
        assert component.value == control.default and component.info == control.info
    assert [title for title, _ in blocks["model"].choices] == [
        title for title, _ in Handlers(Studio(), cache_dir="", examples={}).choices()
    ]
    assert blocks["left"].choices == [(title, key) for key, title in SIDES.items()]


def test_public_endpoints_have_stable_names(page):
    named = page.get_api_info()["named_endpoints"]
    assert list(named) == ["/segment", "/models"]
    parameters = {p["parameter_name"]: p for p in named["/segment"]["parameters"]}
    assert list(parameters) == ["photo", "model", *CONTROLS]
    assert sorted(parameters["model"]["type"]["enum"]) == hubmodels.list_models()
    for control in CONTROLS.values():
        assert parameters[control.name]["parameter_default"] == control.default
    assert [answer["label"] for answer in named["/segment"]["returns"]] == ["mask", "overlay", "report"]


def test_heavy_work_shares_one_slot_and_the_queue_is_bounded(studio):
    page = build(studio, queue_size=7, concurrency=2)
    heavy = [f for f in page.fns.values() if f.concurrency_id == HEAVY]
    names = {f.api_name or getattr(f.fn, "__name__", "") for f in heavy}
    assert "segment" in names and len(heavy) >= 8  # updates twice, five downloads, and the API
    assert all(f.concurrency_limit == 2 for f in heavy)
    assert page._queue.max_size == 7 and page.api_open is False
    assert page.analytics_enabled is False and page.delete_cache
    assert all(
        f.queue is not False for f in page.fns.values() if f.fn is not None and f.api_name != "load_example"
    )  # that one only names a file
    launch = serving.LAUNCH
    assert launch["show_error"] is False and launch["run_history"] is False and launch["ssr_mode"] is False
    assert launch["max_file_size"] and launch["enable_monitoring"] is False


def test_telemetry_is_off_before_gradio_can_be_imported():
    """hubmodels.app sets it, and is imported before each of its modules."""
    text = Path(hubmodels.app.__file__).read_text(encoding="utf-8")
    assert 'os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"' in text
    assert 'os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"' in text
    imported = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import)]
    assert [alias.name for node in imported for alias in node.names] == ["os"]
    assert "gradio" not in Path(demo.__file__).read_text(encoding="utf-8")


# --- What it answers --------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("style", STYLES)
def test_every_side_is_drawn_in_every_style(handlers, photo, tmp_path, style):
    Image.fromarray(np.zeros((96, 64), np.uint8)).save(tmp_path / "mask.png")
    for side in SIDES:
        values = {"left": "photo", "right": side, "style": style, "other": PEOPLE}
        pictures, *_ = handlers.update(photo, CLOTHES, str(tmp_path / "mask.png"), asked(), **values)
        assert pictures.count("<img") == 2, side
        assert {"other": PEOPLE}.get(side, SIDES[side]) in pictures


def test_what_is_missing_for_a_comparison_is_said(handlers, photo):
    for side, words in (("truth", "add a mask"), ("other", "Choose another model")):
        details = handlers.update(photo, CLOTHES, None, asked(), right=side, other=CLOTHES)[1]
        assert words in details
    assert "scale 60" in handlers.update(photo, CLOTHES, None, asked(), style="superpixels")[1]


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


@pytest.mark.parametrize(
    "content", [b"", b"no photo at all", b"\x89PNG\r\n\x1a\n cut off"], ids=["empty", "text", "cut"]
)
def test_unreadable_photos_get_a_plain_sentence(handlers, tmp_path, content):
    path = tmp_path / "private-name.jpg"
    path.write_bytes(content)
    notice, *rest = handlers.update(str(path), PEOPLE, None, asked())
    assert 'role="alert"' in notice and "This photo cannot be read: " in notice and rest == [""] * (OUTPUTS - 1)
    assert "private-name" not in notice and str(tmp_path) not in notice
    with pytest.raises(gr.Error, match="This photo cannot be read") as caught:
        handlers.segment(str(path), PEOPLE)
    assert "private-name" not in caught.value.message and not caught.value.print_exception


def test_photos_are_analysed_on_one_thread_whoever_calls(handlers, photo, monkeypatch):
    """Every further thread that runs a network keeps memory of its own."""
    seen, real = set(), handlers.studio.answer

    def noted(*args: Any) -> Any:
        seen.add(threading.get_ident())
        return real(*args)

    monkeypatch.setattr(handlers.studio, "answer", noted)
    with ThreadPoolExecutor(4) as callers:
        done = [callers.submit(handlers.update, photo, PEOPLE, None, asked()) for _ in range(4)]
        done.append(callers.submit(handlers.take, "labels", photo, PEOPLE))
        done.append(callers.submit(handlers.segment, photo, PEOPLE))
        assert all(each.result() for each in done)
    assert len(seen) == 1 and threading.get_ident() not in seen


def test_unforeseen_failures_are_logged_without_names(handlers, photo, monkeypatch, caplog):
    def explode(*args: object) -> None:
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
    paths = {"astronaut": "/x/astronaut.png"}
    values = handlers.restore(
        {"model": PEOPLE, "example": "astronaut", "crf_iterations": "7", "style": "labels"}, paths
    )
    photo, task, menu, *rest = values
    assert (photo, task, menu.value) == ("/x/astronaut.png", "person", PEOPLE)
    assert rest[: len(CONTROLS)] == [7 if name == "crf_iterations" else c.default for name, c in CONTROLS.items()]
    assert rest[len(CONTROLS) :] == list(vars(View(style="labels", other=handlers.studio.models[-1])).values())
    assert handlers.restore({"model": PEOPLE}, paths)[0] is None  # somebody's own photo does not travel
    first = handlers.restore({}, paths)
    assert first[:2] == ("/x/astronaut.png", "fashion") and first[3 : 3 + len(CONTROLS)] == tuple(
        control.default for control in CONTROLS.values()
    )


def test_the_task_chooses_the_models(handlers):
    menu = handlers.menu("person", CLOTHES)
    assert {name for _, name in menu.choices} == set(hubmodels.list_models("person"))
    assert menu.value == DEFAULTS["person"]
    assert handlers.menu("fashion", CLOTHES).value == CLOTHES


# --- The API ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def api(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The page served on loopback, files in a folder of its own; the network is shut by conftest meanwhile."""
    with served_here(studio, tmp_path_factory.mktemp("api")) as served:
        yield served


def ask(api: SimpleNamespace, path: Any, model: str = PEOPLE, **settings: Any) -> tuple[str, str, dict[str, Any]]:
    photo = path if isinstance(path, dict) else gradio_client.handle_file(path)
    return api.client.predict(photo=photo, model=model, **settings, api_name="/segment")


def is_well(api: SimpleNamespace) -> bool:
    """The server goes on answering."""
    status, body = get(f"{api.url}/health")
    return status == 200 and json.loads(body)["status"] == "ok"


def test_the_api_answers_like_the_library(api, photo, person, small):
    mask, overlay, report = ask(api, photo, min_region_px=200)
    wanted = person.predict(small, refinement=Refinement(min_region_px=200))
    with Image.open(mask) as picture:
        assert picture.mode == "P" and not picture.getexif()
        assert_array_equal(np.asarray(picture), wanted.labels)
    with Image.open(overlay) as picture:
        assert picture.size == (64, 96)
    assert report["areas"] == wanted.areas() and report["model"] == PEOPLE
    assert Refinement.from_dict(report["settings"]) == Refinement(min_region_px=200)
    plain, *_ = ask(api, photo)  # settings are optional: all off
    with Image.open(plain) as picture:
        assert_array_equal(np.asarray(picture), person.predict(small).labels)


def test_models_and_health_are_told(api):
    assert {model["name"] for model in api.client.predict(api_name="/models")} == set(hubmodels.list_models())
    status, body = get(f"{api.url}/health")
    assert status == 200 and set(json.loads(body)) == {
        "status", "version", "models", "runtimes", "waiting", "remembered",
    }  # fmt: skip


def test_the_copied_api_calls_run(api, photo, person, small, tmp_path):
    settings = Refinement(crf_iterations=1, keep_largest=True, person_threshold=0.4)
    wanted = person.predict(small, refinement=settings)
    Path(photo).rename(tmp_path / "photo.jpg")  # the name in the snippets; what counts is the content
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        scope: dict[str, Any] = {}
        exec(snippets.client(api.url, PEOPLE, settings), scope)
        scope["client"].close()
    with Image.open(scope["mask"]) as picture:
        assert_array_equal(np.asarray(picture), wanted.labels)
    call = ["bash", "-euc", snippets.curl(api.url, PEOPLE, settings)]
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "event: complete" in done.stdout, done.stdout + done.stderr
    mask, _, report = json.loads(done.stdout.partition("event: complete")[2].partition("data: ")[2].splitlines()[0])
    assert report["areas"] == wanted.areas()
    status, content = get(mask["url"])
    (tmp_path / "labels.png").write_bytes(content)
    with Image.open(tmp_path / "labels.png") as picture:
        assert status == 200
        assert_array_equal(np.asarray(picture), wanted.labels)


def test_the_readme_shows_the_calls_that_run():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for snippet in (snippets.client, snippets.curl):
        assert snippet("http://127.0.0.1:7860", CLOTHES, Refinement(crf_iterations=5)) in readme


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_region_px": "many"}, "min_region_px must be a number"),
        ({"crf_iterations": 1000}, r"crf_iterations must be in 0\.\.20"),
        ({"crf_iterations": -1}, r"crf_iterations must be in 0\.\.20"),
        ({"crf_iterations": 2.5}, "whole number"),
        ({"keep_largest": "yes"}, "keep_largest must be one of"),
        ({"vote": ["loudly"]}, "vote must be one of"),
        ({"vote": "classifier"}, "has none"),
        ({"superpixel_scale": None}, "must be a number"),
        ({"model": "../../etc/passwd"}, "Served models"),
        ({"model": CLOTHES, "person_threshold": 0.3}, "two labels"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_wrong_parameters_are_refused(api, photo, settings, message):
    with pytest.raises(AppError, match=message):
        ask(api, photo, **settings)
    assert is_well(api)


def bomb(path: Path) -> None:
    """A PNG of 100 megapixels that says so in 60 bytes; its pixels would decode to 300 MB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    size = (10_000).to_bytes(4, "big") * 2
    header = chunk(b"IHDR", size + b"\x08\x02\x00\x00\x00")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""))


def heic(path: Path) -> None:
    path.write_bytes(b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(200))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("bomb.png", bomb, "100 megapixels; at most 24"),
        ("text.jpg", lambda path: path.write_text("no photo " * 1_200_000), "not an image of a known kind"),
        ("photo.heic", heic, "not an image of a known kind; expected JPEG"),
        ("empty.png", lambda path: path.write_bytes(b""), "cannot be read|empty"),
    ],
    ids=["bomb", "10 MB of text", "heic", "zero bytes"],
)
def test_files_that_are_no_photos_are_refused(api, tmp_path, name, make, message):
    make(tmp_path / name)
    with pytest.raises(AppError, match=message):
        ask(api, tmp_path / name)
    assert is_well(api)


def test_uncommon_photos_are_read(api, tmp_path, astronaut, person):
    """Animated GIF: its first frame; CMYK, 16 bits, palette and transparency as they look."""
    picture = Image.fromarray(astronaut).resize((64, 64))
    grey = np.asarray(picture.convert("L")).astype(np.uint16) * 257
    picture.save(tmp_path / "a.gif", save_all=True, append_images=[Image.new("RGB", (64, 64), "red")] * 2)
    picture.convert("CMYK").save(tmp_path / "b.jpg", quality=95)
    Image.fromarray(grey).save(tmp_path / "c.png")
    picture.convert("RGBA").save(tmp_path / "d.webp", lossless=True)
    for path in sorted(tmp_path.glob("*.*")):
        mask, *_ = ask(api, path)
        with Image.open(mask) as labels:
            assert_array_equal(np.asarray(labels), person.predict(path).labels, err_msg=path.name)


@pytest.mark.parametrize(
    "place",
    [
        {"path": "/etc/passwd"},
        {"path": str(ROOT / "pyproject.toml")},
        {"path": "../../../etc/passwd"},
        {"path": "http://127.0.0.1:9/x.png"},
        {"path": "HTTPS://example.org/x.png"},
        {"path": None, "url": "http://169.254.169.254/latest"},
        {"path": None, "url": "data:image/png;base64,AAAA"},
        {"path": "file:///etc/passwd"},
        {"path": ""},
    ],
    ids=str,
)
def test_files_of_the_server_and_addresses_are_out_of_reach(api, place):
    """By the queue, as the page and curl ask; gradio_client would refuse some of these on its own."""
    photo = {**place, "meta": {"_type": "gradio.FileData"}}
    status, body = get(f"{api.url}/gradio_api/call/v2/segment", {"photo": photo, "model": PEOPLE})
    if status == 200:
        event = json.loads(body)["event_id"]
        status, body = get(f"{api.url}/gradio_api/call/segment/{event}")
        assert b"event: error" in body and b"event: complete" not in body, body
    else:
        assert 400 <= status < 500
    assert b"root:" not in body and b"Traceback" not in body
    assert is_well(api)


def test_ways_around_the_queue_are_closed(api):
    heavy = next(index for index, function in api.page.fns.items() if function.api_name == "segment")
    for body in ({"data": []}, {"data": [], "fn_index": heavy}):
        assert get(f"{api.url}/gradio_api/run/segment", body)[0] == 404
    assert get(f"{api.url}/gradio_api/runs")[0] == 404
    assert get(f"{api.url}/gradio_api/file=/etc/passwd")[0] in (403, 404)
    assert get(f"{api.url}/gradio_api/file={ROOT / 'pyproject.toml'}")[0] in (403, 404)


def test_results_are_found_by_nobody_else(api, photo):
    """Files of answers lie under digests of their content; pictures of the page travel inside of the answer."""
    mask, *_ = ask(api, photo)
    folders = [path.parent.name for path in (api.folder / "gradio").rglob("labels.png")]
    assert folders and all(len(name) == 64 for name in folders)
    assert Path(mask).is_file()


# --- The command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What `main` passes on to Gradio; nothing is loaded or served."""
    calls: list[dict[str, Any]] = []

    def launch(self: gr.Blocks, **options: Any) -> tuple[Any, str, None]:
        calls.append(options)
        return SimpleNamespace(router=SimpleNamespace(routes=[])), "http://127.0.0.1", None

    monkeypatch.setattr(gr.Blocks, "launch", launch)
    monkeypatch.setattr(gr.Blocks, "block_thread", lambda self: None)
    monkeypatch.setattr(serving, "warm_up", lambda studio: None)
    return calls


def test_the_environment_decides_unless_told_otherwise(launches):
    demo.main([])
    demo.main(["--host", "0.0.0.0", "--port", "8000", "--auth", "me:pass:word"])
    assert [(call["server_name"], call["server_port"]) for call in launches] == [(None, None), ("0.0.0.0", 8000)]
    assert [call["auth"] for call in launches] == [None, [("me", "pass:word")]]


def test_options_reach_the_page(monkeypatch, launches):
    built: list[Any] = []

    def note(studio: Studio, **options: int) -> gr.Blocks:
        built.append((studio.models, studio.max_pixels, studio.runtime, options))
        return build(studio, **options)

    monkeypatch.setattr("hubmodels.app.page.build", note)
    options = ["--models", PEOPLE, "--max-megapixels", "2.5", "--queue-size", "3", "--concurrency", "2"]
    demo.main([*options, "--runtime", "torch"])
    schedule = {"clean_every_s": 600, "file_age_s": 3000}  # no visitor's file outlives an hour
    wanted = ((PEOPLE,), 2_500_000, "torch", {"queue_size": 3, "concurrency": 2, **schedule})
    assert built == [wanted]
    arguments = build_parser().parse_args(["demo", *options])  # the same command under the other name
    assert arguments.handler(arguments) == 0
    assert built == [wanted, (*wanted[:2], "auto", wanted[3])]  # the faster runtime unless told otherwise


def test_a_link_that_cannot_be_had_is_said(launches, capsys):
    demo.main(["--share"])
    assert launches[0]["share"] is True
    assert "No public link" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--models", "no_such"], "no model named"),
        (["--auth", "nobody"], "USER:PASSWORD"),
    ],
)
def test_wrong_options_end_with_a_sentence(launches, options, message):
    with pytest.raises(SystemExit, match=message):
        demo.main(options)
    assert not launches


@pytest.mark.parametrize("option", ["--queue-size", "--concurrency", "--max-megapixels"])
@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_limits_must_be_positive(option, value, capsys):
    with pytest.raises(SystemExit):
        demo.main([option, value])
    assert "expected a positive number" in capsys.readouterr().err


def test_a_busy_port_ends_with_a_sentence(launches, monkeypatch):
    def launch(self: gr.Blocks, **options: object) -> None:
        raise OSError("Cannot find empty port in range: 80-80.")

    monkeypatch.setattr(gr.Blocks, "launch", launch)
    with pytest.raises(SystemExit, match="cannot be served: Cannot find empty port"):
        demo.main(["--port", "80"])


def test_without_gradio_the_remedy_is_said(launches, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"pip install 'hubmodels\[demo\]'"):
        demo.main([])


def test_warm_up_answers_for_the_example_before_the_first_visitor(studio, capsys, monkeypatch):
    fresh = Studio()
    serving.warm_up(fresh)
    said = capsys.readouterr().out
    assert all(f"Loading models: {i} of" in said and name in said for i, name in enumerate(fresh.models, 1))
    assert set(fresh.speeds) == set(fresh.models) and min(fresh.speeds.values()) > 0
    for name in fresh.models:
        photo = Photo.of(EXAMPLES["astronaut"].pixels())
        assert "network" not in fresh.analyse(photo, name, Refinement()).seconds


def test_visitors_hear_when_the_server_is_busy(studio, tmp_path, photo):
    """With room for one waiting call, more at a time are refused with a clear message and the rest succeeds."""
    with served_here(studio, tmp_path, queue_size=1) as busy:
        uploaded = gradio_client.handle_file(photo)
        jobs = [busy.client.submit(photo=uploaded, model=PEOPLE, api_name="/segment") for _ in range(12)]
        errors = [error for job in jobs if (error := job.exception(timeout=120))]
        assert 0 < len(errors) < len(jobs)
        assert all("Queue is full" in str(error) for error in errors)
