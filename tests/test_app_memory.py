"""What the server remembers is bounded in number, in cost and in age."""

from __future__ import annotations

import pytest

from hubmodels.app.memory import BoundedMemory


def fail() -> object:
    raise AssertionError("computed again")


def test_memory_forgets_what_was_used_longest_ago():
    memory: BoundedMemory[object] = BoundedMemory(max_items=3, max_cost=100, max_age_s=60)
    values = {key: object() for key in "abcde"}
    for key in "abc":
        memory.get(key, lambda key=key: values[key], cost=10)
    assert memory.get("a", fail) is values["a"]
    memory.get("d", lambda: values["d"], cost=10)  # the fourth: b goes, as a was used after it
    assert [memory.get(key, fail) for key in "cad"] == [values[key] for key in "cad"]
    with pytest.raises(AssertionError, match="computed again"):
        memory.get("b", fail)
    memory.get("e", lambda: values["e"], cost=1000)  # larger than all room: it stays alone
    assert memory.get("e", fail) is values["e"] and len(memory) == 1


def test_memory_forgets_by_age():
    now = 0.0
    memory: BoundedMemory[str] = BoundedMemory(max_items=9, max_cost=9, max_age_s=60, clock=lambda: now)
    memory.get("a", lambda: "a")
    memory.get("b", lambda: "b")
    now = 50.0
    memory.get("b", lambda: "new")
    now = 70.0
    assert memory.expire() == 1 and memory.get("b", fail) == "b"
    assert memory.get("a", lambda: "again") == "again"
    now = 1000.0
    assert memory.expire() == 2 and len(memory) == 0
