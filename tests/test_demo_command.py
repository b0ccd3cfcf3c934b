"""The command that serves the page: its options, what it says when it cannot, and the warm-up."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

import demo
from hubmodels import Refinement
from hubmodels.app import server as serving
from hubmodels.app.examples import EXAMPLES
from hubmodels.app.page import build
from hubmodels.app.studio import Photo, Studio
from hubmodels.cli import build_parser
from tests.page_examples import PEOPLE
from tests.page_server import GRADIO_MARKS

pytestmark = GRADIO_MARKS


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """What `main` passes on to Gradio; nothing is loaded or served."""
    calls: list[dict[str, Any]] = []

    def launch(self: gr.Blocks, **options: Any) -> tuple[Any, str, None]:
        calls.append(options)
        return SimpleNamespace(router=SimpleNamespace(routes=[])), "http://127.0.0.1", None

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
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
    wanted = ((PEOPLE,), 2_500_000, "torch", {"queue_size": 3, "concurrency": 2})
    assert built == [wanted]
    arguments = build_parser().parse_args(["demo", *options])  # the same command under the other name
    assert arguments.handler(arguments) == 0
    assert built == [wanted, (*wanted[:2], "auto", wanted[3])]  # the faster runtime unless told otherwise


def test_no_file_of_a_visitor_outlives_an_hour_or_fills_the_disk(monkeypatch, launches):
    started: list[Any] = []
    real = serving._clean
    monkeypatch.setattr(serving, "_clean", lambda *arguments: started.append(arguments[3:]) or real(*arguments))
    demo.main([])
    demo.main(["--max-disk-mb", "0.5"])
    assert started == [(60, {"age_s": 3000, "max_bytes": n}) for n in (2e9, 5e5)]


def test_a_link_that_cannot_be_had_is_said(launches, capsys):
    demo.main(["--share"])
    assert launches[0]["share"] is True
    assert "No public link" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--models", "no_such"], "no model named"),
        (["--auth", "nobody"], "USER:PASSWORD"),
        (["--share"], "--share asks Gradio's service"),
    ],
)
def test_wrong_options_end_with_a_sentence(launches, options, message, monkeypatch):
    monkeypatch.setenv("HUBMODELS_OFFLINE", "1")  # which matters to --share alone
    with pytest.raises(SystemExit, match=message):
        demo.main(options)
    assert not launches


@pytest.mark.parametrize("port", ["0", "99999", "http"])
def test_a_port_is_checked_before_models_are_loaded(launches, port, capsys):
    with pytest.raises(SystemExit):
        demo.main(["--port", port])
    assert "--port" in capsys.readouterr().err and not launches


@pytest.mark.parametrize("option", ["--queue-size", "--concurrency", "--max-megapixels", "--max-disk-mb"])
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


def test_warm_up_finds_what_does_not_work_here(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)  # as if it were not installed
    studio = Studio([PEOPLE])
    serving.warm_up(studio)
    assert "merge kmeans is not available: " in capsys.readouterr().out
    assert studio.unavailable == {"merge": {"kmeans"}}
