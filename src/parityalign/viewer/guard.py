"""Who gets an answer: whoever has the token, asks by a name of this machine, and from a page of this viewer.

The server listens on the loopback interface alone, which other programs of this machine and any page in the user's
browser reach as well. A name that a stranger has led to this machine (DNS rebinding) is not a name of it; a page of
another origin sends its own origin, and is not sent the cookie.
"""

import secrets
import time
from collections.abc import Mapping
from html import escape
from urllib.parse import quote, urlencode

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

TOKEN = "token"
NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})
"""Names of this machine."""
REFUSED = "Nothing to see here. Open the address that `parityalign view` printed.\n"
_READS = ("GET", "HEAD")
_POLICY = (
    "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Mapping[str, str] = {
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class Guard:
    """Stands before an application.

    Attributes:
        token: What an address has to hold once; a cookie takes its place.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.token = secrets.token_urlsafe(32)
        # Cookies of all ports of a machine are one: two viewers need two names.
        self._cookie = f"parityalign-{secrets.token_hex(4)}"
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers, refuses, or takes the token in and sends the cookie."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        began = time.perf_counter()

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
                headers["server-timing"] = f"total;dur={1000 * (time.perf_counter() - began):.1f}"
            await send(message)

        await self._answer(scope)(scope, receive, send_guarded)

    def _answer(self, scope: Scope) -> ASGIApp:
        headers, asked = Headers(scope=scope), QueryParams(scope["query_string"])
        if not (_is_ours(headers) and _comes_from_here(scope["method"], headers)):
            return PlainTextResponse(REFUSED, status_code=403)
        if self._is_token(cookie_parser(headers.get("cookie", "")).get(self._cookie, "")):
            return self._app
        if scope["method"] in _READS and self._is_token(asked.get(TOKEN, "")):
            return self._welcome(scope["path"], asked)
        return PlainTextResponse(REFUSED, status_code=403)

    def _is_token(self, said: str) -> bool:
        return secrets.compare_digest(said.encode(), self.token.encode())

    def _welcome(self, path: str, asked: QueryParams) -> Response:
        """Sets the cookie and leads on to the address without the token.

        By a page, not by its status: a browser that was led here by another site would not send the cookie with the
        request that follows.
        """
        rest = urlencode([(key, value) for key, value in asked.multi_items() if key != TOKEN])
        place = escape(f"/{quote(path.lstrip('/'))}{f'?{rest}' if rest else ''}")
        page = f'<!DOCTYPE html><meta http-equiv="refresh" content="0; url={place}"><a href="{place}">Go on</a>\n'
        welcome = HTMLResponse(page)
        welcome.set_cookie(self._cookie, self.token, httponly=True, samesite="strict")
        return welcome


def _is_ours(headers: Headers) -> bool:
    """Whether exactly one host is asked for, and it is this machine."""
    said = headers.getlist("host")
    name, colon, port = said[0].rpartition(":") if said else ("", "", "")
    plain = not colon or said[0].endswith("]")
    return len(said) == 1 and (said[0] if plain else name) in NAMES and (plain or port.isdecimal())


def _comes_from_here(method: str, headers: Headers) -> bool:
    """Whether no other site asks; what changes something has to say where it comes from."""
    origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
    if origin is None:
        return method in _READS and (site in ("none", "same-origin") or headers.get("sec-fetch-mode") == "navigate")
    return origin == f"http://{headers.get('host')}"
