"""What the name of a model means: a published model, a folder, or a repository of the Hugging Face Hub.

Nothing heavy is imported, so that a command refuses a mistyped name at once.
"""

from __future__ import annotations

from pathlib import Path

from hubmodels import remote
from hubmodels.entries import ENTRIES, Entry, find_entry
from hubmodels.errors import WeightsError
from hubmodels.paths import is_file, is_folder


def find_model(name: str | Path, *, revision: str | None = None) -> Entry | Path | str:
    """The row of a published model, which comes first; else a folder or a repository, as of `find_saved`.

    Raises:
        ModelNotFoundError: no such model; the message names the nearest.
        WeightsError: a path, but no folder there.
        ValueError: a revision of what is no repository.
    """
    if isinstance(name, str):
        if not name.strip():
            raise WeightsError("expected the name of a model, a folder or user/name; got an empty name")
        if name in ENTRIES:
            if revision is not None:
                raise ValueError(
                    f"revision is for repositories of the Hub; {name} is a published model with pinned weights"
                )
            return ENTRIES[name]
        is_word = not any(mark in name for mark in "/\\") and not name.startswith(".")
        if is_word and not is_folder(Path(name).expanduser()):
            return find_entry(name)  # raises, naming the nearest
    return find_saved(name, revision=revision)


def find_saved(name: str | Path, *, revision: str | None = None) -> Path | str:
    """The folder that a name means, else the repository "user/name"; what looks like a path is no repository.

    Raises:
        WeightsError: a path, but no folder there.
        ValueError: a revision of a folder.
        TypeError: no name at all, or a revision that is no text.
    """
    if not isinstance(name, (str, Path)):
        raise TypeError(f"expected the name of a model, a folder or user/name; got {type(name).__name__}")
    if not isinstance(revision, str | None):
        raise TypeError(f"revision must be a branch, tag or commit as text; got {revision!r:.100}")
    folder = Path(name).expanduser()
    if is_folder(folder):
        if revision is not None:
            raise ValueError(f"revision is for repositories of the Hub; {name} is a folder")
        return folder
    repo = None if isinstance(name, Path) else remote.repo_of(name)
    if repo is None:
        if is_file(folder):
            raise WeightsError(f"{name} is a file; expected the folder of a saved model, such as {folder.parent}")
        if str(name) in ENTRIES:
            raise WeightsError(f"{name} is a published model, no saved one: hubmodels.load({str(name)!r})")
        raise WeightsError(
            f"{name}: no such folder; a repository of the Hub is written user/name, "
            "or hf://user/name where that looks like a path"
        )
    return repo
