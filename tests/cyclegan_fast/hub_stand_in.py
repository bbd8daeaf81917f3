"""Stands in for Hugging Face's hub on the loopback interface: what huggingface_hub asks of it, over real HTTP.

It keeps repositories of models in memory: commits with their files, branches that name commits. Files whose names end
in .safetensors, .pth or .png go the way of large files (git LFS, transfer "basic"), as they do there.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from huggingface_hub import constants

LARGE = (".safetensors", ".pth", ".png")
TOKEN = "hf_of_the_owner"


@dataclass
class StoredRepository:
    """Holds a repository: its commits by their hashes, each all files by their names, and its branches."""

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def add(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Commit files on top of a branch; return the commit's hash."""
        whole = {**self.at(branch), **files} if branch in self.branches else files
        parts = [self.branches.get(branch, ""), *sorted(f"{name} {_digest(whole[name])}" for name in whole)]
        commit = hashlib.sha1("\n".join(parts).encode()).hexdigest()
        self.commits[commit], self.branches[branch] = whole, commit
        return commit

    def at(self, revision: str) -> dict[str, bytes]:
        """Return the files at a branch or a commit; raises KeyError where there is none."""
        return self.commits[self.branches.get(revision, revision)]


class HubStandIn:
    """Serves repositories; tests read and write them directly, too."""

    def __init__(self) -> None:
        self.repositories: dict[str, StoredRepository] = {}
        self.uploads: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.cut_after: int | None = None  # bytes, after which every download of a large file is cut
        self.refuse: int | None = None  # the status of the answer to every commit
        self.refuse_uploads = False
        self.address = ""

    def repository(
        self, name: str, *, private: bool = False, files: dict[str, bytes] | None = None
    ) -> StoredRepository:
        """Make a repository with a first commit."""
        made = self.repositories[name] = StoredRepository(private)
        made.add(files or {".gitattributes": b""})
        return made

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Serve on a port of the loopback interface; yields the address."""
        hub = self

        class Handler(_Handler):
            stored = hub

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            self.address = f"http://127.0.0.1:{server.server_address[1]}"
            thread = threading.Thread(target=server.serve_forever, args=[0.02])
            thread.start()
            try:
                yield self.address
            finally:
                server.shutdown()
                thread.join()


@contextmanager
def hub_of_this_process(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubStandIn]:
    """Serve an empty hub, to which the client in this process speaks with the owner's token and a cache of its own."""
    hub = HubStandIn()
    with hub.serving() as address:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        # Another protocol than HTTP, for which there is no stand-in.
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Refused(Exception):
    """Answers with a status, and with the code by which the client tells apart what is missing."""

    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        self.status, self.code, self.message = status, code, message


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stored: HubStandIn

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.stored.asked.append(f"{self.command} {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) if self._is_sized() else self._chunks()
        try:
            for method, pattern, answer in _ROUTES:
                match = re.fullmatch(pattern, path)
                if match and self.command in method.split():
                    return answer(self, body, **match.groupdict())
            raise _Refused(404, message=f"the stand-in knows no {self.command} {path}")
        except _Refused as refused:
            self._send(
                json.dumps({"error": refused.message}).encode(),
                status=refused.status,
                headers={"X-Error-Code": refused.code, "X-Error-Message": refused.message},
            )

    def _is_sized(self) -> bool:
        return self.headers.get("Transfer-Encoding") != "chunked"

    def _chunks(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(self, content: bytes, *, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, value: Any) -> None:
        self._send(json.dumps(value).encode(), headers={"Content-Type": "application/json"})

    @property
    def _is_owner(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _repository(self, name: str, *, to_write: bool = False) -> StoredRepository:
        found = self.stored.repositories.get(name)
        if found is None or (found.private and not self._is_owner):
            raise _Refused(404 if self._is_owner else 401, "RepoNotFound", "Repository not found")
        if to_write and not self._is_owner:
            raise _Refused(403, message="you may not write here")
        return found

    def _files(self, name: str, revision: str) -> dict[str, bytes]:
        try:
            return self._repository(name).at(revision)
        except KeyError:
            raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}") from None

    # --- what is asked ---

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        name = f"{asked.get('organization') or 'nobody'}/{asked['name']}"
        if not self._is_owner:
            raise _Refused(401, message="Invalid username or password.")
        if name in self.stored.repositories:
            known = {"error": "You already created this model repo", "url": f"{self.stored.address}/{name}"}
            self._send(json.dumps(known).encode(), status=409)
            return
        private = asked.get("private") or asked.get("visibility") == "private"
        self.stored.repository(name, private=bool(private))
        self._json({"url": f"{self.stored.address}/{name}", "name": name})

    def validate(self, body: bytes) -> None:
        """Find fault with metadata that are no mapping, and with scores that are not laid out as the hub reads them."""
        match = re.match(r"---\n(.*?)\n---\n", json.loads(body)["content"], re.DOTALL)
        metadata = yaml.safe_load(match[1]) if match else None
        errors = [] if isinstance(metadata, dict) else [{"message": "metadata must be a mapping"}]
        for model in metadata.get("model-index", []) if isinstance(metadata, dict) else []:
            for result in model["results"]:
                whole = result["task"]["type"] and result["dataset"]["type"] and result["dataset"]["name"]
                if not whole or not all(metric["type"] and "value" in metric for metric in result["metrics"]):
                    errors.append({"message": "model-index lacks something"})
        self._json({"errors": errors, "warnings": []})

    def information(self, body: bytes, name: str, revision: str | None = None) -> None:
        files, repository = self._files(name, revision or "main"), self._repository(name)
        siblings = [{"rfilename": file} for file in sorted(files)]
        sha = repository.branches.get(revision or "main", revision)
        self._json({"id": name, "modelId": name, "private": repository.private, "sha": sha, "siblings": siblings})

    def tree(self, body: bytes, name: str, revision: str) -> None:
        entries = []
        for file, content in sorted(self._files(name, revision).items()):
            entry: dict[str, Any] = {"type": "file", "path": file, "size": len(content), "oid": _blob(content)}
            if file.endswith(LARGE):
                entry["lfs"] = {"oid": _digest(content), "size": len(content), "pointerSize": 130}
            entries.append(entry)
        self._json(entries)

    def branch(self, body: bytes, name: str, branch: str) -> None:
        repository = self._repository(name, to_write=True)
        if branch in repository.branches:
            raise _Refused(409, message="Reference already exists")
        repository.branches[branch] = repository.branches["main"]
        self._json({})

    def preupload(self, body: bytes, name: str, revision: str) -> None:
        self._repository(name, to_write=True)
        files = [
            {"path": file["path"], "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular"}
            | {"shouldIgnore": False}
            for file in json.loads(body)["files"]
        ]
        self._json({"files": files})

    def batch(self, body: bytes, name: str) -> None:
        self._repository(name, to_write=True)
        objects = [
            {**wanted, "actions": {"upload": {"href": f"{self.stored.address}/lfs/{wanted['oid']}"}}}
            for wanted in json.loads(body)["objects"]
        ]
        self._json({"transfer": "basic", "objects": objects})

    def upload(self, body: bytes, oid: str) -> None:
        if self.stored.refuse_uploads:
            self.connection.close()
            raise ConnectionAbortedError
        assert _digest(body) == oid
        self.stored.uploads[oid] = body
        self._send(b"")

    def commit(self, body: bytes, name: str, revision: str) -> None:
        repository = self._repository(name, to_write=True)
        if self.stored.refuse:
            raise _Refused(self.stored.refuse, message="the stand-in was told to refuse")
        files: dict[str, bytes] = {}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.stored.uploads[value["oid"]]
            else:
                assert line["key"] == "header"
        commit = repository.add(files, revision)
        url = f"{self.stored.address}/{name}/commit/{commit}"
        self._json({"commitUrl": url, "commitOid": commit, "pullRequestUrl": None, "success": True})

    def resolve(self, body: bytes, name: str, revision: str, file: str) -> None:
        files, repository = self._files(name, revision), self._repository(name)
        if file not in files:
            raise _Refused(404, "EntryNotFound", "Entry not found")
        content = files[file]
        headers = {
            "ETag": f'"{_blob(content)}"',
            "X-Repo-Commit": repository.branches.get(revision, revision),
            "Accept-Ranges": "bytes",
        }
        if file.endswith(LARGE):
            headers |= {"X-Linked-Etag": f'"{_digest(content)}"', "X-Linked-Size": str(len(content))}
        if self.command == "GET" and file.endswith(LARGE) and self.stored.cut_after is not None:
            self.send_response(200)
            for header, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(header, value)
            self.end_headers()
            self.wfile.write(content[: self.stored.cut_after])
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(2)
            return
        self._send(content, headers=headers)


_NAME = r"(?P<name>[^/]+/[^/]+)"
_REVISION = r"(?P<revision>refs/[^/]+/[^/]+|[^/]+)"
_ROUTES: list[tuple[str, str, Any]] = [
    ("POST", "/api/repos/create", _Handler.create),
    ("POST", "/api/validate-yaml", _Handler.validate),
    ("GET HEAD", f"/api/models/{_NAME}", _Handler.information),
    ("GET", f"/api/models/{_NAME}/revision/{_REVISION}", _Handler.information),
    ("GET", f"/api/models/{_NAME}/tree/{_REVISION}", _Handler.tree),
    ("POST", f"/api/models/{_NAME}/branch/(?P<branch>.+)", _Handler.branch),
    ("POST", f"/api/models/{_NAME}/preupload/{_REVISION}", _Handler.preupload),
    ("POST", f"/api/models/{_NAME}/commit/{_REVISION}", _Handler.commit),
    ("POST", rf"/{_NAME}\.git/info/lfs/objects/batch", _Handler.batch),
    ("PUT", "/lfs/(?P<oid>[0-9a-f]+)", _Handler.upload),
    ("GET HEAD", f"/{_NAME}/resolve/{_REVISION}/(?P<file>.+)", _Handler.resolve),
]
