"""The page at `/`: a chat in a browser, of files beside this module that need nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from executorch_mm.server.endpoints import Page
from executorch_mm.server.state import Served, ServerState

# The page shows what a model writes, and holds the key: it runs its own files only, talks to this server only
# and is framed by nobody. Pictures and sound of messages are `blob:`s.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src blob: data:; "
    "media-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-cache",
}


def _file(path: str, name: str, kind: str) -> Page:
    async def answer(_request: Request, _state: ServerState, _served: Served) -> Response:
        return Response((Path(__file__).parent / name).read_bytes(), media_type=kind, headers=_HEADERS)

    return Page(path, "A page for people", answer, kind, is_described=False)


PAGE: tuple[Page, ...] = (
    _file("/", "index.html", "text/html"),
    _file("/page/style.css", "style.css", "text/css"),
    _file("/page/page.js", "page.js", "text/javascript"),
    _file("/page/markdown.js", "markdown.js", "text/javascript"),
)
"""Its files."""
