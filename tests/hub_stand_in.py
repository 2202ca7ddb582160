"""A stand-in for the Hugging Face hub and for ModelScope, where neither can be reached: their routes, on localhost.

It serves models out of memory, answers byte ranges, can cut connections, and remembers what it was asked.
"""

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

COMMIT = "5" * 40

Files = Mapping[str, bytes]
Description = Callable[[str, Files], object]


@dataclass
class HubStandIn:
    """The hubs' models, and what happened to them. A file is called `owner/name/path` here."""

    models: Mapping[str, Files]
    endpoint: str = ""
    cut_after: dict[str, list[int]] = field(default_factory=dict)  # file → bytes sent before a connection breaks
    downloads: list[tuple[str, int]] = field(default_factory=list)  # file and first byte of each GET

    def requested(self, file: str) -> list[int]:
        """The first byte of each download of `file`."""
        return [start for name, start in self.downloads if name == file]


@contextmanager
def serve(models: Mapping[str, Files]) -> Iterator[HubStandIn]:
    """Run a hub that knows `models`: name → file → content."""
    hub = HubStandIn(models)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, *, with_body: bool) -> None:
            model, file, description = asked_for(unquote(self.path))
            files = hub.models.get(model, {})
            if description and files:
                self.send_json(description(model, files))
            elif file in files:
                self.send_file(f"{model}/{file}", files[file], with_body=with_body)
            else:
                self.send_bytes(404, b"", {"X-Error-Code": "RepoNotFound"}, with_body=False)

        def send_json(self, value: object) -> None:
            self.send_bytes(200, json.dumps(value).encode(), {"Content-Type": "application/json"}, with_body=True)

        def send_file(self, name: str, content: bytes, *, with_body: bool) -> None:
            headers = {"ETag": f'"{etag(content)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            start = int(asked[1]) if asked else 0
            if asked:
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            if with_body:
                hub.downloads.append((name, start))
            cuts = hub.cut_after.get(name) if with_body else None
            cut = cuts.pop(0) if cuts else None
            self.send_bytes(206 if asked else 200, content[start:], headers, with_body=with_body, cut=cut)

        def send_bytes(
            self, status: int, body: bytes, headers: dict[str, str], *, with_body: bool, cut: int | None = None
        ) -> None:
            self.send_response(status)
            for key, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(key, value)
            self.end_headers()
            if with_body:
                self.wfile.write(body[:cut])
            if cut is not None:
                self.close_connection = True

        def log_message(self, format: str, *arguments: object) -> None:
            """Keep the tests' output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def asked_for(path: str) -> tuple[str, str, Description | None]:
    """The model and file that a route names, or what it wants to be told about the model."""
    for route, description in ROUTES.items():
        if match := re.fullmatch(route, path):
            return match["model"], match.groupdict().get("file", ""), description
    return "", "", None


def summary(model: str, files: Files) -> object:
    """What Hugging Face says about a model."""
    return {"id": model, "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}


def listing(model: str, files: Files) -> object:
    """What Hugging Face says about a model's files."""
    return [
        {"type": "file", "path": name, "size": len(content), "oid": etag(content)} for name, content in files.items()
    ]


def modelscope_listing(model: str, files: Files) -> object:
    """What ModelScope says about a model's files."""
    entries = [
        {"Type": "blob", "Path": name, "Size": len(content), "Sha256": hashlib.sha256(content).hexdigest()}
        for name, content in files.items()
    ]
    return {"Code": 200, "Success": True, "Data": {"Files": entries}}


def etag(content: bytes) -> str:
    """Hugging Face's name for a file's content."""
    return hashlib.sha1(content).hexdigest()


NAME = "(?P<model>[^/]+/[^/]+)"
ROUTES: dict[str, Description | None] = {
    rf"/api/models/{NAME}/revision/main(\?.*)?": summary,
    rf"/api/models/{NAME}/tree/{COMMIT}(\?.*)?": listing,
    rf"/{NAME}/resolve/{COMMIT}/(?P<file>[^?]+)": None,
    rf"/api/v1/models/{NAME}/repo/files\?Revision=master&Recursive=True": modelscope_listing,
    rf"/api/v1/models/{NAME}/repo\?Revision=master&FilePath=(?P<file>.+)": None,
}
