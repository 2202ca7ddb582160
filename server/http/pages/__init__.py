"""The pages for people: each is put together from small files, and asks nobody but this server for anything."""

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
LANGUAGES = ("en", "zh", "ja", "ko")  # what CosyVoice2 was trained on


def router(arguments: Arguments) -> APIRouter:
    """The playground at `/`, the description of the API at `/docs`, and how the server does at `/figures`."""
    routes = APIRouter(include_in_schema=False)
    facts = json.dumps(facts_for_pages(arguments))
    for path, name in PAGES.items():
        routes.add_api_route(path, _show(_assembled(name, facts)))
    return routes


def facts_for_pages(arguments: Arguments) -> dict[str, object]:
    """What the playground has to know before anybody asks for speech."""
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
    """The page with the files in it that it names, so that its policy can name what runs by its hash."""
    page = _read(name)
    page = re.sub(r'<link rel="stylesheet" href="(.+?)">', lambda link: f"<style>{_read(link[1])}</style>", page)
    page = re.sub(r'<script src="(.+?)"></script>', lambda link: f"<script>{_read(link[1])}</script>", page)
    return page.replace("FACTS", facts)


def _read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _headers(page: str) -> dict[str, str]:
    """Let the page run what is written in it, ask this server, and nothing else."""
    policy = [
        "default-src 'none'",
        f"script-src {_hashes_of('script', page)}",
        f"style-src {_hashes_of('style', page)}",
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


def _hashes_of(tag: str, page: str) -> str:
    """How a content security policy names the elements of that kind."""
    digests = [hashlib.sha256(content.encode()) for content in re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)]
    return " ".join(f"'sha256-{base64.b64encode(digest.digest()).decode()}'" for digest in digests)
