"""Files of visitors go when their time has come: uploads, results, and what broken uploads left."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import gradio as gr
import gradio_client
import pytest
from PIL import Image

from hubmodels import Refinement
from hubmodels.app import server as serving
from hubmodels.app import texts
from hubmodels.app.studio import Studio
from hubmodels.app.uploads import BLOCK_BYTES, claim_folder, delete, own_upload, sweep
from tests.page_server import GRADIO_MARKS, ask, get, running_demo, served_here

NAME = "deeplabv3plus_person"
SCHEDULE = {"clean_every_s": 1, "file_age_s": 4}  # an answer has to come within the age, on a busy machine too

pytestmark = GRADIO_MARKS


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def wait_for(condition: Callable[[], bool], what: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.1)


def test_uploads_and_results_are_deleted_on_schedule_and_the_page_goes_on(tmp_path, astronaut):
    photo, folder = tmp_path / "photo.png", tmp_path / "gradio"
    Image.fromarray(astronaut).resize((64, 96)).save(photo)
    studio = Studio([NAME])
    studio.whole(photo, NAME, Refinement())  # loads the network: no file gets old while it waits for that
    with served_here(studio, tmp_path, **SCHEDULE) as page:
        examples = files(folder)
        assert examples

        areas = ask(page, photo)[2]["areas"]
        (upload,) = folder.rglob("photo.png")
        assert {path.name for path in files(folder) - examples} == {"photo.png", "labels.png", "overlay.jpg"}
        wait_for(lambda: files(folder) == examples, lambda: files(folder) - examples)
        for example in examples:  # of every visitor, so they stay
            assert get(f"{page.url}/gradio_api/file={example}")[0] == 200
        asked = {"photo": {"path": str(upload), "meta": {"_type": "gradio.FileData"}}, "model": NAME}
        event = json.loads(get(f"{page.url}/gradio_api/call/v2/segment", asked)[1])["event_id"]
        assert texts.GONE.encode() in get(f"{page.url}/gradio_api/call/segment/{event}")[1]
        assert ask(page, photo)[2]["areas"] == areas


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # Gradio does not close the file of a broken upload
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_a_broken_upload_leaves_is_deleted_too(tmp_path):
    folder = tmp_path / "gradio"
    with served_here(Studio([NAME]), tmp_path, **SCHEDULE) as page:
        before = files(folder)
        address = urlsplit(page.url)
        head = (
            "POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9000000\r\n"
            "Content-Type: multipart/form-data; boundary=cut\r\n\r\n"
            '--cut\r\nContent-Disposition: form-data; name="files"; filename="holiday.png"\r\n\r\n'
        )
        with socket.create_connection((address.hostname, address.port)) as visitor:
            visitor.sendall(head.encode() + bytes(100_000))
            wait_for(lambda: len(files(folder)) > len(before), lambda: "nothing came")
        wait_for(lambda: files(folder) == before, lambda: files(folder) - before)


DIGESTS = ["0" * 64, "ab12" * 16]


def put(path: Path, content: bytes = b"a photo") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_pass_that_fails_is_not_the_last_one(tmp_path, monkeypatch, caplog):
    """As Gradio's own is, at the first upload that comes while it looks."""
    old = put(tmp_path / "gradio" / DIGESTS[0] / "photo.png")
    passes = iter([RuntimeError("photo.png changed size during iteration"), OSError("photo.png")])

    def trouble(*args: object, **options: object) -> int:
        for error in passes:
            raise error
        return sweep(*args, **options)

    monkeypatch.setattr(serving, "sweep", trouble)
    with served_here(Studio([NAME]), tmp_path, clean_every_s=0.2, file_age_s=0):
        wait_for(lambda: not old.exists(), lambda: files(tmp_path))
    assert "RuntimeError" in caplog.text and "OSError" in caplog.text and "photo.png" not in caplog.text


def test_files_from_before_a_crash_go_at_the_start_but_examples_of_other_servers_stay(tmp_path):
    left = put(tmp_path / "gradio" / DIGESTS[0] / "photo.png")
    with served_here(Studio([NAME]), tmp_path, clean_every_s=0.2, file_age_s=1) as page:
        wait_for(lambda: not left.exists(), lambda: files(tmp_path))
        examples, seen = files(tmp_path / "gradio"), time.time()
        wait_for(lambda: min(path.stat().st_ctime for path in examples) > seen + 1, lambda: "examples were not renewed")
        # As another server does, which does not know of this one. A second may pass here on a busy machine.
        assert sweep(tmp_path / "gradio", age_s=time.time() - seen) == 0
        assert files(tmp_path / "gradio") == examples != set()
        assert page.page.delete_cache is None


