"""Large photos in bands of rows: the same numbers, and few copies of them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from hubmodels import bands
from tests.conftest import ROOT


@pytest.mark.parametrize(("shape", "count"), [((3, 10, 4), 4), ((3, 10, 400), 10), ((1, 1, 1), 1), ((3, 10, 1), 1)])
def test_bands_cover_every_row_once(shape, count, monkeypatch):
    monkeypatch.setattr(bands, "BAND_VALUES", 36)
    found = list(bands.bands(torch.zeros(shape)))
    assert [row for band in found for row in range(shape[1])[band]] == list(range(shape[1]))
    assert len(found) == count


def test_softmax_in_place_is_softmax(monkeypatch):
    torch.manual_seed(0)
    logits = 5 * torch.randn(7, 23, 40)
    expected = logits.softmax(0)
    monkeypatch.setattr(bands, "BAND_VALUES", 5 * 7 * 40)
    got = bands.softmax_(logits)
    assert got.data_ptr() == logits.data_ptr()
    torch.testing.assert_close(got, expected)


PEAK = """
import sys
import numpy as np, torch
from hubmodels.labels import FASHION
from hubmodels.refine import Refinement
from hubmodels.segmenter import Segmenter

def peak():  # not ru_maxrss, in which the peak of the process that started this one counts too
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

class Corners(torch.nn.Module):
    def forward(self, x):
        return x.mean(1, keepdim=True) * torch.arange(7.0)[None, :, None, None]

model = Segmenter(Corners().eval(), FASHION, name="corners", input_px=64)
settings = Refinement(crf_iterations=int(sys.argv[1]))
ramp = np.linspace(0, 255, 3000, dtype=np.uint8)
photo = np.repeat(np.repeat(ramp[:, None, None], 2000, 1), 3, 2)
model.predict(photo[::3, ::3].copy(), refinement=settings)  # 667,000 pixels: what the CRF needs whatever the size
before = peak()
answer = model.predict(photo, refinement=settings)
after = peak()
assert answer.probs.shape == (7, 3000, 2000)
print((after - before) * 1024 / (6_000_000 - 667_000))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
@pytest.mark.parametrize(("iterations", "bytes_per_pixel"), [(0, 40), (1, 70)])
def test_memory_of_a_large_photo(iterations, bytes_per_pixel):
    """28 bytes of every pixel are its answer: one more such array with a CRF, none without, beside the photo."""
    call = [sys.executable, "-c", PEAK, str(iterations)]
    exact = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"}  # what is freed is given back, as far as glibc can
    done = subprocess.run(call, cwd=ROOT, env=exact, capture_output=True, text=True, check=True)
    assert 28 < float(done.stdout) < bytes_per_pixel
