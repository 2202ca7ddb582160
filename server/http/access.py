"""Who may ask: those with an API key, and not the pages of other sites."""

import hmac
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from server.arguments import digest
from server.http.errors import envelope

READING = {"GET", "HEAD"}


class CrossSite:
    """Refuses what pages of other sites want done, unless their origin is one of `origins`, or those are `*`.

    A browser keeps such a page from reading an answer, but lets it send forms and open WebSockets: any page that
    somebody visits could use a server that only their machine reaches. Browsers say who asks in `sec-fetch-site`, but
    not to plain-http addresses other than localhost. There the page's `origin` tells, which must be this host's.
    Clients that are no browsers send neither.
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
                message = f"Pages of {origin or 'other sites'} may not use this server: --cors_origins lets them."
                await envelope(403, message, None, "cross_site")(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _is_foreign(headers: Headers) -> bool:
    if site := headers.get("sec-fetch-site"):
        return site in ("cross-site", "same-site")
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower()


class ApiKeys:
    """Lets requests through that bear one of the keys, and those that only read one of the `public` paths.

    How long the comparison takes tells nothing about the keys.
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
                message = "This server asks for an API key: send the header Authorization: Bearer KEY."
            elif self._is_known(key.strip()):
                message = None
            else:
                message = "The API key is not one of this server's."
            if message:
                headers = {"www-authenticate": "Bearer"}
                await envelope(401, message, None, "invalid_api_key", headers)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _is_public(self, scope: Scope) -> bool:
        return scope["type"] == "http" and scope["method"] in READING and scope["path"] in self._public

    def _is_known(self, key: str) -> bool:
        asked = digest(key)
        found = [hmac.compare_digest(asked, known) for known in self._digests]  # all of them, whichever fits
        return any(found)
