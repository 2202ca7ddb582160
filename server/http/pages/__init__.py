"""The pages for people: each is one file that asks nobody but this server for anything."""

import base64
import hashlib
import re
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import HTMLResponse


def router() -> APIRouter:
    """The playground at `/` and the description of the API at `/docs`."""
    routes = APIRouter(include_in_schema=False)
    playground, docs = _read("playground.html"), _read("docs.html")

    @routes.api_route("/", methods=["GET", "HEAD"])
    async def show_playground() -> HTMLResponse:
        return HTMLResponse(playground, headers=_headers(playground))

    @routes.api_route("/docs", methods=["GET", "HEAD"])
    async def show_docs() -> HTMLResponse:
        return HTMLResponse(docs, headers=_headers(docs))

    return routes


def _read(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _headers(page: str) -> dict[str, str]:
    """Let the page run what is written in it, ask this server, and nothing else."""
    policy = [
        "default-src 'none'",
        f"script-src {_hash_of('script', page)}",
        f"style-src {_hash_of('style', page)}",
        "connect-src 'self'",
        "img-src data:",
        "media-src blob:",
        *(f"{what} 'none'" for what in ("base-uri", "form-action", "frame-ancestors")),
    ]
    return {
        "content-security-policy": "; ".join(policy),
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "cache-control": "no-cache",
    }


def _hash_of(tag: str, page: str) -> str:
    """How a content security policy names the one element of that kind."""
    [content] = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
