"""How many calls may wait, and answers lie unread, and what callers hear when no more may."""

from __future__ import annotations

import time
from typing import Any

from starlette.exceptions import HTTPException
from starlette.status import HTTP_429_TOO_MANY_REQUESTS

from hubmodels.app.internals import replaceable

HEAVY = "heavy"  # the one slot of everything that computes
MAX_LIGHT = 1000  # calls that only arrange the page: done within milliseconds, and waiting in numbers only when flooded
MAX_UNREAD = 400  # messages; an answer has some five, one of them with two pictures. Who listens leaves none


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

    Messages that nobody reads, which Gradio keeps without a bound, are forgotten beyond `MAX_UNREAD`.

    Args:
        queue: whose own bound is higher than both together.
        max_heavy: calls that may wait to compute.
        message: what callers hear.

    Raises:
        ImportError: this version of Gradio has no such queue.
    """
    push = replaceable(queue, "push", purpose="visitors would not be told that the server is busy")
    unread = Unread(queue)

    async def told(**call: Any) -> tuple[bool, Any, str]:
        unread.forget(MAX_UNREAD)
        function = queue.blocks.fns.get(call["body"].fn_index)  # None: there is none such, which `push` says
        computes = function is not None and function.concurrency_id == HEAVY
        heavy = waiting(queue)
        if heavy < max_heavy if computes else len(queue) - heavy < MAX_LIGHT:
            return await push(**call)
        if call["request"].headers.get("x-gradio-user") == "app":
            raise HTTPException(HTTP_429_TOO_MANY_REQUESTS, message)
        return False, message, "queue_full"

    queue.push = told


class Unread:
    """Messages of a queue of Gradio that lie there until their session asks for them. For its event loop alone."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue
        self._since: dict[str, tuple[Any, float]] = {}  # session -> its oldest message, and when that was first seen

    def forget(self, most: int) -> None:
        """Keep at most so many, and forget those of the sessions that have not read for longest."""
        sessions = {name: each for name, each in self._queue.pending_messages_per_session.items() if each.qsize()}
        total = sum(each.qsize() for each in sessions.values())
        now = time.monotonic()
        before, self._since = self._since, {}
        for name, messages in sessions.items():
            oldest = messages._queue[0]  # of asyncio.Queue, which has no way to look without taking
            known, since = before.get(name, (None, now))
            self._since[name] = (oldest, since if known is oldest else now)
        for name in sorted(sessions, key=lambda name: self._since[name][1]):
            if total <= most:
                return
            total -= sessions[name].qsize()
            while not sessions[name].empty():
                sessions[name].get_nowait()
