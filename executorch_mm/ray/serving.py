"""A class for `ray.serve.deployment`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from executorch_mm import ExecutorchMMError, InputError
from executorch_mm._loading.model_cache import fetch_model
from executorch_mm._loading.pretrained import find_model
from executorch_mm.errors import shown
from executorch_mm.ray.resources import num_cpus
from executorch_mm.server import Loader, Model, ServerOptions, make_app
from executorch_mm.server.loading import NumThreads, limit_media, load_model

_MOST_FAILURES = 3


class EmmServer:
    """The server for OpenAI's clients as a deployment of Ray Serve, each replica with models of its own.

        serve.run(serve.deployment(EmmServer).options(num_replicas=2).bind("model.pte"))

    Serve places replicas, starts more where many ask, and brings them requests over HTTP; what they answer,
    and how, is as with `executorch-mm serve`. A replica takes requests once its first model is loaded; where
    that cannot be loaded, the deployment fails and says why. It needs the extra `ray-serve`; nothing here
    imports Ray.

    Args:
        models: Where the model is: a path, a repository of the Hugging Face Hub as "owner/name", or a URL for
            `fetch_model`; or several by the names that clients use, the first of which is loaded at once. A
            function that loads the model may stand in place of each. One that is given alone is named after
            its file.
        options: What is allowed and who may ask. `host` is not listened on here, but says by which names
            clients may call: with the default those of this machine only, with "0.0.0.0" any where
            `allowed_hosts` has none. None for the defaults.
        num_threads: Of each model; None takes as many as the replica has CPUs, outside of Ray those that suit
            the model.
        sha256: Of the .pte file of the first model, see `fetch_model`.
        cache_dir: Where models from URLs are kept, see `fetch_model`.

    Raises:
        InputError: An argument is wrong.
        ExecutorchMMError, OSError: The first model cannot be loaded.
    """

    def __init__(
        self,
        models: str | Loader | Mapping[str, str | Loader],
        *,
        options: ServerOptions | None = None,
        num_threads: int | None = None,
        sha256: str | None = None,
        cache_dir: str | None = None,
    ) -> None:
        options = ServerOptions() if options is None else options
        named = {_name(models): models} if isinstance(models, str) or callable(models) else models
        given: object = named
        if not isinstance(given, Mapping) or not given:
            raise InputError(f"models: expected where a model is, or several by name, got {shown(models)}")
        threads: NumThreads = num_threads or num_cpus() or "auto"
        loaders: dict[str, Loader] = {}
        for place in named.items():
            checksum = None if loaders else sha256

            def load(place: object = place[1], checksum: str | None = checksum) -> Model:
                if callable(place):
                    return cast(Loader, place)()
                path = fetch_model(cast(str, place), sha256=checksum, cache_dir=cache_dir)
                files = find_model(path)
                return load_model(files.model, files.tokenizer, data_path=files.data, num_threads=threads)

            loaders[place[0]] = load
        limit_media(options)
        first, *_ = loaders
        self._app = make_app({**loaders, first: _Ready(loaders[first])}, options)
        self._state = self._app.state.server
        self._stack = AsyncExitStack()
        self._loaded: asyncio.Event | None = None

    async def __call__(self, _request: Request) -> Response:
        """Answers a request, whole or as a stream: what the response does that it gives."""
        await self._start()
        return _Passed(self._app)

    async def check_health(self) -> None:
        """Nothing, where the models answer; Serve replaces a replica where it fails.

        Raises:
            ExecutorchMMError: The model failed (status 500) in all of the last three requests that it was
                asked to answer.
        """
        await self._start()
        if self._state.num_failures >= _MOST_FAILURES:
            raise ExecutorchMMError(
                f"the last {self._state.num_failures} requests have failed; the log says why"
            )

    async def close(self) -> None:
        """Closes the models; Serve itself ends the process."""
        await self._stack.aclose()

    async def _start(self) -> None:
        if self._loaded is None:
            self._loaded = asyncio.Event()
            self._state.models.on_first = lambda _error: self._end_wait()
            await self._stack.enter_async_context(self._app.router.lifespan_context(self._app))
        await self._loaded.wait()

    def _end_wait(self) -> None:
        if self._loaded is not None:
            self._loaded.set()


class _Ready:
    """A model that is loaded at once, and by the loader when it is asked for again."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self._model: Model | None = loader()

    def __call__(self) -> Model:
        model, self._model = self._model, None
        return self._loader() if model is None else model


class _Passed(Response):
    """A request that is answered by an application."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__()
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers it."""
        await self._app(scope, receive, send)


def _name(model: str | Callable[[], object]) -> str:
    """As `executorch-mm serve` names it: by its repository, its folder or its file without the ending."""
    if not isinstance(model, str):
        return "model"
    return model.rstrip("/").rpartition("/")[2].removesuffix(".pte") or model
