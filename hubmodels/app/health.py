"""GET /health, answered from the moment the port is open, beside the queue, and so also when that is full."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from starlette.responses import JSONResponse

PATH = "/health"


class Health:
    """ASGI middleware: a route that is added to Gradio's once it listens would be missing at first.

    Args:
        app: what answers everything else.
        tell: the state of the server, JSON-able.
    """

    def __init__(self, app: Any, tell: Callable[[], Mapping[str, Any]]) -> None:
        self.app, self.tell = app, tell

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer, or hand on."""
        path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
        answers = scope["type"] == "http" and scope["method"] in ("GET", "HEAD") and path == PATH
        await (JSONResponse(dict(self.tell())) if answers else self.app)(scope, receive, send)
