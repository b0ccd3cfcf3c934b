"""Links that carry what is on the page in their query string: settings and an example's name, never a photo."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from hubmodels.app.controls import CONTROLS, absent_from, settings_from
from hubmodels.app.examples import EXAMPLES
from hubmodels.app.views import View
from hubmodels.entries import find_entry
from hubmodels.refine import Refinement

MAX_VALUE = 100  # characters of a value that is looked at
_KNOWN = {"task", "model", "example", "absent", *CONTROLS, *(field.name for field in dataclasses.fields(View))}


@dataclass(frozen=True)
class Shared:
    """What a link carries.

    Attributes:
        model: name of a model; its task follows from it.
        settings: post-processing.
        view: what is shown.
        example: name of an example; empty if the photo was a visitor's own.
        absent: labels that the photo does not show; of a visitor's own photo, which stays behind, so do they.
    """

    model: str
    settings: Refinement
    view: View
    example: str = ""
    absent: tuple[str, ...] = ()


def to_query(shared: Shared, task: str) -> str:
    """The query string, without `?`; settings at their defaults are left out, as they are restored anyway."""
    example = {"example": shared.example} if shared.example else {}
    absent = {"absent": ",".join(shared.absent)} if shared.example and shared.absent else {}
    changes = {**absent, **shared.settings.changes(), **shared.view.changes()}
    return urlencode({"task": task, "model": shared.model, **example, **changes})


def from_query(query: Mapping[str, str], *, models: Mapping[str, str], default: str) -> Shared | None:
    """What a link says, clamped to what the page can do; None if it says nothing.

    Args:
        query: parameters of the address, untrusted.
        models: served models -> their tasks, defaults first.
        default: the model if neither the link's model nor its task is known.
    """
    given: dict[str, Any] = {k: v for k, v in query.items() if k in _KNOWN and len(v) <= MAX_VALUE}
    if not given:
        return None
    of_task = [name for name, task in models.items() if task == given.get("task")]
    model = given.get("model", "")
    if model not in models:
        model = of_task[0] if of_task else default
    view = View.of(given)
    if view.other not in models:
        view = dataclasses.replace(view, other="")
    labels = find_entry(model).labels
    if view.label not in labels.names[1:]:
        view = dataclasses.replace(view, label="")
    example = given.get("example", "")
    example = example if example in EXAMPLES else ""
    absent = absent_from(given.get("absent"), labels) if example else ()
    return Shared(model, settings_from(given), view, example, absent)


def not_served(query: Mapping[str, str], models: Collection[str]) -> dict[str, str]:
    """Models that a link names and this server does not have: parameter, `model` or `other` -> what to call it.

    Args:
        query: parameters of the address, untrusted: what does not look like a name is not repeated.
        models: served models.
    """
    named = {parameter: name for parameter in ("model", "other") if (name := query.get(parameter))}
    return {
        parameter: name if re.fullmatch(r"[\w.-]{1,60}", name) else "another model"
        for parameter, name in named.items()
        if name not in models
    }


def lacks_photo(query: Mapping[str, str]) -> bool:
    """Whether a query string carries something of the page's, but no example that there is."""
    return not _KNOWN.isdisjoint(query) and query.get("example") not in EXAMPLES


def base_url(headers: Mapping[str, str], *, root_path: str = "") -> str:
    """Address under which a visitor sees the page, from a request's headers; proxies say theirs in X-Forwarded-*.

    Args:
        headers: of the request, untrusted.
        root_path: what the host said to Gradio: a path behind a proxy, or the whole address.
    """
    if root_path.startswith(("http://", "https://")):
        return root_path.rstrip("/")
    host = headers.get("x-forwarded-host") or headers.get("host") or "127.0.0.1:7860"
    scheme = headers.get("x-forwarded-proto") or "http"
    first = [text.split(",")[0].strip() for text in (scheme, host)]
    # It becomes part of shell commands and of a link.
    safe = first[0] in ("http", "https") and first[1] and all(c.isalnum() or c in ".:-[]_" for c in first[1])
    return f"{first[0]}://{first[1]}{root_path}" if safe else "http://127.0.0.1:7860"
