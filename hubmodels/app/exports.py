"""Networks are exported for ONNX Runtime in another process while the page is served, so that the page opens at once.

Each takes some ten seconds of a core, once: the next start finds it in the cache folder. In this process that would
also hold up visitors, as tracing a network keeps Python busy all along.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import hubmodels
from hubmodels.app.examples import EXAMPLES
from hubmodels.app.studio import Photo, Studio
from hubmodels.errors import ExportError, OutputError
from hubmodels.files import make_folder
from hubmodels.runtime import cache_folder

# Visitors come first, and Ctrl-C is for the server, which ends this process itself.
EXPORT = """
import os, sys
if hasattr(os, "nice"):
    os.nice(10)
import hubmodels
hubmodels.load(sys.argv[1], runtime="onnx")
"""


@contextmanager
def exporting(studio: Studio, *, say: Callable[[str], None]) -> Iterator[threading.Thread | None]:
    """Within the block, networks that PyTorch runs until they are exported are, one after the other, and taken over.

    Args:
        studio: whose networks.
        say: told of each what runs it from now on, and why if it is not ONNX Runtime.

    Yields:
        The thread that does it, which ends with the last of them; None if there is nothing to export.
    """
    if not studio.not_exported:
        yield None
        return
    exports = _Exports(studio, say)
    exports.start()
    try:
        yield exports
    finally:
        exports.stop()


class _Exports(threading.Thread):
    """Exports what a studio has not exported; the process of the moment ends with `stop`."""

    def __init__(self, studio: Studio, say: Callable[[str], None]) -> None:
        super().__init__(daemon=True, name="exports")
        self._studio, self._say = studio, say
        self._photo = Photo.of(next(iter(EXAMPLES.values())).pixels())
        self._lock = threading.Lock()
        self._stopped = False
        self._process: subprocess.Popen[str] | None = None

    def run(self) -> None:
        try:
            make_folder(cache_folder())
        except (ExportError, OutputError) as error:  # nothing could be kept: each would be exported in vain
            self._say(f"PyTorch runs all networks that are not exported for ONNX Runtime: {error}")
            return
        for name in self._studio.not_exported:
            if (said := self._export(name)) is None:
                return
            if self._studio.adopt(name):
                self._studio.measure(name, self._photo)
                self._say(f"{name}: ONNX Runtime runs the network from now on")
            else:
                self._say(f"{name}: PyTorch runs the network, as it could not be exported: {said}")

    def stop(self) -> None:
        """End the process of the moment and begin no other."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.kill()
        self.join()

    def _export(self, name: str) -> str | None:
        """Export a network into the cache folder; the last words of the process, None if it was stopped."""
        folder = str(Path(hubmodels.__file__).parents[1])  # a clone may serve the page without being installed
        path = os.pathsep.join(filter(None, (folder, os.environ.get("PYTHONPATH"))))
        with self._lock:
            if self._stopped:
                return None
            self._process = subprocess.Popen(
                [sys.executable, "-W", "error:the exported network cannot be kept", "-c", EXPORT, name],
                env={**os.environ, "PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        _, errors = self._process.communicate()
        with self._lock:
            if self._stopped:
                return None
            self._process = None
        return (errors.strip().splitlines() or ["no reason was given"])[-1]