def test_gradios_lists_do_not_grow_for_ever(tmp_path, photo):
    with served_here(Studio([NAME]), tmp_path, **SCHEDULE) as page:
        ask(page, photo)
        lists = page.page.temp_file_sets
        assert page.page.upload_file_set
        wait_for(lambda: not page.page.upload_file_set, lambda: lists)
        assert all(Path(path).exists() for known in lists for path in known)


def test_a_server_that_is_stopped_deletes_the_files_of_its_visitors(tmp_path, photo, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # for what Gradio's client leaves
    folder = tmp_path / "gradio"
    others = put(folder / DIGESTS[0] / "photo.png")
    with (
        running_demo(tmp_path, "--models", NAME) as (url, process, log),
        socket.create_connection((urlsplit(url).hostname, urlsplit(url).port)) as visitor,
    ):
        visitor.sendall(b"GET /gradio_api/heartbeat/someone HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")  # a page is open
        client = gradio_client.Client(url, download_files=tmp_path / "answers", analytics_enabled=False, verbose=False)
        client.predict(photo=gradio_client.handle_file(photo), model=NAME, api_name="/segment")
        client.close()
        assert list(folder.rglob("labels.png"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, log.read_text()
        process.poll = lambda: None  # it has ended as it should
    assert "Traceback" not in log.read_text()
    assert not {path.name for path in files(folder) - {others}} & {"photo.png", "labels.png", "overlay.jpg"}
    assert others.exists()  # of a visitor of another server


def test_old_files_go_and_younger_ones_stay(tmp_path):
    put(tmp_path / "tmpabc_01xy", b"half a photo")
    put(tmp_path / DIGESTS[0] / "tmp.png")
    (tmp_path / DIGESTS[1]).mkdir()  # of an upload that is about to fill it
    assert sweep(tmp_path, age_s=60) == 0
    assert len(files(tmp_path)) == 2 and len(list(tmp_path.iterdir())) == 3
    assert sweep(tmp_path, age_s=-1) == 2
    assert not list(tmp_path.iterdir())
    assert sweep(tmp_path / "missing", age_s=-1) == 0


def test_beyond_the_limit_the_oldest_go_first(tmp_path):
    paths = [put(tmp_path / f"{i}{DIGESTS[0][1:]}" / "photo.png", bytes(1000)) for i in range(4)]
    for path in paths:
        time.sleep(0.02)  # a change of mode sets ctime
        path.chmod(0o600)
    kept = str(paths[0])
    taken = 2 * BLOCK_BYTES  # by a file so small, and its folder
    assert sweep(tmp_path, age_s=60, max_bytes=3 * taken, kept=[kept]) == 0
    assert sweep(tmp_path, age_s=60, max_bytes=2.5 * taken, kept=[kept]) == 1
    assert files(tmp_path) == {paths[0], *paths[2:]} and not paths[1].parent.exists()
    assert sweep(tmp_path, age_s=60, max_bytes=0, kept=[kept]) == 2
    assert files(tmp_path) == {paths[0]}


def test_a_file_that_cannot_be_deleted_saves_no_other(tmp_path, monkeypatch):
    paths = [put(tmp_path / digest / "photo.png") for digest in DIGESTS]
    real = Path.unlink

    def unlink(self: Path, missing_ok: bool = False) -> None:
        if self == paths[0]:
            raise PermissionError(self)
        real(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    assert sweep(tmp_path, age_s=60, max_bytes=0) == 1
    assert files(tmp_path) == {paths[0]}


def test_what_is_kept_keeps_the_time_of_its_content(tmp_path):
    path = put(tmp_path / DIGESTS[0] / "photo.png")
    os.utime(path, (1e9, 1e9))
    before = path.stat()
    time.sleep(0.02)
    sweep(tmp_path, age_s=-1, kept=[str(path)])
    assert path.stat().st_mtime_ns == before.st_mtime_ns and path.stat().st_ctime_ns > before.st_ctime_ns


def test_files_of_other_programs_are_left_alone(tmp_path, monkeypatch):
    for name in ("tmp.txt", "tmpreport.csv", "tmpABCDEFGH", "tmp12345678.png", "tmux-0", DIGESTS[0]):
        (tmp_path / name).touch()
    put(tmp_path / "documents" / "tmpabc_01xy")
    put(tmp_path / "elsewhere" / "photo.png")
    (tmp_path / DIGESTS[1]).symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert sweep(tmp_path, age_s=-1) == 0 and (tmp_path / DIGESTS[1]).is_symlink()
    (tmp_path / "tmpabc_01xy").touch()
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # a host that gives uploads no folder of their own
    assert sweep(tmp_path, age_s=-1) == sweep(tmp_path / "link", age_s=-1) == 0
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "elsewhere"))
    assert sweep(tmp_path, age_s=-1) == 1


def test_folders_of_other_names_and_links_stay(tmp_path):
    for name in ("mine", *DIGESTS):
        (tmp_path / name).mkdir()
    link = tmp_path / DIGESTS[1] / "photo.png"
    link.symlink_to(tmp_path / "mine")
    assert sweep(tmp_path, age_s=-1, max_bytes=0) == 0
    assert link.is_symlink() and {path.name for path in tmp_path.iterdir()} == {"mine", DIGESTS[1]}


def test_what_is_kept_stays_by_whatever_path_it_is_named(tmp_path):
    own = put(tmp_path / "gradio" / DIGESTS[0] / "photo.png")
    (tmp_path / "link").symlink_to(tmp_path / "gradio", target_is_directory=True)
    kept = str(tmp_path / "link" / DIGESTS[0] / "photo.png")
    assert sweep(tmp_path / "gradio", age_s=-1, kept=[kept]) == 0 and own.exists()


def test_an_upload_is_a_file_of_the_folder_by_whatever_path(tmp_path):
    folder = tmp_path / "gradio"
    own, beside = put(folder / DIGESTS[0] / "photo.png"), put(tmp_path / "gradio2" / "photo.png")
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    for place in (folder, tmp_path / "link"):
        assert own_upload(str(place / DIGESTS[0] / "photo.png"), place) == str(own.resolve())
    around = folder / ".." / "gradio2" / "photo.png"
    for path in (beside, around, own.parent, folder / "none.png", f"{own}\0", folder / ("x" * 5000)):
        with pytest.raises(FileNotFoundError, match="no upload of this server"):
            own_upload(str(path), folder)


def test_files_elsewhere_survive_the_end_of_a_server(tmp_path):
    own, other = put(tmp_path / "gradio" / DIGESTS[0] / "photo.png"), put(tmp_path / "other" / "photo.png")
    delete([str(own), str(other), str(tmp_path / "gone")], tmp_path / "gradio")
    assert not own.parent.exists() and other.exists()


def test_files_of_visitors_have_a_folder_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for said in ("", str(tmp_path), f"{tmp_path}/x/.."):  # the folder of all programs is none of its own
        monkeypatch.setenv("GRADIO_TEMP_DIR", said)
        folder = claim_folder()
        assert folder.parent == tmp_path and folder.name.startswith("hubmodels-")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert gr.utils.get_upload_folder() == str(folder)
        folder.chmod(0o755)  # of an earlier start
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "chosen" / "by host"))
    assert claim_folder() == tmp_path / "chosen" / "by host" and claim_folder().is_dir()


def test_a_folder_that_somebody_else_made_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    folder = claim_folder()
    folder.rmdir()
    (tmp_path / "documents").mkdir()
    folder.symlink_to(tmp_path / "documents")
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    with pytest.raises(OSError, match="set GRADIO_TEMP_DIR"):
        claim_folder()
    folder.unlink()
    folder.mkdir()
    another = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: another)
    (tmp_path / f"hubmodels-{another}").mkdir()
    with pytest.raises(OSError, match="another's"):
        claim_folder()


def test_only_the_main_thread_says_what_sigterm_does():
    before = signal.getsignal(signal.SIGTERM)
    with serving._sigterm_ends_like_ctrl_c():
        assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is before
    done = []

    def serve() -> None:
        with serving._sigterm_ends_like_ctrl_c():
            done.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=serve)
    thread.start()
    thread.join()
    assert done == [before]
