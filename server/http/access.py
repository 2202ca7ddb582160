"""Access control: API keys, and protection against requests from other sites' pages."""

import hmac
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from server.arguments import digest
from server.http.errors import envelope

READING = {"GET", "HEAD"}


class CrossSite:
    """Refuses cross-site requests that do more than read, unless `origins` contains their origin or `*`.

    A browser does not let a page read the answers of other sites, but it lets the page send forms and open WebSockets.
    So any page that a user visits could use a server that only the user's machine can reach. Browsers send
    `sec-fetch-site`, except to plain-HTTP addresses other than localhost; there, `origin` must match this host. Other
    clients send neither header.
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        self._app = app
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's scope."""
        if scope["type"] == "websocket" or (scope["type"] == "http" and scope["method"] not in READING):
            headers = Headers(scope=scope)
            origin = headers.get("origin", "")
            if _is_foreign(headers) and not self._origins & {origin, "*"}:
                message = f"Pages of {origin or 'other sites'} may not use this server; allow them with --cors_origins."
                await envelope(403, message, None, "cross_site")(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _is_foreign(headers: Headers) -> bool:
    if site := headers.get("sec-fetch-site"):
        return site in ("cross-site", "same-site")
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower()


class ApiKeys:
    """Requires one of the API keys, except for requests that only read one of the `public` paths.

    The comparison takes constant time.
    """

    def __init__(self, app: ASGIApp, key_digests: Sequence[str], public: Sequence[str]) -> None:
        self._app = app
        self._digests = key_digests
        self._public = frozenset(public)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's scope."""
        if scope["type"] in ("http", "websocket") and not self._is_public(scope):
            scheme, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not key.strip():
                message = "This server requires an API key: send the header Authorization: Bearer KEY."
            elif self._is_known(key.strip()):
                message = None
            else:
                message = "The API key is invalid."
            if message:
                headers = {"www-authenticate": "Bearer"}
                await envelope(401, message, None, "invalid_api_key", headers)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _is_public(self, scope: Scope) -> bool:
        return scope["type"] == "http" and scope["method"] in READING and scope["path"] in self._public

    def _is_known(self, key: str) -> bool:
        key_digest = digest(key)
        matches = [hmac.compare_digest(key_digest, valid) for valid in self._digests]  # a list: never stops early
        return any(matches)
