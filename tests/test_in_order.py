"""Results in the order of what they are of, whichever is done first."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from hubmodels.in_order import in_order


@pytest.mark.parametrize("ahead", [1, 3])
def test_results_come_in_the_order_of_the_items(ahead):
    later = threading.Event()

    def work(item: int) -> int:
        if item == 0:  # done after one that began later
            assert later.wait(30)
        if item == ahead:
            later.set()
        if item == 4:
            raise ValueError("four")
        return 10 * item

    with ThreadPoolExecutor(2) as pool:
        found = list(in_order(pool, work, range(6), ahead=ahead))
        assert [item for item, _ in found] == list(range(6))
        assert [answer.result() for item, answer in found if item != 4] == [0, 10, 20, 30, 50]
        assert str(found[4][1].exception()) == "four"
        assert list(in_order(pool, work, [], ahead=ahead)) == []


def test_no_more_is_begun_than_was_asked_for():
    begun: list[int] = []
    with ThreadPoolExecutor(8) as pool:
        for item, answer in in_order(pool, begun.append, range(20), ahead=3):
            answer.result()
            assert len(begun) <= item + 4
    assert sorted(begun) == list(range(20))


def test_what_nobody_takes_any_more_is_not_begun():
    go, begun = threading.Event(), []

    def work(item: int) -> None:
        begun.append(item)
        go.wait(30)

    with (
        ThreadPoolExecutor(1) as pool,
        contextlib.closing(in_order(pool, work, range(9), ahead=5)) as answers,
    ):
        assert next(answers)[0] == 0
        answers.close()
        go.set()
    assert begun == [0]
