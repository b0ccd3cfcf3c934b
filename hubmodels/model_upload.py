"""A saved model on its way to the Hugging Face Hub: what is sent, and whose card stays."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hubmodels import remote
from hubmodels.cards import is_generated

CARD = "README.md"
COMMIT_MESSAGE = "Upload a model of hubmodels"


def upload_options() -> list[str]:
    """Names of the keyword arguments of `upload_model`."""
    options = inspect.signature(upload_model).parameters.values()
    return [option.name for option in options if option.kind is option.KEYWORD_ONLY]


def upload_model(
    folder: Path,
    files: list[str],
    repo: str,
    stated: Sequence[str],
    *,
    commit_message: str = COMMIT_MESSAGE,
    private: bool | None = None,
    token: str | bool | None = None,
    branch: str | None = None,
    create_pr: bool | None = None,
) -> str:
    """Commit the files that a model was saved as; a card on the Hub that somebody edited is newer than a made one.

    The warning of that names what was `stated` for the new card.

    Raises:
        ValueError: a pull request with a branch.
        WeightsError: whether there is a card cannot be known, or the files cannot be sent.
    """
    if branch and create_pr:
        raise ValueError(f"a pull request is to the default branch, but branch is {branch!r}; leave out one of the two")
    if is_generated((folder / CARD).read_bytes()):
        there = _card_there(repo.removeprefix(remote.PREFIX), branch, token)
        if there and not is_generated(there):
            files = [name for name in files if name != CARD]
            warn_of_kept_card(f"{CARD} of {repo}", stated)
    return remote.upload(
        folder,
        repo,
        files=files,
        message=commit_message,
        private=private,
        token=token,
        branch=branch,
        create_pr=create_pr,
    )


def _card_there(repo: str, branch: str | None, token: str | bool | None) -> bytes:
    """The card as it is on the Hub now, as one of the cache may be older than what somebody wrote; empty if none is."""
    try:
        return remote.fetch(repo, CARD, revision=branch, token=token, force_download=True).read_bytes()
    except remote.MissingRevisionError:
        return b"" if branch is None else _card_there(repo, None, token)  # the branch will begin as main
    except remote.MissingError:  # no card, or no such repository yet
        return b""


def stated_facts(facts: Mapping[str, Any]) -> list[str]:
    """Names of the facts for the card that say something."""
    return [name for name, value in facts.items() if value]


def warn_of_kept_card(card: str, stated: Sequence[str]) -> None:
    """Tell the caller of a Segmenter's method what was stated for a card that is kept, and so is not in it."""
    if stated:
        lost = ", ".join(stated)
        warnings.warn(f"{card} is kept, as somebody wrote it; write {lost} into it yourself", stacklevel=4)
