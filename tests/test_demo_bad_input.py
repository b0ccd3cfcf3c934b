"""What the server must not do: take wrong settings, files that are no photos, or paths and addresses of others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import urllib.error
import urllib.request
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import gradio as gr
import numpy as np
import pytest
from gradio_client.exceptions import AppError
from numpy.testing import assert_array_equal
from PIL import Image

from hubmodels.app.handlers import Handlers
from hubmodels.app.strangers import BODY_BYTES, UPLOAD_BYTES, SmallBodies
from tests.conftest import ROOT
from tests.page_examples import CLOTHES, PEOPLE
from tests.page_server import GRADIO_MARKS, ask, get, is_well

pytestmark = GRADIO_MARKS


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_region_px": "many"}, "min_region_px must be a number"),
        ({"crf_iterations": 1000}, r"crf_iterations must be in 0\.\.20"),
        ({"crf_iterations": -1}, r"crf_iterations must be in 0\.\.20"),
        ({"crf_iterations": 2.5}, "whole number"),
        ({"keep_largest": "yes"}, "keep_largest must be one of"),
        ({"vote": ["loudly"]}, "vote must be one of"),
        ({"vote": "classifier", "superpixel_scale": 60}, "has none"),
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


def test_a_photo_that_is_left_out_is_missed(api):
    for body in ({"model": PEOPLE}, {"photo": None, "model": PEOPLE}):
        status, answer = get(f"{api.url}/gradio_api/call/v2/segment", body)
        assert status == 200
        _, answer = get(f"{api.url}/gradio_api/call/segment/{json.loads(answer)['event_id']}")
        assert b"event: error" in answer and b"photo is missing" in answer
    with pytest.raises(AppError, match="photo is missing"):
        api.client.predict(model=PEOPLE, api_name="/segment")


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
        ("bomb.png", bomb, r"100\.0 megapixels; at most 26\.0"),
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


@pytest.mark.parametrize(
    "photo",
    [
        "x-secret",
        "/etc/x-secret",
        "http://127.0.0.1:9/x-secret.png",
        3,
        ["x-secret"],
        {"path": ["x-secret"]},
        {"path": "/etc/x-secret", "meta": {"_type": "gradio.FileData"}},
    ],
    ids=str,
)
def test_a_photo_that_is_no_upload_is_named_and_its_text_is_not_logged(api, capfd, photo):
    answer = called(api, {"photo": photo, "model": PEOPLE})
    assert b"event: error" in answer and b"photo must be an uploaded file: use handle_file(...)" in answer
    logged = "".join(capfd.readouterr())
    assert "Traceback" not in logged and "x-secret" not in logged


@pytest.fixture
def stranger(tmp_path, small):
    """A readable photo of the host that nobody uploaded."""
    Image.fromarray(small).save(tmp_path / "private.png")
    return tmp_path / "private.png"


def uploads(api) -> Path:
    return api.folder / "gradio"


def handlers_of(api) -> Handlers:
    return next(each.fn for each in api.page.fns.values() if each.api_name == "update").__self__


def called(api, body) -> bytes:
    """The answer to a call of /segment, sent as curl would."""
    status, answer = get(f"{api.url}/gradio_api/call/v2/segment", body)
    assert status == 200
    return get(f"{api.url}/gradio_api/call/segment/{json.loads(answer)['event_id']}")[1]


def test_photos_of_the_host_are_out_of_reach_whatever_a_caller_says_of_them(api, stranger):
    """Gradio looks at paths only where the caller says that they are files."""
    pipe = stranger.parent / "pipe"
    os.mkfifo(pipe)  # opening it would wait for ever
    link = uploads(api) / "link.png"
    link.symlink_to(stranger)
    around = f"{uploads(api)}/{os.path.relpath(stranger, uploads(api))}"
    try:
        for path in (str(stranger), str(pipe), str(link), around, f"{stranger}\0", str(uploads(api))):
            for photo in ({"path": path}, {"path": path, "url": None}, path):
                answer = called(api, {"photo": photo, "model": PEOPLE})
                assert b"event: error" in answer and b"event: complete" not in answer, (photo, answer)
    finally:
        link.unlink()
    assert is_well(api)


def test_photos_of_the_host_are_out_of_reach_of_the_page(api, stranger, photo):
    handlers = handlers_of(api)
    request = SimpleNamespace(headers={}, query_params={})
    for path in (str(stranger), {"path": str(stranger)}):
        assert "no longer here" in handlers.update(path, PEOPLE, None, request)[0]
        with pytest.raises(gr.Error, match="no longer here"):
            handlers.take("labels", path, PEOPLE)
    own = uploads(api) / "0" / "photo.png"
    own.parent.mkdir(exist_ok=True)
    own.write_bytes(Path(photo).read_bytes())
    pictures, details, scores, *_ = handlers.update(str(own), PEOPLE, {"path": str(stranger)}, request)
    assert pictures.count("<img") == 2 and "ground truth is no longer here" in details and not scores


def test_a_misspelt_setting_is_named(api):
    status, answer = get(f"{api.url}/gradio_api/call/v2/segment", {"model": PEOPLE, "crf_iteration": 1})
    assert status == 422 and "`crf_iteration` is not a valid" in json.loads(answer)["error"]
    assert is_well(api)


def test_a_photo_inside_of_a_request_is_refused_in_words(api):
    answer = called(api, {"photo": {"path": "x.png", "url": "data:image/png;base64,AAAA"}, "model": PEOPLE})
    assert b'"error": "Send the photo as an uploaded file, not inside of the request."' in answer


@pytest.mark.parametrize("path", ["run/upload", "api/upload", "call/upload", "call/v2/upload/"])
def test_a_large_request_is_no_upload_because_its_endpoint_is_called_so(api, path):
    assert get(f"{api.url}/gradio_api/{path}", {"data": ["x" * 1_000_000]})[0] == 413


def test_an_upload_is_as_large_as_one_photo_may_be(api):
    """Whatever is in its form: Gradio bounds the size of each file alone."""

    def status(field: str, size: int) -> int:
        head = f'--x\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n'.encode()
        body = head + b"a" * size + b"\r\n--x--\r\n"
        form = {"Content-Type": "multipart/form-data; boundary=x"}
        request = urllib.request.Request(f"{api.url}/gradio_api/upload", body, form)
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    assert status('files"; filename="a.png', 24_000_000) == 200
    assert status("text", 28_000_000) == status('files"; filename="a.png', 40_000_000) == 413
    assert is_well(api)


UPLOAD_PATH = "/gradio_api/upload"


def behind(path: str, *chunks: int, said: str | None = None) -> tuple[int | None, list[int], int]:
    """Of a request in chunks of bytes: status of a refusal, chunks that the page was given, those nobody read."""
    messages = [{"type": "http.request", "body": bytes(size), "more_body": True} for size in chunks]
    messages[-1]["more_body"] = False
    given: list[int] = []
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def page(scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive())["type"] == "http.request":
            given.append(len(message["body"]))
            if not message["more_body"]:
                break

    headers = [] if said is None else [(b"content-length", said.encode())]
    asyncio.run(SmallBodies(page)({"type": "http", "path": path, "headers": headers}, receive, send))
    return sent[0]["status"] if sent else None, given, len(messages)


@pytest.mark.parametrize(
    ("path", "most"),
    [
        ("/x", BODY_BYTES),
        (UPLOAD_PATH, UPLOAD_BYTES),
        (f"{UPLOAD_PATH}/", UPLOAD_BYTES),
        (f"{UPLOAD_PATH}s", BODY_BYTES),
    ],
)
def test_a_request_is_taken_up_to_its_limit_and_one_beyond_is_refused_once_it_was_heard(path, most):
    assert behind(path, most - 9, 9, said=str(most)) == (None, [most - 9, 9], 0)
    assert behind(path, 9, 9, 9, said=str(most + 1)) == (413, [], 0)
    assert behind(path, 9, said="many")[:2] == (413, [])
    assert behind(path, most - 9, 9) == (None, [most - 9, 9], 0)
    assert behind(path, most, 1, 9) == (None, [most], 1)  # the page is told that the client has gone


def test_large_requests_are_refused_unless_they_upload_a_photo(api):
    call = f"{api.url}/gradio_api/call/v2/segment"
    for size, status in ((20_000_000, 413), (1_000_001, 413), (500_000, 200)):
        body = b'{"model": "' + b"x" * (size - 13) + b'"}'
        assert get(call, json.loads(body))[0] == status, size
    with socket.create_connection(urlsplit(api.url).netloc.split(":")) as plain:  # one that does not say how long it is
        plain.sendall(b"POST /gradio_api/call/v2/segment HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
        plain.sendall(b"Transfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(40):
                plain.sendall(b"186a0\r\n" + b" " * 100_000 + b"\r\n")
        with contextlib.suppress(ConnectionError):
            assert not plain.recv(100).startswith(b"HTTP/1.1 2")
    assert is_well(api)


def test_sessions_hold_nothing_that_went_in_or_came_out(api, photo):
    """Gradio's links of sessions would be files that nobody deletes."""
    ask(api, photo)
    ask(api, photo)
    sessions = api.page.state_holder.session_data
    assert api.client.session_hash in sessions
    shared = {
        Path(path).parent.name for block in api.page.blocks.values() for path in getattr(block, "keep_in_cache", ())
    }
    visitors = {path.parent.name for path in uploads(api).glob(f"{64 * '?'}/*")} - shared
    said = [json.dumps(session.config_values, default=str) for session in sessions.values()]
    assert visitors and not any(name in each for name in visitors for each in said)
    assert get(f"{api.url}/gradio_api/deep_link?session_hash={api.client.session_hash}")[0] == 404
    assert not (uploads(api) / "deep_links").exists()


def test_reset_says_no_more_than_the_names_of_models(api):
    """Gradio logs values that a menu does not have, whatever a caller makes of them."""
    (reset,) = (each.fn for each in api.page.fns.values() if getattr(each.fn, "__name__", "") == "reset")
    assert "x" * 100 not in reset("x" * 100) and PEOPLE in reset(PEOPLE)


def test_ways_around_the_queue_are_closed(api):
    heavy = next(index for index, function in api.page.fns.items() if function.api_name == "segment")
    for body in ({"data": []}, {"data": [], "fn_index": heavy}):
        assert get(f"{api.url}/gradio_api/run/segment", body)[0] == 404
    assert get(f"{api.url}/gradio_api/runs")[0] == 404
    assert get(f"{api.url}/gradio_api/file=/etc/passwd")[0] in (403, 404)
    assert get(f"{api.url}/gradio_api/file={ROOT / 'pyproject.toml'}")[0] in (403, 404)
