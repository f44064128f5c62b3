"""Runs a server until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Mapping
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

import uvicorn
from starlette.applications import Starlette

from executorch_mm.errors import InputError
from executorch_mm.server.app import make_app
from executorch_mm.server.models import Loader
from executorch_mm.server.options import ServerOptions
from executorch_mm.server.state import ServerState

if TYPE_CHECKING:
    from typing_extensions import Self

_LOG = logging.getLogger("executorch_mm.server")
_BACKSTOP = 10  # seconds after `grace` in which what was ended says so to its clients


def serve(
    loaders: Mapping[str, Loader],
    options: ServerOptions | None = None,
    on_start: Callable[[str], object] | None = None,
) -> None:
    """Serves models until SIGTERM or Ctrl-C.

    Then nothing new is accepted, and what runs has `options.grace` seconds to come to its end; what does not
    is ended, and its client is told. A second Ctrl-C ends all at once.

    Args:
        loaders: As for `make_app`.
        options: As for `make_app`.
        on_start: Called with the address when connections are accepted; the model may still be loading.

    Raises:
        InputError: An argument is wrong, or the address cannot be listened on.
        ExecutorchMMError, OSError: The first model cannot be loaded.
        KeyboardInterrupt: It was Ctrl-C.
    """
    options = ServerOptions() if options is None else options
    app = make_app(loaders, options)
    with _listen(options) as listener:
        server = _Server(app.state.server, _config(app))
        if on_start is not None:
            on_start(_url(listener))
        server.run(sockets=[listener])
    if server.failure is not None:
        raise server.failure
    if signal.SIGINT in server.signals:
        raise KeyboardInterrupt


class BackgroundServer:
    """A server in a thread of this process, as long as a `with` block lasts: for tests and notebooks.

    Args:
        loaders: As for `make_app`.
        options: As for `make_app`; port 0 takes any that is free.

    Raises:
        InputError: An argument is wrong, or the address cannot be listened on.
    """

    def __init__(self, loaders: Mapping[str, Loader], options: ServerOptions | None = None) -> None:
        options = ServerOptions(port=0) if options is None else options
        app = make_app(loaders, options)
        self._listener = _listen(options)
        self.url: str = _url(self._listener)
        """The address, such as "http://127.0.0.1:8000"."""
        self._server = _Server(app.state.server, _config(app))
        self._thread = threading.Thread(
            target=self._server.run, args=[[self._listener]], name="executorch_mm server", daemon=True
        )

    def __enter__(self) -> Self:
        """Waits until the first model has been loaded.

        Raises:
            ExecutorchMMError, OSError: It cannot be.
        """
        self._thread.start()
        self._server.is_decided.wait()
        if self._server.failure is not None:
            self._end()
            raise self._server.failure
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    @property
    def thread_id(self) -> int | None:
        """Of the thread that it runs in, as `threading.get_ident` gives it; None before it runs."""
        return self._thread.ident

    def _end(self) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()


def _config(app: Starlette) -> uvicorn.Config:
    """The application checks hosts and sizes, logs requests and reads no address that a proxy claims."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        ws="auto",
        proxy_headers=False,
        server_header=False,
        lifespan="on",
    )
    with warnings.catch_warnings():  # older uvicorns import what websockets has deprecated
        warnings.simplefilter("ignore", DeprecationWarning)
        config.load()
    return config


class _Server(uvicorn.Server):
    """Ends in time, and says why it ended.

    Attributes:
        signals: That have come.
        failure: Why the first model cannot be loaded.
        is_decided: Set when it has been loaded, or has failed.
    """

    def __init__(self, state: ServerState, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._state = state
        self.signals: list[int] = []
        self.failure: BaseException | None = None
        self.is_decided = threading.Event()
        config.timeout_graceful_shutdown = round(state.options.grace) + _BACKSTOP
        state.models.on_first = self._decided

    def _decided(self, failure: BaseException | None) -> None:
        if failure is not None:
            self.failure = failure
            self.should_exit = True
        self.is_decided.set()

    def handle_exit(self, sig: int, _frame: FrameType | None) -> None:
        """A signal has come; it is not raised again in the end."""
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.signals.append(sig)
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuses new requests, and ends those under way that take too long."""
        state = self._state
        state.work.is_ending = True
        _LOG.info("stopping: %d requests are under way", state.work.count)
        end = asyncio.get_running_loop().call_later(state.options.grace, state.work.end)
        await super().shutdown(sockets)
        end.cancel()
        self.is_decided.set()


def _listen(options: ServerOptions) -> socket.socket:
    try:
        (family, kind, protocol, _, address), *_ = socket.getaddrinfo(
            options.host, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise InputError(f"host: {options.host} is no address of this machine: {error}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        what = f"{options.host}:{options.port}"
        raise InputError(f"port: {what} cannot be listened on: {error.strerror or error}") from error
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
