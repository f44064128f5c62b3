"""Who may ask: names of the server, origins of browsers, the key."""

from __future__ import annotations

import hashlib
import hmac
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from executorch_mm._openai.failures import ApiError, as_api_error
from executorch_mm.errors import shown
from executorch_mm.server.connection import ClientGone
from executorch_mm.server.failures import response_of
from executorch_mm.server.page import PAGE
from executorch_mm.server.state import Served, ServerState
from executorch_mm.server.tracing import Tracing

_OPEN = ("/health", *(each.path for each in PAGE))  # a probe has no key, and the page asks for it


class Guard:
    """Refuses who may not ask, answers what goes wrong, and writes a line for each request.

    A web page that a browser has open must not use the server of its user: its requests carry another Host,
    where the page's name has been pointed to this machine, or an Origin of its own.

    Args:
        app: The rest of the server.
        state: Of the server.
    """

    def __init__(self, app: ASGIApp, state: ServerState) -> None:
        self._app = app
        self._state = state
        self._tracing = Tracing()
        options = state.options
        self._key = None if options.api_key is None else _digest(options.api_key)
        self._hosts: set[str] | None = None
        if options.is_local or options.allowed_hosts:
            local = ["localhost", "127.0.0.1", "::1"] if options.is_local else []
            self._hosts = {
                name.lower().strip("[]") for name in (*local, options.host, *options.allowed_hosts)
            }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        is_socket = scope["type"] == "websocket"
        served = Served(f"{scope.get('method', 'WS')} {scope['path']}")
        scope.setdefault("state", {})["served"] = served

        async def note_status(message: Message) -> None:
            if message["type"] == "http.response.start":
                served.status = message["status"]
            await send(message)

        headers = Headers(scope=scope)
        with self._tracing.span(served, headers):
            try:
                path = scope["path"].removeprefix(scope.get("root_path", ""))  # what it is mounted under
                self._check(headers, path)
                await self._app(scope, receive, note_status)
            except ClientGone:
                pass
            except Exception as error:  # noqa: BLE001 (a server goes on)
                failure = as_api_error(error)
                served.fails(failure, error)
                if served.status == 499 and is_socket:
                    served.status = failure.status
                    await WebSocket(scope, receive, send).send_denial_response(response_of(failure))
                elif served.status == 499:
                    await response_of(failure)(scope, receive, note_status)
            finally:
                served.end()
                self._state.note(served)

    def _check(self, headers: Headers, path: str) -> None:
        host = headers.get("host", "")
        if self._hosts is not None and _name(host) not in self._hosts:
            message = f"Host: expected a name of this server, got {shown(host)}"
            raise ApiError(403, f"{message}; --allow-host (ServerOptions.allowed_hosts) adds one", "Host")
        origin = headers.get("origin")
        if origin is not None and _netloc(origin) != host.lower():
            raise ApiError(403, f"Origin: pages of {shown(origin)} may not use this server", "Origin")
        if self._key is None or path in _OPEN:
            return
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(_digest(key.strip()), self._key):
            message = "Authorization: expected Bearer and the key of this server"
            raise ApiError(401, message, "Authorization", "invalid_api_key")


def _digest(key: str) -> bytes:
    """Of one length for all keys, so that comparing them tells nothing of it."""
    return hashlib.sha256(key.encode()).digest()


def _name(host: str) -> str:
    """The name in a Host header, without port and brackets."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _netloc(origin: str) -> str:
    """The name and port in an Origin header; "" where there is none, as in "null"."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
