"""The page without a browser: the work behind it, what it is built of, and its API."""

from __future__ import annotations

import ast
import asyncio
import dataclasses
import io
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType

import gradio as gr
import gradio_client
import numpy as np
import pytest
from gradio_client.exceptions import AppError
from numpy.testing import assert_array_equal
from PIL import Image

import demo
import hubmodels
from hubmodels import ImageError, LabelSet, Refinement, Segmentation
from hubmodels.segmenter import Segmenter

FASHION = "deeplabv3plus_fashion"
PERSON = "deeplabv3plus_person"
SMALL = (96, 64)  # height, width: fast through the network

# Gradio 6.31 counts its events with what pandas 3.1 calls outdated.
pytestmark = [
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]


@pytest.fixture(autouse=True, scope="module")
def no_stray_event_loops() -> Iterator[None]:
    """Gradio opens an event loop for each lock and never closes it; since Python 3.10 locks need none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gradio.queueing.safe_get_lock", asyncio.Lock)
        patch.setattr("gradio.utils.safe_get_lock", asyncio.Lock)
        patch.setattr("gradio.utils.safe_get_stop_event", asyncio.Event)
        yield


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "TUNERS", demo.TunerCache())


@pytest.fixture
def network_runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the models whose networks ran."""
    runs: list[str] = []
    real = Segmenter.probabilities

    def counted(self: Segmenter, image: np.ndarray, **options: object) -> np.ndarray:
        runs.append(self.name)
        return real(self, image, **options)

    monkeypatch.setattr(Segmenter, "probabilities", counted)
    return runs


@pytest.fixture
def small(astronaut: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(astronaut).resize(SMALL[::-1]))


def png_file(folder: Path, array: np.ndarray) -> str:
    Image.fromarray(array).save(folder / "photo.png")
    return str(folder / "photo.png")


# --- analyse ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"superpixel_scale": 50.0, "min_region_px": 300}], ids=["off", "on"])
def test_analyse_gives_what_predict_gives(astronaut, fashion, settings):
    wanted = fashion.predict(astronaut, refinement=Refinement(**settings))
    assert len(np.unique(wanted.labels)) > 1
    assert_array_equal(demo.analyse(astronaut, FASHION, **settings).segmentation.labels, wanted.labels)


def test_every_slider_changes_the_labels(astronaut):
    off = demo.analyse(astronaut, FASHION).segmentation.labels
    for control in demo.CONTROLS:
        on = demo.analyse(astronaut, FASHION, **{control.name: control.maximum / 2}).segmentation.labels
        assert (on != off).any(), control.name


def test_the_network_runs_once_per_photo_and_model(small, network_runs):
    for scale in (0, 50, 100):
        demo.analyse(small, FASHION, superpixel_scale=scale)
        demo.analyse(Image.fromarray(small), FASHION, min_region_px=scale)  # the same pixels in another wrapping
    assert network_runs == [FASHION]
    demo.analyse(small, PERSON)
    assert network_runs == [FASHION, PERSON]


def test_answers_of_photos_alike_are_not_mixed_up(small, network_runs):
    other = small.copy()
    other[0, 0, 0] ^= 1
    reshaped = small.reshape(SMALL[1], SMALL[0], 3)  # the same bytes, another picture
    for photo in (small, other, reshaped):
        assert_array_equal(demo.analyse(photo, FASHION).segmentation.image, photo)
    assert network_runs == [FASHION] * 3


@pytest.mark.parametrize("control", demo.CONTROLS, ids=lambda control: control.name)
def test_numbers_out_of_range_are_clamped(small, control):
    assert getattr(demo.analyse(small, PERSON, **{control.name: 1e9}).settings, control.name) == control.maximum
    assert getattr(demo.analyse(small, PERSON, **{control.name: -1e9}).settings, control.name) == 0


@pytest.mark.parametrize("value", ["12", None, True, float("nan"), [1]], ids=repr)
def test_what_is_no_number_is_refused(small, value):
    for control in demo.CONTROLS:
        with pytest.raises((TypeError, ValueError), match=control.name):
            demo.analyse(small, PERSON, **{control.name: value})


def test_unknown_names_are_refused(small):
    with pytest.raises(ValueError, match="superpixel_scael"):
        demo.analyse(small, PERSON, superpixel_scael=3)
    with pytest.raises(hubmodels.ModelNotFoundError, match=PERSON):
        demo.analyse(small, PERSON + "s")


