"""Fixtures of every test: a random generator, real weights, a public-domain photo, and no network."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    # Before anything asks for threads, and for subprocesses too: more threads than cores wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))

import numpy as np
import pytest
from PIL import Image

from training.data import DATA_ROOT

if TYPE_CHECKING:
    from hubmodels.app.studio import Studio

ROOT = Path(__file__).resolve().parent.parent

# For subprocesses: any connection beyond this machine fails at once, as with the plug pulled.
BLOCK_NETWORK = """
import socket
def _refuse(*args, **kwargs):
    raise OSError("network access in an offline test")
socket.socket.connect = socket.socket.connect_ex = socket.create_connection = socket.getaddrinfo = _refuse
"""


# What `str` makes of a set or an object differs from process to process.
UNSTABLE_ID = re.compile(r"\{[^:{}]+, [^:{}]+\}| at 0x")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Names of tests must be the same in every process: two workers with different names run nothing at all."""
    if unstable := [item.nodeid for item in items if UNSTABLE_ID.search(item.name)]:
        raise pytest.UsageError(f"these names of tests change from run to run; give ids: {', '.join(unstable)}")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only loopback may be reached."""
    real = socket.socket.connect

    def connect(self: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else "localhost"
        if host not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"a test tried to reach {host}")
        real(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)


@pytest.fixture(autouse=True, scope="session")
def _no_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is kept between runs is kept in a folder of this run; tests that want it empty or filled name their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HUBMODELS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def astronaut() -> np.ndarray:
    """(512, 512, 3) uint8: scikit-image's portrait of Eileen Collins, public domain."""
    from skimage import data

    return data.astronaut()


@pytest.fixture(scope="session")
def fashion():
    import hubmodels

    return hubmodels.load("deeplabv3plus_fashion")


@pytest.fixture(scope="session")
def person():
    import hubmodels

    return hubmodels.load("deeplabv3plus_person")


@pytest.fixture
def small(astronaut: np.ndarray) -> np.ndarray:
    """(96, 64, 3) uint8: quick to label."""
    return np.asarray(Image.fromarray(astronaut).resize((64, 96)))


@pytest.fixture
def photo(tmp_path: Path, small: np.ndarray) -> str:
    """Path of `small` as a file."""
    Image.fromarray(small).save(tmp_path / "photo.png")
    return str(tmp_path / "photo.png")


@pytest.fixture(scope="session")
def studio() -> Studio:
    """All trained models, as the page serves them; what it remembers of photos passes from test to test."""
    from hubmodels.app.studio import Studio

    return Studio()


@pytest.fixture(scope="module")
def quiet_gradio() -> Iterator[None]:
    from tests.page_server import no_stray_event_loops

    with no_stray_event_loops():
        yield


@pytest.fixture(scope="module")
def api(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The page served on loopback, files in a folder of its own; the network is shut meanwhile."""
    from tests.page_server import served_here

    with served_here(studio, tmp_path_factory.mktemp("api")) as served:
        yield served


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    """Four drawn photos in the layout that training reads: three to train on, one for val."""
    from tests.drawn_data import draw_data

    return draw_data(tmp_path / "data", np.random.default_rng(0))


@pytest.fixture(scope="session")
def data_root() -> Path:
    if not (DATA_ROOT / "fashionista").is_dir():
        pytest.skip(f"the labelled photos are not at {DATA_ROOT}")
    return DATA_ROOT


def grid(*rows: str) -> np.ndarray:
    """A drawn label map: one digit per pixel."""
    return np.array([[int(c) for c in row] for row in rows], np.uint8)
