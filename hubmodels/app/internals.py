"""Parts of Gradio that the page replaces, though Gradio does not promise to keep them."""

from __future__ import annotations

from typing import Any


def replaceable(owner: Any, name: str, *, purpose: str) -> Any:
    """The function `name` of an object or module of Gradio, about to be replaced.

    Args:
        owner: has the function.
        name: of its attribute.
        purpose: what goes wrong unless it is replaced, as the end of a sentence.

    Raises:
        ImportError: there is no such function; a replacement would never be called, and nobody would notice.
    """
    found = getattr(owner, name, None)
    if not callable(found):
        whose = getattr(owner, "__name__", None) or type(owner).__name__  # a page has a name, which is None
        raise ImportError(
            f"expected Gradio to have {whose}.{name}; got a version without it, in which {purpose}: "
            "pip install 'hubmodels[demo]' installs one that fits"
        )
    return found
