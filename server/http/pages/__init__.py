"""The web pages. Each is assembled from small files and loads nothing from other servers."""

import base64
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from server.arguments import Arguments
from vllm_cosyvoice.config import DEMO_MODEL

FOLDER = Path(__file__).parent
PAGES = {"/": "playground.html", "/docs": "docs.html", "/figures": "figures.html"}
LANGUAGES = ("en", "zh", "ja", "ko")  # on which CosyVoice2 was trained


def router(arguments: Arguments) -> APIRouter:
    """Return the routes of the playground at `/`, the API reference at `/docs` and the live metrics at `/figures`."""
    routes = APIRouter(include_in_schema=False)
    facts = json.dumps(facts_for_pages(arguments))
    for path, name in PAGES.items():
        routes.add_api_route(path, _show(_assembled(name, facts)))
    return routes


def facts_for_pages(arguments: Arguments) -> dict[str, object]:
    """Return the settings of the server that the playground needs."""
    is_demo = Path(arguments.model_dir) == DEMO_MODEL
    return {
        "longestText": arguments.max_input_chars,  # characters
        "languages": ["en"] if is_demo else LANGUAGES,
        "followsInstructions": not is_demo,
    }


def _show(page: str) -> Callable[[], HTMLResponse]:
    headers = _headers(page)
    return lambda: HTMLResponse(page, headers=headers)


def _assembled(name: str, facts: str) -> str:
    """Return the page with its files inlined, so that its content security policy can list them by hash."""
    page = _read(name)
    page = re.sub(r'<link rel="stylesheet" href="(.+?)">', lambda link: f"<style>{_read(link[1])}</style>", page)
    page = re.sub(r'<script src="(.+?)"></script>', lambda link: f"<script>{_read(link[1])}</script>", page)
    return page.replace("FACTS", facts)


def _read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _headers(page: str) -> dict[str, str]:
    """Let the page run only its inline code and send requests only to this server."""
    policy = [
        "default-src 'none'",
        f"script-src {_hashes_of('script', page)}",
        f"style-src {_hashes_of('style', page)}",
        "connect-src 'self'",
        "img-src data:",
        "media-src blob:",
        *(f"{directive} 'none'" for directive in ("base-uri", "form-action", "frame-ancestors")),
    ]
    return {
        "content-security-policy": "; ".join(policy),
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "cache-control": "no-cache",
    }


def _hashes_of(tag: str, page: str) -> str:
    """Return the hashes of the elements `tag`, as a content security policy lists them."""
    digests = [hashlib.sha256(content.encode()) for content in re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)]
    return " ".join(f"'sha256-{base64.b64encode(digest.digest()).decode()}'" for digest in digests)
