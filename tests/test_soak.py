"""Many visitors at once, for two minutes: `make soak`. Not part of `make test`."""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gradio_client
import numpy as np
import psutil
import pytest
from gradio_client.utils import QueueError
from numpy.testing import assert_array_equal
from PIL import Image

import hubmodels
from hubmodels import Refinement
from hubmodels.app.studio import Photo
from tests.page_server import running_demo

CLIENTS, SECONDS, GROWTH_MB = 20, 120, 150
MODELS = ("deeplabv3plus_fashion", "deeplabv3plus_person")
SETTINGS = (
    {},
    {"crf_iterations": 2},
    {"min_region_px": 300, "fill_holes_px": 100},
    {"superpixel_scale": 80, "merge": "cut", "crf_iterations": 1},
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # clients that end in the middle of an answer
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def photos(tmp_path: Path, astronaut: np.ndarray) -> list[Path]:
    """Twelve photos of several sizes, more than the server remembers."""
    paths = []
    for i, (height, width) in enumerate(itertools.product((600, 300, 200), (400, 512, 900, 160))):
        turned = np.roll(astronaut, 31 * i, axis=1)
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(turned).resize((width, height)).save(paths[-1])
    return paths


def labels_of(path: str) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


@pytest.mark.parametrize("runtime", ["torch", "onnx"])
def test_two_minutes_of_twenty_clients(tmp_path, photos, runtime):
    models = {name: hubmodels.load(name, runtime=runtime) for name in MODELS}
    jobs = [(p, m, i) for p, m in itertools.product(range(len(photos)), MODELS) for i in range(len(SETTINGS))]
    alone = {}
    for p, m, i in jobs:
        if i == 0:
            tuner = models[m].tune(photos[p])
        alone[p, m, i] = tuner.refine(Refinement(**SETTINGS[i])).labels
    trouble: list[str] = []
    counts = {"answers": 0, "busy": 0}
    lock = threading.Lock()

    def ask(client: gradio_client.Client, job: tuple[int, str, int]) -> None:
        p, m, i = job
        call: dict[str, Any] = {"photo": gradio_client.handle_file(photos[p]), "model": m, **SETTINGS[i]}
        try:
            mask, *_ = client.predict(**call, api_name="/segment")
        except QueueError:  # says that the queue is full
            with lock:
                counts["busy"] += 1
            time.sleep(0.5)
            return
        assert_array_equal(labels_of(mask), alone[job], err_msg=str(job))
        with lock:
            counts["answers"] += 1

    def visitor(number: int, url: str, end: float) -> None:
        # A client gives up on a slow answer after 5 s by default; here slow is no error, and twenty share two cores.
        options: dict[str, Any] = {"analytics_enabled": False, "verbose": False, "httpx_kwargs": {"timeout": 120}}
        client = gradio_client.Client(url, download_files=tmp_path / f"answers{number}", **options)
        mine = np.random.default_rng(number)
        try:
            while time.monotonic() < end:
                ask(client, jobs[mine.integers(len(jobs))])
        except Exception as error:
            trouble.append(f"{type(error).__name__}: {error}")
        finally:
            client.close()

    with running_demo(tmp_path, "--runtime", runtime, "--queue-size", "12") as (url, process, log):
        server = psutil.Process(process.pid)
        warm = gradio_client.Client(url, download_files=tmp_path / "warm", analytics_enabled=False, verbose=False)
        # The largest photos last: memory is then as full as its bounds let it be, and what grew on would be a leak.
        sizes = {p: Photo.of(hubmodels.read_image(path)).work.size for p, path in enumerate(photos)}
        for job in sorted(jobs, key=lambda job: sizes[job[0]]):
            ask(warm, job)
        warm.close()
        before = server.memory_info().rss
        end = time.monotonic() + SECONDS
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(lambda number: visitor(number, url, end), range(CLIENTS)))
        growth = (server.memory_info().rss - before) / 1e6
        print(f"{counts['answers']} answers, {counts['busy']} times busy, memory grew by {growth:.0f} MB")
        assert not trouble, (len(trouble), trouble[:5])
        assert "Traceback" not in log.read_text()
        assert counts["answers"] > len(jobs) + CLIENTS and growth < GROWTH_MB, (counts, growth)
