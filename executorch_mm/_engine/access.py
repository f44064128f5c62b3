"""Who may use a model: one request at a time, in the process that loaded it, until it is closed."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from executorch_mm import _core
from executorch_mm._engine.turnstile import Turnstile
from executorch_mm._loading.handle import Handle
from executorch_mm._loading.log_lines import forward_log_lines
from executorch_mm.stats import Stats, peak_memory_bytes

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

PieceT = TypeVar("PieceT")
Progress = Callable[[int, int, str], object]


class CoreSession(Protocol):
    """What a session of the core has, whatever its model does."""

    @property
    def timings(self) -> _core.RequestTimings: ...

    @property
    def num_threads(self) -> int: ...

    def begin_request(self) -> None: ...

    def cancel(self) -> None: ...

    def write_profile(self) -> None: ...


SessionT = TypeVar("SessionT", bound=CoreSession)


class Access(Generic[SessionT]):
    """The way to a session.

    Args:
        session: The session; nobody else uses it.
        load_start_ns: When loading began; it ends now.

    Attributes:
        stats: What the last finished request cost.
    """

    def __init__(self, session: SessionT, load_start_ns: int) -> None:
        self._handle = Handle(session, "runner")
        self._turnstile = Turnstile()
        self.stats = Stats()
        self._load_start_ns, self._load_ns = load_start_ns, _core.now_ns() - load_start_ns

    @property
    def session(self) -> SessionT:
        """The session.

        Raises:
            ExecutorchMMError: The runner is closed.
            ForkError: This is a forked child.
        """
        return self._handle.get()

    def stop(self) -> None:
        """`MultimodalRunner.stop`."""
        if not self._handle.is_closed:
            self.session.cancel()

    def close(self) -> None:
        """`MultimodalRunner.close`."""
        if self._handle.is_forked or self._handle.is_closed:
            self._handle.close()
            return
        with self.exclusive() as session:
            self._handle.close()
            self._release()
            session.write_profile()

    def _release(self) -> None:
        """Lets go of whatever else holds the session."""

    def _forward_log_lines(self) -> None:
        if not self._handle.is_forked:  # where a lock may have been copied in its locked state
            forward_log_lines()

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[SessionT]:
        """The session, for one request or change at a time.

        Raises:
            BusyError: Another one is under way.
        """
        self._handle.expect_usable()
        with self._turnstile.passed():
            try:
                yield self.session
            finally:
                self._forward_log_lines()

    def stream(
        self, request: Callable[[SessionT], Generator[PieceT, None, None]]
    ) -> Generator[PieceT, None, None]:
        """What a request gives out, piece by piece."""
        with self.exclusive() as session:
            session.begin_request()
            with contextlib.closing(request(session)) as pieces:
                for piece in pieces:
                    yield piece
                    self._handle.expect_usable()  # a stream can be carried over a fork

    async def stream_async(
        self, request: Callable[[SessionT], Generator[PieceT, None, None]]
    ) -> AsyncGenerator[PieceT, None]:
        """`stream` for a task: it waits its turn, and the model runs in a thread of the request's own."""
        from concurrent.futures import ThreadPoolExecutor

        self._handle.expect_usable()
        async with self._turnstile.awaited():
            session = self.session
            session.begin_request()  # here, so that no cancellation comes before it and is forgotten
            pieces = request(session)
            worker = ThreadPoolExecutor(1, "executorch_mm")
            try:
                while (piece := await _pull(session, worker, pieces)) is not None:
                    yield piece
                    self._handle.expect_usable()
            finally:
                worker.shutdown()  # waits for nothing, unless the event loop is gone
                pieces.close()
                self._forward_log_lines()

    def make_stats(
        self,
        session: SessionT,
        finish_reason: str | None = None,
        stopped_by: str | int | None = None,
        token_times_ns: tuple[int, ...] = (),
        prepare_ns: int = 0,
        mask_ns: int = 0,
        input_notes: tuple[str, ...] = (),
    ) -> Stats:
        """What the running request has cost so far; the parameters are those of `Stats`."""
        timings = session.timings
        return Stats(
            num_prompt_tokens=timings.num_prompt_positions,
            num_generated_tokens=timings.num_generated_tokens,
            num_decode_steps=timings.num_decode_steps,
            num_forced_tokens=timings.num_forced_tokens,
            finish_reason=finish_reason,
            stopped_by=stopped_by,
            copied_input_bytes=timings.copied_input_bytes,
            num_threads=session.num_threads,
            peak_memory_bytes=peak_memory_bytes(),
            load_start_ns=self._load_start_ns,
            load_ns=self._load_ns,
            start_ns=timings.start_ns,
            prepare_ns=prepare_ns,
            prompt_read_ns=timings.prompt_read_ns,
            first_token_ns=timings.first_token_ns,
            total_ns=_core.now_ns() - timings.start_ns,
            encode_image_ns=timings.encode_image_ns,
            encode_audio_ns=timings.encode_audio_ns,
            prefill_ns=timings.prefill_ns,
            decode_ns=timings.decode_ns,
            sample_ns=timings.sample_ns,
            mask_ns=mask_ns,
            token_times_ns=token_times_ns,
            input_notes=input_notes,
        )


def read_prompt(session: _core.Session, deadline_ns: float, progress: Progress | None = None) -> bool:
    """Reads a prompt that the session has begun.

    Returns:
        Whether it was read to its end: not after a `cancel()` or beyond the deadline.
    """
    while (phase := session.prefill_phase) is not None:
        if progress is not None:
            progress(session.prefill_done, session.prefill_total, phase)
        if session.is_cancelled or _core.now_ns() >= deadline_ns:
            return False
        session.step_prefill()
    return True


async def _pull(
    session: CoreSession, worker: ThreadPoolExecutor, pieces: Generator[PieceT, None, None]
) -> PieceT | None:
    """The next piece, None at the end. Whatever ends the wait, the worker is idle afterwards."""
    import asyncio

    step = asyncio.wrap_future(worker.submit(next, pieces, None))
    try:
        return await asyncio.shield(step)
    except asyncio.CancelledError:
        session.cancel()
        while not step.done():
            with contextlib.suppress(asyncio.CancelledError):  # again: what it asks for is being done
                await asyncio.wait([step])
        raise
    except GeneratorExit:  # the event loop is gone
        session.cancel()
        raise