def test_photos_with_too_many_pixels_are_refused_before_the_network(small, network_runs, monkeypatch):
    monkeypatch.setattr(demo, "MAX_PIXELS", small.size // 3 - 1)
    with pytest.raises(ImageError, match="megapixels"):
        demo.analyse(small, PERSON)
    assert not network_runs


def test_previews_are_small_and_clean(small):
    picture = Image.fromarray(small).resize((1500, 30))
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x010E] = "secret"
    picture.save(file, "JPEG", exif=exif, comment=b"secret")
    result = demo.analyse(file.getvalue(), PERSON)
    assert result.segmentation.labels.shape == (30, 1500)
    for shown in (result.photo, result.overlay):
        assert shown.size == (1024, 20) and shown.mode == "RGB"
        assert not shown.info and not shown.getexif()


def test_previews_of_small_photos_are_the_photo_and_the_overlay(astronaut):
    result = demo.analyse(astronaut, FASHION)
    assert_array_equal(np.asarray(result.photo), astronaut)
    assert_array_equal(np.asarray(result.overlay), np.asarray(result.segmentation.overlay()))


def test_the_cache_forgets_what_was_used_longest_ago():
    def fail() -> object:
        raise AssertionError("computed again")

    cache = demo.TunerCache(max_pixels=100, max_photos=3)
    tuners = {key: object() for key in "abcde"}
    for key in "abc":
        cache.get(key, 10, lambda key=key: tuners[key])
    assert cache.get("a", 10, fail) is tuners["a"]
    cache.get("d", 10, lambda: tuners["d"])  # the fourth: b goes, as a was used after it
    assert [cache.get(key, 10, fail) for key in "cad"] == [tuners[key] for key in "cad"]
    with pytest.raises(AssertionError, match="computed again"):
        cache.get("b", 10, fail)
    cache.get("e", 1000, lambda: tuners["e"])  # larger than all room: it stays alone
    assert cache.get("e", 1000, fail) is tuners["e"]
    with pytest.raises(AssertionError, match="computed again"):
        cache.get("d", 10, fail)


# --- Text -------------------------------------------------------------------------------------------------------------


def test_the_legend_names_every_label_with_its_share():
    labels = LabelSet("demo", ("ground", "<b>&hat", "shoe"), ((0, 0, 0), (1, 2, 3), (4, 5, 6)))
    drawn = np.array([[0, 0, 0, 1]], np.uint8)
    seg = Segmentation(np.zeros((1, 4, 3), np.uint8), drawn, np.zeros((3, 1, 4), np.float32), labels)
    page = demo.legend_html(seg, FASHION)
    assert "<b>" not in page and page.count("&lt;b&gt;&amp;hat") == 2
    assert page.count("<li") == 3 and page.count("background:rgb(1, 2, 3)") == 2
    assert "Found &lt;b&gt;&amp;hat (25.0\u00a0%); 75.0\u00a0% is ground." in page
    assert 'class="absent"' in page


@pytest.mark.parametrize(
    ("share", "text"), [(0, "0"), (1e-9, "<0.1"), (0.0005, "0.1"), (0.25, "25.0"), (1, "100.0")], ids=str
)
def test_shares_read_well(share, text):
    assert demo.percent(share) == f"{text}\u00a0%"


def test_nothing_found_is_said():
    assert demo.summary({"background": 1.0, "person": 0.0}) == "Nothing found: all of the photo is background."


def test_the_menu_shows_scores_only_when_there_are_any(monkeypatch):
    def menu_with(metrics: dict[str, float]) -> list[tuple[str, str]]:
        entry = dataclasses.replace(hubmodels.ENTRIES[FASHION])
        object.__setattr__(entry, "measured", MappingProxyType({**entry.measured, "metrics": metrics}))
        monkeypatch.setattr(demo, "find_entry", lambda name: entry)
        return demo.model_choices("fashion")[:1]

    assert menu_with({}) == [(FASHION, FASHION)]
    assert menu_with({"miou": 0.6123}) == [(f"{FASHION} · 61.2 mIoU", FASHION)]


def test_the_task_chooses_the_models():
    menu = demo.model_menu("person", FASHION)
    assert [name for _, name in menu.choices] == hubmodels.list_models("person")
    assert menu.value == PERSON
    assert demo.model_menu("fashion", FASHION).value == FASHION


