"""A stand-in for the Hugging Face hub, for machines that cannot reach it: the same routes over real HTTP, on localhost.

It serves models out of memory, answers byte ranges, can cut a connection once, and remembers what it was asked.
"""

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "5" * 40


@dataclass
class HubStandIn:
    """The hub's models, and what happened to them. A file is called `owner/name/path` here."""

    models: Mapping[str, Mapping[str, bytes]]
    endpoint: str = ""
    cut_after: dict[str, int] = field(default_factory=dict)  # file → bytes sent before the connection breaks, once
    downloads: list[tuple[str, int]] = field(default_factory=list)  # file and first byte of each GET

    def requested(self, file: str) -> list[int]:
        """The first byte of each download of `file`."""
        return [start for name, start in self.downloads if name == file]


@contextmanager
def serve(models: Mapping[str, Mapping[str, bytes]]) -> Iterator[HubStandIn]:
    """Run a hub that knows `models`: name → file → content."""
    hub = HubStandIn(models)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, *, with_body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            info = re.fullmatch(rf"/api/models/([^/]+/[^/]+)/(revision/main|tree/{COMMIT})", path)
            file = re.fullmatch(rf"/([^/]+/[^/]+)/resolve/{COMMIT}/(.+)", path)
            if info and info[1] in hub.models:
                files = hub.models[info[1]]
                self.send_json(description(info[1], files) if info[2] == "revision/main" else listing(files))
            elif file and file[2] in hub.models.get(file[1], {}):
                self.send_file(f"{file[1]}/{file[2]}", hub.models[file[1]][file[2]], with_body=with_body)
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
            cut = hub.cut_after.pop(name, None) if with_body else None
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


def description(model: str, files: Mapping[str, bytes]) -> dict[str, object]:
    """What the hub says about a model."""
    return {"id": model, "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}


def listing(files: Mapping[str, bytes]) -> list[dict[str, object]]:
    """What the hub says about a model's files."""
    return [
        {"type": "file", "path": name, "size": len(content), "oid": etag(content)} for name, content in files.items()
    ]


def etag(content: bytes) -> str:
    """The hub's name for a file's content."""
    return hashlib.sha1(content).hexdigest()
