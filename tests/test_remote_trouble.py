"""A Hub that is not there, does not answer or is out of order: one error within seconds, and the cache is used."""

from __future__ import annotations

import json
import re

import pytest

from tests.hub_processes import start, told
from tests.hub_server import LoopbackHub

OUT_OF_ORDER = {
    "500": r"is out of order \(status 500\); try again later",
    "503": r"is out of order \(status 503\); try again later",
    "504": r"is out of order \(status 504\); try again later",
    "429": r"too many requests \(status 429\); wait some minutes",
    "silent": r"does not answer \(ReadTimeout.*\); try again later",
}
OUT_OF_ORDER_SECONDS = 10  # without our bound 23 for a status, 105 after too many requests, and minutes in silence


@pytest.fixture(scope="module")
def disorder(tmp_path_factory):
    """What a process told of repositories that were pulled before their server fell out of order, and of new ones."""
    script = """
from hubmodels import remote
time.sleep = waiting  # the client's back-off counts here
remote.ANSWER_SECONDS = 2
from_pretrained = hubmodels.Segmenter.from_pretrained
model = hubmodels.Segmenter(config.build(), config.labels, name="tiny", input_px=64, config=config).eval()
tell("sum", sum_of(model))
for fault in sys.argv[1:]:
    model.push_to_hub(f"me/old_{fault}")
    hubmodels.load(f"me/old_{fault}")
print("ready", flush=True)
sys.stdin.readline()
for fault in sys.argv[1:]:
    attempt(f"new {fault}", lambda: hubmodels.load(f"me/new_{fault}"))
    attempt(f"again {fault}", lambda: from_pretrained(f"me/old_{fault}", force_download=True))
    attempt(f"push {fault}", lambda: model.push_to_hub(f"me/old_{fault}"))
    attempt(f"old {fault}", lambda: tell(f"old sum {fault}", sum_of(hubmodels.load(f"me/old_{fault}"))))
"""
    with LoopbackHub() as hub:
        process = start(script, hub, tmp_path_factory.mktemp("disorder"), *OUT_OF_ORDER)
        lines = [process.stdout.readline() for _ in range(2)]
        assert lines[1] == "ready\n", process.communicate()[1]
        for fault in OUT_OF_ORDER:
            hub.commit(f"me/new_{fault}", list(hub.commits[f"me/old_{fault}"].values())[-1])
            hub.faults |= {f"me/{age}_{fault}": fault for age in ("new", "old")}
        yield {**told(process), **dict([json.loads(lines[0])])}


@pytest.mark.parametrize("fault", OUT_OF_ORDER)
@pytest.mark.parametrize(
    "what, start",
    [("new", "config.json: not in the cache, and "), ("again", "cannot be downloaded again, as "), ("push", "")],
)
def test_a_hub_out_of_order_is_one_error_within_seconds(disorder, what, start, fault):
    kind, message, seconds = disorder[f"{what} {fault}"]
    assert kind == "WeightsError" and re.search(f"{start}http.*{OUT_OF_ORDER[fault]}", message), message
    assert "\n" not in message
    assert seconds < OUT_OF_ORDER_SECONDS


@pytest.mark.parametrize("fault", OUT_OF_ORDER)
def test_what_is_cached_of_the_revision_is_used_while_the_hub_is_out_of_order(disorder, fault):
    kind, message, seconds = disorder[f"old {fault}"]
    assert kind == "loaded" and disorder[f"old sum {fault}"] == disorder["sum"], message
    assert seconds < OUT_OF_ORDER_SECONDS


def test_who_has_set_a_longer_timeout_of_the_client_gets_it(monkeypatch):
    import huggingface_hub
    from huggingface_hub import constants

    from hubmodels import remote

    asked = []
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda *_, timeout, **__: asked.append(timeout))
    for seconds in (constants.DEFAULT_ETAG_TIMEOUT, 30):
        monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", seconds)
        assert remote._no_answer("me/tiny", "config.json", None, None) == ""
    assert asked == [remote.ANSWER_SECONDS, 30] and remote.ANSWER_SECONDS <= 5


def test_a_process_that_is_offline_from_the_start_sends_nothing(tmp_path):
    """Neither does huggingface_hub, whose first call would ask its server about the program around it."""
    fetch = 'tell("cached", str(hubmodels.remote.fetch("me/tiny", "config.json")))\n'
    offline = 'os.environ["HUBMODELS_OFFLINE"] = "1"\n' + fetch
    with LoopbackHub() as hub:
        hub.commit("me/tiny", {"config.json": b"{}"})
        online = told(start("import hubmodels.remote\n" + fetch, hub, tmp_path))
        count = len(hub.requests)
        said = told(
            start(
                f"import hubmodels.remote\n{offline}attempt('other', lambda: hubmodels.load('me/other'))", hub, tmp_path
            )
        )
        assert count > 0 and hub.requests[count:] == []
    assert said["cached"] == online["cached"]
    assert "not in the cache, and HUBMODELS_OFFLINE" in said["other"][1]


def test_a_hub_that_does_not_answer_is_given_up_soon(monkeypatch):
    import socket

    from hubmodels import remote

    asked = []

    def silent(address: tuple[str, int], timeout: float) -> None:
        asked.append((address, timeout))
        raise TimeoutError

    monkeypatch.setattr(remote, "endpoint", lambda: "http://hub.example:8000")
    monkeypatch.setattr(socket, "create_connection", silent)
    assert not remote.is_reachable()
    assert asked == [(("hub.example", 8000), remote.CONNECT_SECONDS)]


def test_behind_a_proxy_the_proxy_is_what_must_be_reached(monkeypatch):
    from hubmodels import remote

    with LoopbackHub() as hub:
        monkeypatch.setattr(remote, "endpoint", lambda: "https://hub.example")
        monkeypatch.setenv("https_proxy", hub.endpoint)
        monkeypatch.delenv("no_proxy", raising=False)
        assert remote.is_reachable()
        monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
        assert not remote.is_reachable()
        monkeypatch.delenv("https_proxy")
        assert not remote.is_reachable()
        monkeypatch.setenv("all_proxy", hub.endpoint)
        assert remote.is_reachable()
        monkeypatch.setenv("https_proxy", hub.endpoint)
        monkeypatch.setenv("no_proxy", "hub.example")
        assert not remote.is_reachable()  # asked directly: the fixture lets only loopback be reached
