"""What the page is built of: named parts, controls of the library, stable endpoints, bounded queues."""

from __future__ import annotations

import ast
import asyncio
from pathlib import Path

import gradio as gr
import pytest
from gradio import processing_utils
from gradio.data_classes import PredictBodyInternal
from gradio.queueing import Queue
from starlette.requests import Request

import demo
import hubmodels.app
from hubmodels.app import busy
from hubmodels.app import server as serving
from hubmodels.app.busy import HEAVY, MAX_LIGHT
from hubmodels.app.controls import CONTROLS
from hubmodels.app.menus import Menus
from hubmodels.app.page import DOWNLOAD, build
from hubmodels.app.studio import Studio
from hubmodels.app.views import SIDES
from tests.page_examples import PEOPLE
from tests.page_server import GRADIO_MARKS

pytestmark = GRADIO_MARKS


@pytest.fixture(scope="module")
def page(studio: Studio) -> gr.Blocks:
    return build(studio)


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
    assert [title for title, _ in blocks["model"].choices] == [title for title, _ in Menus(Studio()).choices()]
    assert blocks["left"].choices == [(title, key) for key, title in SIDES.items()]


def test_choices_that_do_not_work_here_are_not_offered():
    studio = Studio([PEOPLE])
    studio.unavailable = {"merge": {"kmeans"}}
    page = build(studio)
    (merge,) = (block for block in page.blocks.values() if getattr(block, "elem_id", None) == "merge")
    assert [value for _, value in merge.choices] == ["off", "cut", "hierarchical"]
    parameters = page.get_api_info()["named_endpoints"]["/segment"]["parameters"]
    assert {p["parameter_name"]: p for p in parameters}["merge"]["type"]["enum"] == ["off", "cut", "hierarchical"]


def test_public_endpoints_have_stable_names(page):
    named = page.get_api_info()["named_endpoints"]
    assert list(named) == ["/segment", "/models"]
    parameters = {p["parameter_name"]: p for p in named["/segment"]["parameters"]}
    assert list(parameters) == ["photo", "model", *CONTROLS, "absent"]
    assert sorted(parameters["model"]["type"]["enum"]) == hubmodels.list_models()
    assert parameters["photo"]["parameter_default"] is None  # not the page's example
    for control in CONTROLS.values():
        assert parameters[control.name]["parameter_default"] == control.default
    assert parameters["absent"]["parameter_default"] == []
    assert [answer["label"] for answer in named["/segment"]["returns"]] == ["mask", "overlay", "report"]


def test_heavy_work_shares_one_slot_and_the_queue_is_bounded(studio):
    page = build(studio, queue_size=7, concurrency=2)
    heavy = [f for f in page.fns.values() if f.concurrency_id == HEAVY]
    names = {f.api_name or getattr(f.fn, "__name__", "") for f in heavy}
    assert "segment" in names and len(heavy) == 7  # updates, five downloads, and the API
    assert all(f.concurrency_limit == 2 for f in heavy)
    assert page._queue.max_size == 7 + MAX_LIGHT and page.api_open is False
    assert page.analytics_enabled is False and page.delete_cache is None  # the server deletes
    assert all(
        f.queue is not False for f in page.fns.values() if f.fn is not None and f.api_name != "load_example"
    )  # that one only names a file
    launch = serving.LAUNCH
    assert launch["show_error"] is False and launch["run_history"] is False and launch["ssr_mode"] is False
    assert launch["max_file_size"] and launch["enable_monitoring"] is False


def test_calls_that_compute_and_calls_that_arrange_the_page_wait_apart(studio, monkeypatch):
    """Neither is refused because of the other: a link whose menus are still on their way has an answer all the same."""
    monkeypatch.setattr(busy, "MAX_LIGHT", 4)
    page = build(studio, queue_size=2)
    functions = [f for f in page.fns.values() if f.fn is not None and f.queue is not False]
    light, heavy = (
        next(f._id for f in functions if (f.concurrency_id == HEAVY) is computes) for computes in (False, True)
    )

    async def ask_for(*wanted: int | None) -> list[str]:
        """The states of calls of which none is taken up, as the queue was not started."""
        request = Request({"type": "http", "headers": []})
        states = []
        for function in wanted:
            body = PredictBodyInternal(session_hash="visitor", data=[], fn_index=function, request=request)
            _, _, state = await page._queue.push(body=body, request=request, username=None)
            states.append(state)
        return states

    states = asyncio.run(ask_for(None, light, light, light, heavy, heavy, heavy, light, light))
    assert states == ["error"] + ["success"] * 5 + ["queue_full", "success", "queue_full"]
    assert busy.waiting(page._queue) == 2 and len(page._queue) == 6


def test_answers_that_nobody_reads_are_forgotten_and_those_that_are_read_stay(studio):
    """The oldest of those that lie there first; who listens takes each message as it comes."""
    queue = build(studio)._queue

    async def answer_all() -> dict[str, int]:
        unread, sessions = busy.Unread(queue), queue.pending_messages_per_session
        for name in ("gone", "listens", "late"):
            sessions[name] = asyncio.Queue()
        for step in range(30):
            for name in ("gone", "listens") if step < 10 else ("late", "listens"):
                sessions[name].put_nowait(f"{name} {step}")
            unread.forget(25)
            if step % 2:
                sessions["listens"].get_nowait(), sessions["listens"].get_nowait()
        return {name: each.qsize() for name, each in sessions.items()}

    left = asyncio.run(answer_all())
    assert left == {"gone": 0, "listens": 0, "late": 20}


def test_a_preset_for_a_model_that_is_not_served_is_that_of_the_default(studio, capsys):
    """Callers may say anything: it is neither looked up on the host nor written into its log."""
    page = build(studio)
    (chosen,) = [f.fn for f in page.fns.values() if getattr(f.fn, "__name__", "") == "chosen"][:1]
    assert chosen("/etc") == chosen(studio.default_model())
    menus = Menus(studio)
    assert (
        menus.adapt("/etc", [], "probability", "", "")[3].choices
        == menus.adapt(studio.default_model(), [], "probability", "", "")[3].choices
    )
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("owner", "name", "message"),
    [
        (processing_utils, DOWNLOAD, "gradio.processing_utils.async_ssrf_protected_download; .* visit addresses"),
        (Queue, "push", r"Queue.push; .* not be told .*: pip install 'hubmodels\[demo\]'"),
        (gr.Blocks, "preprocess_data", "Blocks.preprocess_data; .* no upload"),
    ],
    ids=["addresses", "busy", "uploads"],
)
def test_a_gradio_without_what_the_page_replaces_is_refused(studio, monkeypatch, owner, name, message):
    """Or else what was replaced would come back, unnoticed."""
    monkeypatch.delattr(owner, name)
    with pytest.raises(ImportError, match=message):
        build(studio)


def test_telemetry_is_off_before_gradio_can_be_imported():
    """hubmodels.app sets it, and is imported before each of its modules."""
    text = Path(hubmodels.app.__file__).read_text(encoding="utf-8")
    assert 'os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"' in text
    assert 'os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"' in text
    imported = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import)]
    assert [alias.name for node in imported for alias in node.names] == ["os"]
    assert "gradio" not in Path(demo.__file__).read_text(encoding="utf-8")