# --- The page ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page() -> gr.Blocks:
    return demo.build()


def test_every_component_can_be_found_and_named(page):
    shown = [block for block in page.blocks.values() if isinstance(block, gr.components.Component)]
    assert len(shown) > 8
    for block in shown:
        assert block.elem_id and (getattr(block, "label", None) or getattr(block, "value", None)), block
    assert len({block.elem_id for block in shown}) == len(shown)


def test_sliders_come_from_the_library(page):
    sliders = {block.elem_id: block for block in page.blocks.values() if isinstance(block, gr.Slider)}
    assert set(sliders) == {control.name for control in demo.CONTROLS}
    for control in demo.CONTROLS:
        slider = sliders[control.name]
        assert slider.value == getattr(Refinement(), control.name)
        Refinement(**{control.name: slider.maximum})  # the whole range is allowed


def test_one_public_endpoint_with_stable_names(page):
    named = page.get_api_info()["named_endpoints"]
    assert list(named) == ["/segment"]
    parameters = {p["parameter_name"]: p for p in named["/segment"]["parameters"]}
    assert list(parameters) == ["photo", "model", *(control.name for control in demo.CONTROLS)]
    assert parameters["model"]["type"]["enum"] == hubmodels.list_models()
    for control in demo.CONTROLS:
        assert parameters[control.name]["parameter_default"] == control.default
    public = [function for function in page.fns.values() if function.api_visibility == "public"]
    assert [function.api_name for function in public] == ["segment"]


def test_the_server_is_bounded_and_silent(page):
    heavy = next(function for function in page.fns.values() if function.api_name == "segment")
    assert (heavy.concurrency_id, heavy.concurrency_limit) == ("segment", 1)
    assert page.max_queue_size if hasattr(page, "max_queue_size") else page._queue.max_size == 16
    assert page.api_open is False and page.analytics_enabled is False and page.delete_cache
    assert demo.LAUNCH["show_error"] is False and demo.LAUNCH["run_history"] is False
    assert demo.LAUNCH["ssr_mode"] is False and demo.LAUNCH["max_file_size"]


def test_telemetry_is_off_before_gradio_is_imported():
    body = ast.parse(Path(demo.__file__).read_text(encoding="utf-8")).body
    first_import = next(i for i, node in enumerate(body) if ast.unparse(node) == "import gradio as gr")
    before = {ast.unparse(node) for node in body[:first_import]}
    assert "os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'" in before
    assert "os.environ['HF_HUB_DISABLE_TELEMETRY'] = '1'" in before
    assert not any("hubmodels" in line for line in before)


@pytest.mark.parametrize(
    "content", [b"", b"no photo at all", b"\x89PNG\r\n\x1a\n cut off"], ids=["empty", "text", "cut"]
)
def test_unreadable_photos_get_a_plain_sentence(tmp_path, content):
    path = tmp_path / "private-name.jpg"
    path.write_bytes(content)
    with pytest.raises(gr.Error) as caught:
        demo.segment(str(path), PERSON, cache_dir=str(tmp_path))
    message = caught.value.message
    assert message.startswith("This photo cannot be read: ")
    assert "private-name" not in message and str(tmp_path) not in message and not caught.value.print_exception
    assert demo.clear_unreadable(str(path))[0] is None  # and the result of another photo does not stay


def test_other_failures_are_plain_sentences_too(tmp_path, small):
    photo = png_file(tmp_path, small)
    with pytest.raises(gr.Error, match="no longer here"):
        demo.segment(str(tmp_path / "gone.png"), PERSON, cache_dir=str(tmp_path))
    with pytest.raises(gr.Error, match="did you mean"):
        demo.segment(photo, PERSON + "x", cache_dir=str(tmp_path))
    with pytest.raises(gr.Error, match="min_region_px must be a number"):
        demo.segment(photo, PERSON, cache_dir=str(tmp_path), min_region_px="<i>")
    assert demo.clear_unreadable(photo)[0] == gr.skip()  # not the photo's fault: the result stays


def test_no_photo_is_an_invitation(tmp_path):
    compare, mask, report, legend = demo.segment(None, PERSON, cache_dir=str(tmp_path))
    assert compare is None and report is None and mask is None and "pick the example" in legend


# --- The API ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The page served on loopback, files in a folder of its own; the network is shut by conftest meanwhile."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    page = demo.build()
    page.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", **demo.LAUNCH)
    yield page
    page.close()


