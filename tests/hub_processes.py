"""Fresh interpreters whose Hub is one on loopback, and what they tell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from hubmodels.config import ModelConfig
from hubmodels.labels import PERSON
from tests.conftest import ROOT
from tests.hub_server import LoopbackHub

TINY = {"channels": 8, "decoder_channels": 8, "low_channels": 8}
CONFIG = ModelConfig("tiny", "deeplabv3plus", TINY, PERSON, 64)

COMMON = f"""
import json, os, sys, time, urllib.request
waiting = time.sleep
time.sleep = lambda seconds: waiting(min(seconds, 0.01))  # the client waits a second before it goes on with a download
import torch, hubmodels
from hubmodels.config import ModelConfig
config = ModelConfig("tiny", "deeplabv3plus", {TINY!r}, hubmodels.PERSON, 64)

def sum_of(model):
    return float(sum(value.double().sum() for value in model.state_dict().values()))

def tell(name, value):
    print(json.dumps([name, value]), flush=True)

def attempt(name, call):
    start = time.perf_counter()
    try:
        call()
        told = ["loaded", ""]
    except Exception as error:
        told = [type(error).__name__, str(error)]
    tell(name, [*told, time.perf_counter() - start])

def mark(name):
    urllib.request.urlopen(os.environ["HF_ENDPOINT"] + "/me/marks/resolve/main/" + name.replace(" ", "_"))
"""


def start(script: str, hub: LoopbackHub, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """A fresh interpreter in `folder` whose Hub is `hub`, with an empty cache there unless one was filled before."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(folder / "hf_home"),
        "HF_TOKEN": "hf_made_up",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    for name in ("HF_HUB_OFFLINE", "HUBMODELS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "http_proxy", "HTTP_PROXY"):
        environment.pop(name, None)
    return subprocess.Popen(
        [sys.executable, "-c", COMMON + script, *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def told(process: subprocess.Popen[str]) -> dict:
    """What the script told, once it ended well."""
    out, err = process.communicate("go\n", timeout=300)
    assert process.returncode == 0, err
    return dict(json.loads(line) for line in out.splitlines() if line.startswith("["))
