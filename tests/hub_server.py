"""A Hugging Face Hub on loopback, as far as huggingface_hub asks for it, with faults on demand."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class LoopbackHub:
    """Repositories in memory, served on 127.0.0.1; a context manager.

    Attributes:
        commits: repository -> commit hash -> file name -> content, oldest first. The last one is `main`.
        branches: (repository, name of another branch) -> its commits likewise, from the one of `main` it began as.
        faults: repository, or repository/file -> "gated", "cut" (sends half of each weights file, then closes), "die"
            (the same, and the whole server stops), "page" (a web page with status 200 for every file), "silent" (takes
            requests and never answers), or an HTTP status such as "503".
        requests: "METHOD path" of every request, in order.
        made: what was said of every repository that was to be made.
    """

    def __init__(self) -> None:
        self.commits: dict[str, dict[str, dict[str, bytes]]] = {}
        self.branches: dict[tuple[str, str], dict[str, dict[str, bytes]]] = {}
        self.faults: dict[str, str] = {}
        self.requests: list[str] = []
        self.made: list[dict[str, Any]] = []
        self.pages: list[str] = []  # READMEs that were sent for checking
        self.closing = threading.Event()
        hub = self

        class Handler(_Handler):
            server_hub = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def endpoint(self) -> str:
        """What HF_ENDPOINT must be."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Close the port; connections are refused from now on."""
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def commit(self, repo: str, files: dict[str, bytes], branch: str = "main") -> str:
        """Add files on top of what a branch of a repository has; returns the commit hash."""
        history = self.commits.setdefault(repo, {}) if branch == "main" else self.branches[repo, branch]
        newest = list(history.values())[-1] if history else {}
        digest = hashlib.sha1(repr((repo, branch, len(history), sorted(files))).encode()).hexdigest()
        history[digest] = {**newest, **files}
        return digest

    def start_branch(self, repo: str, name: str) -> bool:
        """Let a branch begin as `main` is; False if it is there."""
        made = (repo, name) not in self.branches
        self.branches.setdefault((repo, name), dict(list(self.commits[repo].items())[-1:]))
        return made

    def find(self, repo: str, revision: str) -> str | None:
        """The commit hash of a revision; None if there is none."""
        history = self.commits[repo] if revision == "main" else self.branches.get((repo, revision), {})
        return list(history)[-1] if history else revision if revision in self.all_commits(repo) else None

    def all_commits(self, repo: str) -> dict[str, dict[str, bytes]]:
        """Those of all its branches."""
        others = [history for (of, _), history in self.branches.items() if of == repo]
        return {digest: files for history in (self.commits[repo], *others) for digest, files in history.items()}


class _Handler(BaseHTTPRequestHandler):
    server_hub: LoopbackHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._resolve()

    def do_GET(self) -> None:
        self._resolve()

    def do_POST(self) -> None:
        hub = self.server_hub
        hub.requests.append(f"POST {self.path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts == ["api", "repos", "create"]:
            asked = json.loads(body)
            hub.made.append(asked)
            repo = f"{asked.get('organization') or 'me'}/{asked['name']}"
            if repo.startswith("forbidden/"):
                return self._refuse(403, None, "you have no write access")
            hub.commits.setdefault(repo, {})
            return self._answer({"url": f"{hub.endpoint}/{repo}", "name": repo})
        if parts == ["api", "validate-yaml"]:
            hub.pages.append(json.loads(body)["content"])
            return self._answer({"errors": [], "warnings": []})
        repo, kind = "/".join(parts[2:4]), parts[4]
        if repo not in hub.commits:
            return self._refuse(404, "RepoNotFound", "Repository not found")
        branch = urllib.parse.unquote(parts[5])
        if kind == "branch":
            if not hub.start_branch(repo, branch):
                return self._refuse(409, None, f"Reference already exists: {branch}")
            return self._answer({})
        if branch != "main" and (repo, branch) not in hub.branches:
            return self._refuse(404, "RevisionNotFound", "Invalid rev id")
        if kind == "preupload":
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            return self._answer({"files": files})
        assert kind == "commit", self.path
        files = {}
        for line in map(json.loads, body.decode().splitlines()):
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        digest = hub.commit(repo, files, branch)
        self._answer({"commitUrl": f"{hub.endpoint}/{repo}/commit/{digest}", "commitOid": digest, "success": True})

    def _resolve(self) -> None:
        """HEAD or GET of /USER/NAME/resolve/REVISION/FILE."""
        hub = self.server_hub
        hub.requests.append(f"{self.command} {self.path}")
        parts = self.path.partition("?")[0].strip("/").split("/")
        repo, rest = "/".join(parts[:2]), parts[2:]
        fault = hub.faults.get("/".join([repo, *rest[2:]])) or hub.faults.get(repo)
        if repo not in hub.commits or rest[:1] != ["resolve"]:
            return self._refuse(404, "RepoNotFound", "Repository not found")
        if fault == "gated":
            return self._refuse(403, "GatedRepo", "Access to this model is restricted")
        if fault == "silent":
            hub.closing.wait()
            self.close_connection = True
            return None
        if fault and fault.isdigit():
            return self._refuse(int(fault), None, "out of order")
        digest = hub.find(repo, urllib.parse.unquote(rest[1]))
        if digest is None:
            return self._refuse(404, "RevisionNotFound", "Invalid rev id")
        data = hub.all_commits(repo)[digest].get("/".join(rest[2:]))
        if data is None:
            return self._refuse(404, "EntryNotFound", "Entry not found", commit=digest)
        if fault == "page":
            data = b"<!DOCTYPE html><html><body>Sign in to this network</body></html>"
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", digest)
        self.send_header("Content-Length", str(len(data) - start))
        self.send_header("Accept-Ranges", "bytes")
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault in ("cut", "die") and rest[2].endswith(".safetensors"):
            self.wfile.write(data[start : start + (len(data) - start) // 2])
            self.close_connection = True
            if fault == "die":
                hub.stop()
        else:
            self.wfile.write(data[start:])

    def _answer(self, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _refuse(self, status: int, code: str | None, text: str, *, commit: str | None = None) -> None:
        self.send_response(status)
        if status == 429:
            self.send_header("Retry-After", "20")
        if code:
            self.send_header("X-Error-Code", code)
        if commit:
            self.send_header("X-Repo-Commit", commit)
        self.send_header("X-Error-Message", text)
        self.send_header("Content-Length", "0")
        self.end_headers()
