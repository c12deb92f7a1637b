"""A loopback server with the Hub's HTTP API as `huggingface_hub` uses it; not a test itself.

Strict where the real one is: tokens and their roles, private repositories, LFS objects that must have the announced
size and sha256, commits that name only objects that were uploaded, `parentCommit`, revisions, one commit at a time.
What goes wrong on demand: `server.faults.append(Fault("PUT", "/lfs/", 503))`, or `"cut"` to hang up in mid-body.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import yaml

REPO = "ada/reviews"  # where the tests push to
LFS_SUFFIXES = (".safetensors", ".bin", ".npz", ".arrow", ".pt")
ANY_REPO = r"/(?P<repo>[\w.-]+/[\w.-]+)"
REVISION = r"/(?P<revision>[^/]+)"


@dataclass
class Fault:
    """What happens instead of an answer, once.

    A status code; `"cut"` in the middle of the request's body; `"lost"`: what is asked is done, the answer never
    arrives; `"short"`: half of the announced answer arrives; `"slow"`: the answer waits for two seconds; `"page"`: the
    login page of a captive portal; `"gated"`: only accepted users may read.
    """

    method: str
    path: str  # a regular expression, searched for
    what: int | str
    message: str = "made to fail"
    only_after: int = 0  # requests that match and pass first
    retry_after: int | None = None  # seconds, for a header of that name


@dataclass
class Commit:
    oid: str
    parent: str | None
    title: str
    files: dict[str, File]


@dataclass(frozen=True)
class File:
    content: bytes
    lfs: bool

    @property
    def blob(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


@dataclass
class Repo:
    private: bool
    commits: list[Commit] = field(default_factory=list)
    branches: dict[str, str] = field(default_factory=dict)  # name -> oid
    objects: dict[str, bytes] = field(default_factory=dict)  # sha256 -> content

    def at(self, revision: str) -> Commit | None:
        oid = self.branches.get(revision, revision)
        return next((commit for commit in self.commits if commit.oid == oid), None)

    def add(self, branch: str, title: str, files: dict[str, File]) -> Commit:
        parent = self.branches.get(branch)
        key = json.dumps([parent, title, len(self.commits), sorted((n, f.blob) for n, f in files.items())])
        commit = Commit(hashlib.sha1(key.encode()).hexdigest(), parent, title, files)
        self.commits.append(commit)
        self.branches[branch] = commit.oid
        return commit


class HubServer:
    """State of the server; `url` is what `HF_ENDPOINT` has to be."""

    def __init__(self) -> None:
        self.tokens = {"hf_writer": ("ada", "write"), "hf_reader": ("ada", "read"), "hf_other": ("bob", "write")}
        self.repos: dict[str, Repo] = {}
        self.faults: list[Fault] = []
        self.meanwhile: Callable[[], None] | None = None  # done once, just before a commit is looked at
        self.log: list[tuple[str, str, int]] = []  # method, path, status
        self.lock = threading.RLock()
        server = self

        class Handler(_Handler):
            hub = server

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self.cdn = f"http://localhost:{self._http.server_port}"  # another host, as there: the client looks at that

    @contextmanager
    def running(self) -> Iterator[HubServer]:
        thread = threading.Thread(target=self._http.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._http.shutdown()
            self._http.server_close()
            thread.join()


def files(server: HubServer, revision: str = "main") -> dict[str, File]:
    """What `REPO` holds."""
    return server.repos[REPO].at(revision).files


class _Answer(Exception):  # noqa: N818 - not an error but the end of handling a request
    def __init__(self, status: int, body: object = None, error_code: str | None = None, **headers: str):
        super().__init__(status)
        self.status, self.body, self.headers = status, body, headers
        if error_code:
            self.headers["X-Error-Code"] = error_code
        if status >= 400:
            self.headers["X-Error-Message"] = str((body or {}).get("error", ""))


def _error(status: int, message: str, code: str | None = None) -> _Answer:
    return _Answer(status, {"error": message}, code)


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._handle()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _handle(self) -> None:
        self.path_only, self._body, self._losing = unquote(urlsplit(self.path).path), None, False
        try:
            self._fail_on_demand()
            for method, pattern, work in ROUTES:
                found = re.fullmatch(pattern, self.path_only)
                if found and self.command in method:
                    with self.hub.lock:
                        work(self, **found.groupdict())
            raise _error(404, f"no such route: {self.command} {self.path_only}")
        except _Answer as answer:
            with suppress(ConnectionError):
                self._send(answer)
                return
            self.close_connection = True
        except ConnectionError:
            self.close_connection = True

    def _fail_on_demand(self) -> None:
        with self.hub.lock:
            for fault in self.hub.faults:
                if self.command == fault.method and re.search(fault.path, self.path_only):
                    if fault.only_after:
                        fault.only_after -= 1
                        continue
                    self.hub.faults.remove(fault)
                    break
            else:
                return
        if fault.what == "cut":
            self.rfile.read(max(1, int(self.headers.get("Content-Length", 0)) // 2))
            self.hub.log.append((self.command, self.path_only, 0))
            self.connection.close()
            raise ConnectionAbortedError
        if fault.what in ("lost", "short"):
            self._losing = fault.what
            return
        if fault.what == "slow":
            time.sleep(2)
            return
        if fault.what == "page":
            raise _Answer(200, b"<html><body>Log in to the guest network</body></html>", Content_Type="text/html")
        if fault.what == "gated":
            raise _error(403, "Access to this model is restricted", "GatedRepo")
        self.body()
        answer = _error(int(fault.what), fault.message)
        if fault.retry_after is not None:
            answer.headers["Retry-After"] = str(fault.retry_after)
        raise answer

    def _send(self, answer: _Answer) -> None:
        self.body()  # a request that was not read to its end would be taken for the next one
        content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        self.hub.log.append((self.command, self.path_only, answer.status))
        if self._losing == "lost":
            self.connection.close()
            raise ConnectionAbortedError
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self._losing == "short":
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            self.connection.close()
            raise ConnectionAbortedError
        if self.command != "HEAD":
            self.wfile.write(content)

    # --- what every route asks ----------------------------------------------------------------------------------

    def body(self) -> bytes:
        if self._body is None:
            if self.headers.get("Transfer-Encoding") == "chunked":
                self._body = b"".join(iter(self._chunk, b""))
            else:
                self._body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return self._body

    def _chunk(self) -> bytes:
        size = int(self.rfile.readline().strip(), 16)
        data = self.rfile.read(size)
        self.rfile.readline()
        return data

    def json(self) -> dict:
        return json.loads(self.body())

    def user(self) -> tuple[str, str] | None:
        header = self.headers.get("Authorization")
        if header is None:
            return None
        found = self.hub.tokens.get(header.removeprefix("Bearer "))
        if found is None:
            raise _error(401, "Invalid credentials in Authorization header")
        return found

    def writer(self, namespace: str) -> str:
        user = self.user()
        if user is None:
            raise _error(401, "Invalid username or password.")
        name, role = user
        if role != "write" or name != namespace:
            raise _error(403, "You don't have the rights to write to this namespace with this token")
        return name

    def repo(self, repo: str, *, write: bool = False) -> Repo:
        user, found = self.user(), self.hub.repos.get(repo)
        owner = repo.split("/")[0]
        if found is None or (found.private and (user is None or user[0] != owner)):
            raise _error(404 if user else 401, "Repository not found", "RepoNotFound")
        if write:
            self.writer(owner)
        return found

    def commit_at(self, repo: Repo, revision: str) -> Commit:
        found = repo.at(revision)
        if found is None:
            raise _error(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return found

    # --- routes ----------------------------------------------------------------------------------------------------

    def whoami(self) -> None:
        user = self.user()
        if user is None:
            raise _error(401, "Invalid username or password.")
        raise _Answer(200, {"type": "user", "name": user[0], "orgs": [], "auth": {"accessToken": {"role": user[1]}}})

    def validate_yaml(self) -> None:
        """The rules of the Hub that concern us: a YAML header, a license id, results with numbers."""
        header = re.match(r"---\n(.*?)\n---\n", self.json()["content"], re.DOTALL)
        if header is None:
            raise _Answer(
                200, {"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]}
            )
        try:
            metadata = yaml.safe_load(header[1])
            for entry in metadata.get("model-index", []):
                for result in entry["results"]:
                    assert result["task"]["type"]
                    assert result["dataset"]["type"]
                    assert all(isinstance(metric["value"], int | float) for metric in result["metrics"])
        except (yaml.YAMLError, AssertionError, KeyError, TypeError) as error:
            raise _Answer(400, {"error": "invalid", "errors": [{"message": repr(error)}], "warnings": []}) from error
        raise _Answer(200, {"errors": [], "warnings": []})

    def create(self) -> None:
        body = self.json()
        user = self.user()
        if user is None:
            raise _error(401, "Invalid username or password.")
        namespace = body.get("organization") or user[0]
        self.writer(namespace)
        name = f"{namespace}/{body['name']}"
        url = f"{self.hub.url}/{name}"
        if name in self.hub.repos:
            raise _Answer(409, {"error": "You already created this model repo", "url": url})
        repo = self.hub.repos[name] = Repo(private=body.get("visibility") == "private" or bool(body.get("private")))
        repo.add("main", "initial commit", {".gitattributes": File(b"*.safetensors filter=lfs\n", False)})
        raise _Answer(200, {"url": url, "name": name, "id": name})

    def info(self, repo: str, revision: str = "main") -> None:
        found = self.repo(repo)
        commit = self.commit_at(found, revision)
        files = [{"rfilename": name} for name in sorted(commit.files)]
        base = {"_id": repo, "id": repo, "modelId": repo, "private": found.private, "tags": [], "downloads": 0}
        raise _Answer(200, {**base, "sha": commit.oid, "siblings": files, "likes": 0})

    def preupload(self, repo: str, revision: str) -> None:
        commit = self.commit_at(self.repo(repo, write=True), revision)
        files = []
        for file in self.json()["files"]:
            base64.b64decode(file["sample"], validate=True)
            lfs = file["path"].endswith(LFS_SUFFIXES) or file["size"] > 10_000_000
            known = commit.files.get(file["path"])
            oid = None if known is None else known.sha256 if known.lfs else known.blob
            mode = "lfs" if lfs else "regular"
            files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        raise _Answer(200, {"files": files})

    def lfs_batch(self, repo: str) -> None:
        found, body = self.repo(repo, write=True), self.json()
        if not self.headers["Content-Type"].startswith("application/vnd.git-lfs+json"):
            raise _error(415, "expected application/vnd.git-lfs+json")
        objects = []
        for wanted in body["objects"]:
            entry = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in found.objects:
                href = f"{self.hub.url}/lfs/{repo}/{wanted['oid']}/{wanted['size']}"
                verify = {"href": f"{self.hub.url}/lfs-verify/{repo}", "header": {}}
                entry["actions"] = {"upload": {"href": href, "header": {}}, "verify": verify}
            objects.append(entry)
        raise _Answer(200, {"transfer": "basic", "objects": objects})

    def lfs_upload(self, repo: str, oid: str, size: str) -> None:
        content = self.body()
        if len(content) != int(size) or hashlib.sha256(content).hexdigest() != oid:
            raise _error(400, "the uploaded object does not have the announced size and sha256")
        self.hub.repos[repo].objects[oid] = content
        raise _Answer(200, {})

    def lfs_verify(self, repo: str) -> None:
        body = self.json()
        content = self.repo(repo, write=True).objects.get(body["oid"])
        if content is None or len(content) != body["size"]:
            raise _error(404, "object was not uploaded")
        raise _Answer(200, {})

    def commit(self, repo: str, revision: str) -> None:
        if self.hub.meanwhile is not None:
            happening, self.hub.meanwhile = self.hub.meanwhile, None
            happening()
        found = self.repo(repo, write=True)
        if self.headers["Content-Type"] != "application/x-ndjson":
            raise _error(415, "expected application/x-ndjson")
        header, *operations = [json.loads(line) for line in self.body().splitlines() if line.strip()]
        if header["key"] != "header" or not header["value"].get("summary"):
            raise _error(400, "the first line must be the header, with a summary")
        if revision not in found.branches:
            raise _error(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        parent = header["value"].get("parentCommit")
        if parent is not None and parent != found.branches[revision]:
            raise _error(412, "A commit has happened since. Please refresh and try again.")
        files = dict(self.commit_at(found, revision).files)
        for operation in operations:
            value = operation["value"]
            match operation["key"]:
                case "file":
                    files[value["path"]] = File(base64.b64decode(value["content"], validate=True), False)
                case "lfsFile":
                    content = found.objects.get(value["oid"])
                    if content is None or len(content) != value["size"] or value["algo"] != "sha256":
                        raise _error(400, f"LFS pointer to an object that was not uploaded: {value['path']}")
                    files[value["path"]] = File(content, True)
                case "deletedFile":
                    if files.pop(value["path"], None) is None:
                        raise _error(400, f"no such file: {value['path']}")
                case _:
                    raise _error(400, f"unknown operation {operation['key']}")
        done = found.add(revision, header["value"]["summary"], files)
        url = f"{self.hub.url}/{repo}/commit/{done.oid}"
        raise _Answer(200, {"success": True, "commitOid": done.oid, "commitUrl": url, "hookOutput": ""})

    def branch(self, repo: str, branch: str) -> None:
        found = self.repo(repo, write=True)
        if branch in found.branches:
            raise _error(409, f"Reference already exists: {branch}")
        start = (self.json() if self.body() else {}).get("startingPoint", "main")
        found.branches[branch] = self.commit_at(found, start).oid
        raise _Answer(200, {"success": True})

    def tree(self, repo: str, revision: str) -> None:
        commit = self.commit_at(self.repo(repo), revision)
        raise _Answer(200, [_entry(name, file) for name, file in sorted(commit.files.items())])

    def paths_info(self, repo: str, revision: str) -> None:
        commit, body = self.commit_at(self.repo(repo), revision), self.body().decode()
        wanted = re.findall(r"paths=([^&]+)", body) if "=" in body else json.loads(body)["paths"]
        names = {unquote(name) for name in wanted}
        raise _Answer(200, [_entry(name, commit.files[name]) for name in sorted(names & commit.files.keys())])

    def resolve(self, repo: str, revision: str, path: str) -> None:
        found = self.repo(repo)
        commit = self.commit_at(found, revision)
        file = commit.files.get(path)
        if file is None:
            raise _Answer(404, {"error": "Entry not found"}, "EntryNotFound", X_Repo_Commit=commit.oid)
        headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{file.sha256 if file.lfs else file.blob}"'}
        if file.lfs:
            headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(len(file.content))}
            raise _Answer(302, b"", Location=f"{self.hub.cdn}/cdn/{repo}/{file.sha256}", **headers)
        raise _Answer(200, file.content, **headers)

    def cdn(self, repo: str, oid: str) -> None:
        content = self.hub.repos[repo].objects[oid]  # signed addresses: whoever has one may read
        first = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if first:
            start = int(first[1])
            span = f"bytes {start}-{len(content) - 1}/{len(content)}"
            raise _Answer(206, content[start:], ETag=f'"{oid}"', Content_Range=span)
        raise _Answer(200, content, ETag=f'"{oid}"')


def _entry(name: str, file: File) -> dict:
    entry = {"type": "file", "path": name, "size": len(file.content), "oid": file.blob}
    if file.lfs:
        entry["lfs"] = {"oid": file.sha256, "size": len(file.content), "pointerSize": 135}
    return entry


ROUTES = [
    ("POST", r"/api/validate-yaml", _Handler.validate_yaml),
    ("GET", r"/api/whoami-v2", _Handler.whoami),
    ("POST", r"/api/repos/create", _Handler.create),
    ("GET", rf"/api/models{ANY_REPO}", _Handler.info),
    ("GET", rf"/api/models{ANY_REPO}/revision{REVISION}", _Handler.info),
    ("POST", rf"/api/models{ANY_REPO}/preupload{REVISION}", _Handler.preupload),
    ("POST", rf"/api/models{ANY_REPO}/commit{REVISION}", _Handler.commit),
    ("POST", rf"/api/models{ANY_REPO}/branch/(?P<branch>.+)", _Handler.branch),
    ("GET", rf"/api/models{ANY_REPO}/tree{REVISION}", _Handler.tree),
    ("POST", rf"/api/models{ANY_REPO}/paths-info{REVISION}", _Handler.paths_info),
    ("POST", rf"{ANY_REPO}\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    ("PUT", rf"/lfs{ANY_REPO}/(?P<oid>[0-9a-f]{{64}})/(?P<size>\d+)", _Handler.lfs_upload),
    ("POST", rf"/lfs-verify{ANY_REPO}", _Handler.lfs_verify),
    ("GET HEAD", rf"{ANY_REPO}/resolve{REVISION}/(?P<path>.+)", _Handler.resolve),
    ("GET HEAD", rf"/cdn{ANY_REPO}/(?P<oid>[0-9a-f]{{64}})", _Handler.cdn),
]
