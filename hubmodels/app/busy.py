"""What callers hear when no more calls may wait."""

from __future__ import annotations

from typing import Any

from starlette.exceptions import HTTPException
from starlette.status import HTTP_429_TOO_MANY_REQUESTS

from hubmodels.app.internals import replaceable


def tell_when_full(queue: Any, message: str) -> None:
    """Let a queue of Gradio that is full answer with `message`.

    Gradio answers with status 503. For that its page has a text of its own, whatever the answer says, so the page gets
    status 429, whose text it shows. API clients get 503 as before, which gradio_client raises as QueueError.

    Raises:
        ImportError: this version of Gradio has no such queue.
    """
    push = replaceable(queue, "push", purpose="visitors would not be told that the server is busy")

    async def told(**call: Any) -> tuple[bool, Any, str]:
        success, answer, state = await push(**call)
        if state != "queue_full":
            return success, answer, state
        if call["request"].headers.get("x-gradio-user") == "app":
            raise HTTPException(HTTP_429_TOO_MANY_REQUESTS, message)
        return success, message, state

    queue.push = told
