"""Bounds on what callers of the server make it keep: Gradio's sessions hold no values, and requests are small."""

from __future__ import annotations

from typing import Any

from gradio.state_holder import SessionState, StateHolder
from starlette.responses import JSONResponse
from starlette.routing import Route

from hubmodels.app.internals import replaceable

BODY_BYTES = 1_000_000  # of a request that is no upload: settings, links, and paths of uploads
UPLOAD_BYTES = 27_000_000  # of an upload: one file as large as Gradio is told to take, and the form around it
READ_BYTES = 2 * UPLOAD_BYTES  # of one that is refused, and dropped at once
UPLOAD = "/gradio_api/upload"
DEEP_LINK = "/gradio_api/deep_link"


class ForgetfulSessions(StateHolder):
    """Gradio's sessions without the last values that went in and came out, among them pictures of visitors.

    Gradio keeps them for its own kind of links, of 200 visitors, until others come. Menus keep their choices.
    """

    def __getitem__(self, session_id: str) -> SessionState:
        """The session of a visitor, begun if there is none."""
        session = super().__getitem__(session_id)
        session._update_value_in_config = _forget  # type: ignore[method-assign]
        return session


def _forget(key: int, value: Any) -> None:
    """In the place of what keeps a value."""


def forget_values(app: Any, page: Any) -> None:
    """Let the sessions of a page that is served hold no values, and no link be made of them.

    Raises:
        ImportError: this version of Gradio keeps values otherwise.
    """
    replaceable(SessionState, "_update_value_in_config", purpose="pictures of visitors would be kept")
    sessions = ForgetfulSessions()
    sessions.set_blocks(page)
    app.state_holder = sessions
    # What it writes is deleted by nobody, and it is not offered on the page.
    app.router.routes.insert(0, Route(DEEP_LINK, _not_here, methods=["GET"]))


def _not_here(request: Any) -> JSONResponse:
    return JSONResponse({"detail": "Not Found"}, status_code=404)


class SmallBodies:
    """ASGI middleware: uploads beyond UPLOAD_BYTES are refused, and other requests beyond BODY_BYTES.

    Gradio limits each file of an upload, but neither their number nor what else is in the form.
    """

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer 413 and keep nothing; one that does not say how long it is ends where it is too long."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        # The whole of it: endpoints may be called upload too.
        most_bytes = UPLOAD_BYTES if scope["path"].rstrip("/").endswith(UPLOAD) else BODY_BYTES
        said = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if not said.isdigit() or int(said) > most_bytes:
            left = READ_BYTES  # a client that is still sending would not hear the answer
            while left > 0 and (message := await receive()).get("more_body"):
                left -= len(message.get("body", b""))
            refusal = JSONResponse({"detail": f"expected at most {most_bytes} bytes"}, status_code=413)
            await refusal(scope, receive, send)
            return
        taken = 0

        async def counted() -> Any:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            return message if taken <= most_bytes else {"type": "http.disconnect"}

        await self.app(scope, counted, send)