def post(url: str, body: object) -> int:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        return urllib.request.urlopen(request, timeout=20).status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_the_api_answers_like_the_library(server, tmp_path, astronaut, person):
    url = server.local_url
    client = gradio_client.Client(url, download_files=tmp_path / "answers", analytics_enabled=False, verbose=False)
    try:
        photo = gradio_client.handle_file(png_file(tmp_path, astronaut))
        compare, mask, report, legend = client.predict(
            photo=photo, model=PERSON, min_region_px=200, api_name="/segment"
        )
        wanted = person.predict(astronaut, refinement=Refinement(min_region_px=200))
        with Image.open(mask) as picture:
            assert picture.mode == "P" and not picture.getexif()
            assert tuple(picture.getpalette()[:6]) == (*person.labels.palette[0], *person.labels.palette[1])
            assert_array_equal(np.asarray(picture), wanted.labels)
        assert report["areas"] == wanted.areas() and report["model"] == PERSON
        assert Refinement.from_dict(report["settings"]) == Refinement(min_region_px=200)
        assert len(compare) == 2 and "person" in legend

        plain = client.predict(photo=photo, model=PERSON, api_name="/segment")  # settings are optional: all off
        with Image.open(plain[1]) as picture:
            assert_array_equal(np.asarray(picture), person.predict(astronaut).labels)

        clamped = client.predict(photo=photo, model=PERSON, min_region_px=5000.4, api_name="/segment")
        assert clamped[2]["settings"]["min_region_px"] == 1000
        with pytest.raises(AppError, match="min_region_px must be a number"):
            client.predict(photo=photo, model=PERSON, min_region_px="many", api_name="/segment")
        (tmp_path / "photo.jpg").write_bytes(b"no photo at all")
        with pytest.raises(AppError, match="This photo cannot be read: not an image"):
            client.predict(photo=gradio_client.handle_file(tmp_path / "photo.jpg"), model=PERSON, api_name="/segment")
        data_url = {"url": "data:image/png;base64,AAAA", "path": None, "meta": {"_type": "gradio.FileData"}}
        with pytest.raises(AppError, match="as an uploaded file"):
            client.predict(photo=data_url, model=PERSON, api_name="/segment")
    finally:
        client.close()
    heavy = next(index for index, function in server.fns.items() if function.api_name == "segment")
    for body in ({"data": []}, {"data": [], "fn_index": heavy}):  # the ways around the queue are closed
        assert post(f"{url}gradio_api/run/segment", body) == 404


# --- The command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def launches(monkeypatch) -> list[dict[str, object]]:
    """What `main` passes on to Gradio; nothing is loaded or served."""
    calls: list[dict[str, object]] = []

    def launch(self: gr.Blocks, **options: object) -> tuple[None, str, None]:
        calls.append(options)
        return None, "http://127.0.0.1", None

    monkeypatch.setattr(gr.Blocks, "launch", launch)
    monkeypatch.setattr(gr.Blocks, "block_thread", lambda self: None)
    monkeypatch.setattr(demo, "warm_up", lambda: None)
    return calls


def test_the_environment_decides_unless_told_otherwise(launches):
    demo.main([])
    demo.main(["--host", "0.0.0.0", "--port", "8000"])
    assert [(call["server_name"], call["server_port"]) for call in launches] == [(None, None), ("0.0.0.0", 8000)]


def test_a_link_that_cannot_be_had_is_said(launches, capsys):
    demo.main(["--share"])
    assert launches[0]["share"] is True
    assert "No public link" in capsys.readouterr().out


def test_a_busy_port_ends_with_a_sentence(launches, monkeypatch):
    def launch(self: gr.Blocks, **options: object) -> None:
        raise OSError("Cannot find empty port in range: 80-80.")

    monkeypatch.setattr(gr.Blocks, "launch", launch)
    with pytest.raises(SystemExit, match="cannot be served: Cannot find empty port"):
        demo.main(["--port", "80"])


def test_warm_up_answers_for_the_example_before_the_first_visitor(network_runs, capsys):
    demo.warm_up()
    assert sorted(network_runs) == hubmodels.list_models()
    for name in hubmodels.list_models():
        demo.analyse(demo.example_photo(), name)
    assert sorted(network_runs) == hubmodels.list_models()  # nothing ran again
    assert all(name in capsys.readouterr().out for name in hubmodels.list_models()[:1])
