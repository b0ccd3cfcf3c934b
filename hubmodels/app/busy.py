"""How many calls may wait, and what callers hear when no more may."""

from __future__ import annotations

from typing import Any

from starlette.exceptions import HTTPException
from starlette.status import HTTP_429_TOO_MANY_REQUESTS

from hubmodels.app.internals import replaceable

HEAVY = "heavy"  # the one slot of everything that computes
MAX_LIGHT = 1000  # calls that only arrange the page: done within milliseconds, and waiting in numbers only when flooded


def waiting(queue: Any) -> int:
    """Calls that wait in a queue of Gradio to compute; those under way are not counted."""
    calls = queue.event_queue_per_concurrency_id.get(HEAVY)
    return len(calls.queue) if calls else 0


def bound(queue: Any, *, max_heavy: int, message: str) -> None:
    """Let calls wait in a queue of Gradio up to a number, and answer further ones with `message`.

    Gradio's own bound counts all calls alike: what arranges the page would be refused while others compute, and refuse
    what computes. Here the two are counted apart.

    Gradio answers a call too many with status 503. For that its page has a text of its own, whatever the answer says,
    so the page gets status 429, whose text it shows. API clients get 503 as before, which gradio_client raises as
    QueueError.

    Args:
        queue: whose own bound is higher than both together.
        max_heavy: calls that may wait to compute.
        message: what callers hear.

    Raises:
        ImportError: this version of Gradio has no such queue.
    """
    push = replaceable(queue, "push", purpose="visitors would not be told that the server is busy")

    async def told(**call: Any) -> tuple[bool, Any, str]:
        function = queue.blocks.fns.get(
            call["body"].fn_index
        )  # None if there is no such function, which `push` refuses
        computes = function is not None and function.concurrency_id == HEAVY
        heavy = waiting(queue)
        if heavy < max_heavy if computes else len(queue) - heavy < MAX_LIGHT:
            return await push(**call)
        if call["request"].headers.get("x-gradio-user") == "app":
            raise HTTPException(HTTP_429_TOO_MANY_REQUESTS, message)
        return False, message, "queue_full"

    queue.push = told
