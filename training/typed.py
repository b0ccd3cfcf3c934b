"""Values of a dataclass against the types it says: a file may say anything, and Python takes it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

_hints = cache(get_type_hints)  # which evaluates the text of every annotation
_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", NoneType: "nothing"}


def misfit(instance: Any) -> str:
    """What the first field is and should be whose value is not of its type; "" if all are.

    Known are Any, bool, int, float, str, None, other classes, and tuples, dicts and unions of them. A whole number is a
    float too; true and false are no numbers.
    """
    for key, hint in _hints(type(instance)).items():
        if not _fits(value := getattr(instance, key), hint):
            return f"{key} must be {_named(hint)}; got {value!r:.100}"
    return ""


def _fits(value: Any, hint: Any) -> bool:
    origin, parts = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin is UnionType:
        return any(_fits(value, part) for part in parts)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        hints = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
        return len(value) == len(hints) and all(map(_fits, value, hints))
    if origin is dict:
        pairs = value.items() if isinstance(value, Mapping) else None
        return pairs is not None and all(_fits(key, parts[0]) and _fits(each, parts[1]) for key, each in pairs)
    if hint in (bool, int, float):  # by their very type, as bool is an int to isinstance
        return type(value) is hint or (hint is float and type(value) is int)
    return isinstance(value, hint)


def _named(hint: Any) -> str:
    origin, parts = get_origin(hint), get_args(hint)
    if origin is UnionType:
        return " or ".join(map(_named, parts))
    if origin is tuple:
        count = "" if parts[-1] is Ellipsis else f" of {len(parts)}"
        return f"a list{count}, each {_named(parts[0])}"
    if origin is dict:
        return "a table" if parts[1] is Any else f"a table, each value {_named(parts[1])}"
    return _NAMES.get(hint, "a table")
