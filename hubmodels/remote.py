"""The Hugging Face Hub: the only part that reaches beyond this machine, through huggingface_hub.

Whatever goes wrong there becomes one WeightsError that says what to do.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

from hubmodels.errors import WeightsError
from hubmodels.files import FULL

PREFIX = "hf://"  # says that a name is a repository, whatever folders there are
CONNECT_SECONDS = 3.0
ANSWER_SECONDS = 5.0  # the Hub answers within one; a server out of order may keep a connection open for ever
_REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
OFFLINE_SET = "HUBMODELS_OFFLINE or HF_HUB_OFFLINE is set; unset it"
OFFLINE = f"{OFFLINE_SET} once, or copy HF_HOME"
_TRUE = ("1", "true", "yes", "on")
# "weights/mine" is a mistyped folder far more often than a repository of a user called "weights".
FOLDER_NAMES = frozenset(("checkpoints", "data", "models", "output", "outputs", "out", "runs", "tmp", "weights"))


def is_offline() -> bool:
    """Whether HUBMODELS_OFFLINE or HF_HUB_OFFLINE asks for nothing to be sent."""
    return any(os.environ.get(name, "").strip().lower() in _TRUE for name in ("HUBMODELS_OFFLINE", "HF_HUB_OFFLINE"))


def repo_of(name: str) -> str | None:
    """The repository "user/name" that a name means; None if it is none, or looks like a path on this machine.

    Like a path look names whose first part is a folder here or is called as folders are (`FOLDER_NAMES`), and those of
    a file. "hf://user/name" always means a repository.

    Raises:
        WeightsError: "hf://" is followed by something else.
    """
    repo = name.removeprefix(PREFIX)
    explicit = repo != name
    if not _REPO.fullmatch(repo) or "--" in repo or ".." in repo or repo.endswith((".git", ".", "-")):
        if explicit:
            raise WeightsError(f"{name}: expected hf://user/name")
        return None
    first = repo.partition("/")[0]
    if not explicit and (
        first.lower() in FOLDER_NAMES or Path(first).exists() or repo.endswith((".safetensors", ".json", ".pt", ".pth"))
    ):
        return None
    return repo


class MissingError(WeightsError):
    """The Hub has answered that it has no such repository, branch or file."""


class MissingRevisionError(MissingError):
    """The Hub has answered that the repository has no such branch, tag or commit."""


def fetch(
    repo: str,
    filename: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
) -> Path:
    """A file of a repository, from the cache of huggingface_hub or downloaded into it.

    A full commit hash as `revision` is served from the cache without a request. If the Hub cannot be reached, is out of
    order or does not answer, what the cache has of this revision is used; if it has nothing, the call fails within
    `CONNECT_SECONDS` and `ANSWER_SECONDS`.

    Raises:
        WeightsError: the file is not to be had; says why and what to do.
    """
    from huggingface_hub import hf_hub_download

    if revision is not None and _COMMIT.fullmatch(revision) and not force_download:
        if (path := cached_file(repo, filename, revision=revision, cache_dir=cache_dir)) is not None:
            return path
    if obstacle := "local_files_only is set" if local_files_only else _obstacle(repo, filename, revision, token):
        named = _named(repo, filename, revision)
        if force_download:
            raise WeightsError(f"{named}: cannot be downloaded again, as {obstacle}")
        # hf_hub_download would send a request of its own before it looks there, even if told to use local files only.
        if (path := cached_file(repo, filename, revision=revision, cache_dir=cache_dir)) is None:
            raise WeightsError(f"{named}: not in the cache, and {obstacle}")
        return path
    with translated(repo, filename, revision):
        downloaded = hf_hub_download(
            repo, filename, revision=revision, token=token, cache_dir=cache_dir, force_download=force_download
        )
    return Path(downloaded)


def cached_file(
    repo: str, filename: str, *, revision: str | None = None, cache_dir: str | Path | None = None
) -> Path | None:
    """A file of a repository, of its main branch unless a revision is given, as it was when that was last asked for.

    None if it never was. No request is sent.
    """
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(repo, filename, revision=revision, cache_dir=cache_dir)
    return Path(cached) if isinstance(cached, str) else None


def commit_of(path: Path) -> str | None:
    """The commit hash that a file of the cache belongs to: .../snapshots/HASH/FILE."""
    return path.parent.name if _COMMIT.fullmatch(path.parent.name) else None


def complete_commit(path: Path, names: Sequence[str]) -> str | None:
    """Of the repository that a file of the cache belongs to, the newest other commit that the cache has these files of.

    An update that broke off leaves the older commit whole, but no branch points at it any more.
    """
    if commit_of(path) is None:
        return None
    others = [each for each in path.parent.parent.iterdir() if each != path.parent]
    whole = [each for each in others if all((each / name).is_file() for name in names)]
    return max(whole, key=lambda each: each.stat().st_mtime).name if whole else None


def check_name(repo: str) -> None:
    """Raise WeightsError unless this can be the name of a repository."""
    if not _REPO.fullmatch(repo.removeprefix(PREFIX)):
        raise WeightsError(f"{repo}: expected user/name")


def check_sending(repo: str) -> None:
    """Raise WeightsError if nothing can be sent to a repository: no such name, offline, or no connection."""
    check_name(repo)
    if is_offline():
        raise WeightsError(f"{repo}: nothing is sent while {OFFLINE_SET}")
    if not is_reachable():
        raise WeightsError(f"{repo}: {endpoint()} cannot be reached; check the connection")


def upload(
    folder: Path,
    repo: str,
    *,
    files: list[str] | None = None,
    message: str,
    private: bool | None = None,
    token: str | bool | None = None,
    branch: str | None = None,
    create_pr: bool | None = None,
    space_sdk: str | None = None,
) -> str:
    """Commit files of a folder, all unless given, to a repository, made if there is none; returns the commit's address.

    The repository is one of models, or with `space_sdk` ("gradio") a Space. A branch that it lacks is made, and begins
    as `main`.

    Raises:
        WeightsError: offline, not allowed, or the connection failed.
    """
    from huggingface_hub import HfApi

    check_sending(repo)
    repo = repo.removeprefix(PREFIX)
    if obstacle := _no_answer(repo, ".gitattributes", None, token):  # huggingface_hub would wait without an end
        raise WeightsError(f"{repo}: {obstacle}")
    with translated(repo, "", branch):
        api = HfApi(token=token)
        kind = "space" if space_sdk else "model"
        repo = api.create_repo(repo, repo_type=kind, space_sdk=space_sdk, private=private, exist_ok=True).repo_id
        if branch not in (None, "main") and not branch.startswith("refs/"):  # those are pull requests
            api.create_branch(repo, branch=branch, repo_type=kind, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo,
            repo_type=kind,
            folder_path=folder,
            allow_patterns=files,
            commit_message=message,
            revision=branch,
            create_pr=create_pr,
        )
    return str(commit)


@contextlib.contextmanager
def translated(repo: str, filename: str, revision: str | None) -> Iterator[None]:
    """Turn whatever huggingface_hub and the HTTP client below it raise into a WeightsError.

    Args:
        repo, filename, revision: what it is about; "" is no file.

    Raises:
        MissingError: the Hub has answered that it has no such thing; MissingRevisionError: that it is the revision.
        WeightsError: anything else; says why and what to do.
    """
    try:
        yield
    except WeightsError:
        raise
    except Exception as error:  # its HTTP client, and so the exceptions of a broken connection, change with versions
        if isinstance(error, ValueError) and isinstance(error.__cause__, OSError):  # a forced download hides why
            error = error.__cause__
        raise _kind_of(error)(f"{_named(repo, filename, revision)}: {_explained(error, repo)}") from error


def _kind_of(error: Exception) -> type[WeightsError]:
    """What the Hub has answered: no such revision, no such repository or file, or anything else."""
    from huggingface_hub import errors

    if isinstance(error, errors.RevisionNotFoundError):
        return MissingRevisionError
    missing = (errors.RepositoryNotFoundError, errors.RemoteEntryNotFoundError)
    return MissingError if isinstance(error, missing) and not isinstance(error, errors.GatedRepoError) else WeightsError


def _named(repo: str, filename: str, revision: str | None) -> str:
    at = f" at revision {revision!r}" if revision else ""
    return f"{repo}{at}: {filename}" if filename else f"{repo}{at}"


def _explained(error: Exception, repo: str) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.OfflineModeIsEnabled):  # it was set when huggingface_hub was imported
        return f"not in the cache, and {OFFLINE}"
    kinds: tuple[tuple[type[Exception], str], ...] = (
        (errors.GatedRepoError, f"access is restricted; ask for it at {endpoint()}/{repo} and log in: hf auth login"),
        (
            errors.RepositoryNotFoundError,
            "no such repository, or a private one; check the name, or log in: hf auth login",
        ),
        (errors.RevisionNotFoundError, "no such branch, tag or commit; check its name"),
        (
            errors.RemoteEntryNotFoundError,
            "the repository has no such file; was it saved by save_pretrained or push_to_hub?",
        ),
        (errors.HFValidationError, "expected user/name"),
        (errors.LocalTokenNotFoundError, "token=True, but there is no token on this machine; log in: hf auth login"),
        (UnicodeEncodeError, "the token has letters that none has; check token="),
    )
    for kind, text in kinds:
        if isinstance(error, kind):
            return text
    if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__  # type: ignore[assignment]  # why it came to look in the cache in the end
    of_place = isinstance(error, (PermissionError, NotADirectoryError, FileNotFoundError))
    if (of_place or getattr(error, "errno", None) in FULL) and not isinstance(error, errors.LocalEntryNotFoundError):
        return f"the cache cannot be written ({_reason(error)}); set HF_HOME or cache_dir= to a folder with room"
    if isinstance(error, errors.HfHubHTTPError) and error.response.status_code in (401, 403):
        return f"not allowed ({_reason(error)}); check the name, and that your token may write there: hf auth login"
    return f"the Hub did not answer as expected ({_reason(error)}); try again"


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error) or 'no reason given').splitlines()[0]:.200}"


def _obstacle(repo: str, filename: str, revision: str | None, token: str | bool | None) -> str:
    """Why there is no use in asking the Hub for a file, and what to do; "" if it answers."""
    if is_offline():
        return OFFLINE
    if not is_reachable():
        return f"{endpoint()} cannot be reached; connect once, or copy HF_HOME from where it is"
    return _no_answer(repo, filename, revision, token)


def _no_answer(repo: str, filename: str, revision: str | None, token: str | bool | None) -> str:
    """What is wrong with a Hub that accepts connections, and what to do; "" if it answers, be it with a refusal.

    huggingface_hub asks six times more for a file that is not in its cache: over 23 seconds if the Hub is out of order,
    as long as the Hub tells it to after too many requests, and over six minutes if the Hub never answers.
    """
    from huggingface_hub import constants, errors, get_hf_file_metadata, hf_hub_url

    own = constants.HF_HUB_ETAG_TIMEOUT  # who has set it knows a slow connection
    seconds = ANSWER_SECONDS if own == constants.DEFAULT_ETAG_TIMEOUT else own
    try:
        get_hf_file_metadata(hf_hub_url(repo, filename, revision=revision), token=token, timeout=seconds)
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status == 429:
            return f"{endpoint()} has had too many requests (status 429); wait some minutes, or log in: hf auth login"
        if status == 408 or status >= 500:
            return f"{endpoint()} is out of order (status {status}); try again later"
    except Exception as error:
        # The HTTP client is httpx before huggingface_hub 2, and httpx2 since. Whatever else is raised, asking for the
        # file raises it again, and `translated` says what it means.
        if any(kind.__name__ == "TransportError" for kind in type(error).__mro__):
            return f"{endpoint()} does not answer ({_reason(error)}); try again later"
    return ""


def endpoint() -> str:
    """Address of the Hub, HF_ENDPOINT as it was when huggingface_hub was imported."""
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def is_reachable() -> bool:
    """Whether the Hub, or the proxy in front of it, accepts a connection within `CONNECT_SECONDS`.

    huggingface_hub tries five times over 23 seconds for each file; this says at once that there is no use.
    """
    address = urllib.parse.urlsplit(endpoint())
    proxies = urllib.request.getproxies()
    proxy = proxies.get(address.scheme) or proxies.get("all")
    if proxy and not urllib.request.proxy_bypass(address.hostname or ""):
        address = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        with socket.create_connection((address.hostname, port), timeout=CONNECT_SECONDS):
            return True
    except OSError:
        return False
