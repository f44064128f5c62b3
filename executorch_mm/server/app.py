"""The application: its endpoints behind its guard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from executorch_mm._openai.failures import ApiError
from executorch_mm.errors import InputError, shown
from executorch_mm.server import realtime
from executorch_mm.server.chat import CHAT
from executorch_mm.server.completions import COMPLETIONS, DETOKENIZE, TOKENIZE
from executorch_mm.server.decisions import DECISIONS
from executorch_mm.server.description import describe_server
from executorch_mm.server.embeddings import EMBEDDINGS
from executorch_mm.server.endpoints import Endpoint, Page
from executorch_mm.server.failures import response_of
from executorch_mm.server.guard import Guard
from executorch_mm.server.models import Loader
from executorch_mm.server.options import ServerOptions
from executorch_mm.server.page import PAGE
from executorch_mm.server.responses import RESPONSES, STORED
from executorch_mm.server.speech import TRANSCRIPTIONS, TRANSLATIONS
from executorch_mm.server.state import Served, ServerState


def make_app(loaders: Mapping[str, Loader], options: ServerOptions | None = None) -> Starlette:
    """The server as an ASGI application, for a program of your own that runs it.

    Args:
        loaders: Functions that load the models, by the names that clients use. The first is called when the
            application starts, in a thread; what they return is closed when it ends.
        options: What is allowed; None for the defaults. `host` says which names clients may use.

    Returns:
        The application; `app.state.server` is what it knows of itself.

    Raises:
        InputError: An argument is of another kind.
    """
    options = ServerOptions() if options is None else options
    if not isinstance(options, ServerOptions):
        raise InputError(f"options: expected ServerOptions or None, got {shown(options)}")
    state = ServerState(loaders, options)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        state.models.start()
        try:
            yield
        finally:
            await state.models.close()

    app = Starlette(
        routes=[
            realtime.route(state),
            *(each.route(state) for each in (*ENDPOINTS, realtime.PLAIN, *(PAGE if options.page else ()))),
        ],
        middleware=[Middleware(Guard, state=state)],
        exception_handlers={HTTPException: _refused},
        lifespan=lifespan,
    )
    app.state.server = state
    return app


async def _health(_request: Request, state: ServerState, _served: Served) -> Response:
    """200 once the first model has been loaded, 503 before that and when the server is being stopped."""
    word = "stopping" if state.work.is_ending else "ok" if state.models.is_ready else "loading"
    return JSONResponse({"status": word}, 200 if word == "ok" else 503)


async def _show_metrics(_request: Request, state: ServerState, _served: Served) -> Response:
    page, kind = state.metrics.page()
    return Response(page, media_type=kind)


async def _list_models(_request: Request, state: ServerState, _served: Served) -> Response:
    return JSONResponse({"object": "list", "data": [_model(name, state) for name in state.models.names]})


async def _show_model(request: Request, state: ServerState, _served: Served) -> Response:
    name: str = request.path_params["model"]
    state.models.expect(name)
    return JSONResponse(_model(name, state))


async def _describe(_request: Request, state: ServerState, _served: Served) -> Response:
    return JSONResponse(
        await asyncio.to_thread(describe_server, ENDPOINTS, state.options, state.models.names)
    )


def _model(name: str, state: ServerState) -> dict[str, object]:
    return {"id": name, "object": "model", "created": state.models.created, "owned_by": "executorch_mm"}


async def _refused(request: Request, error: Exception) -> Response:
    """No such path, or another method."""
    assert isinstance(error, HTTPException)  # noqa: S101 (what it is registered for)
    message = f"{request.method} {request.url.path}: {error.detail}; the paths: https://executorch-mm.example/docs/server.html"
    response = response_of(ApiError(error.status_code, message, code="unknown_url"))
    response.headers.update(error.headers or {})
    return response


ENDPOINTS: tuple[Endpoint[Any] | Page, ...] = (
    Page("/health", "Whether it answers", _health),
    Page("/metrics", "Counts and times for Prometheus", _show_metrics, "text/plain"),
    Page("/openapi.json", "This description", _describe),
    Page("/v1/models", "The models", _list_models),
    Page("/v1/models/{model:path}", "One of them", _show_model),
    CHAT,
    COMPLETIONS,
    RESPONSES,
    *STORED,
    DECISIONS,
    EMBEDDINGS,
    TRANSCRIPTIONS,
    TRANSLATIONS,
    TOKENIZE,
    DETOKENIZE,
)
"""What a server answers."""
