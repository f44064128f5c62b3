"""Who may use a model: one request at a time, in the process that loaded it, until it is closed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from executorch_mm import _core
from executorch_mm._engine.turnstile import Turnstile
from executorch_mm._loading.admission import Admission
from executorch_mm._loading.handle import Handle
from executorch_mm._loading.log_lines import forward_log_lines
from executorch_mm.errors import InputError, shown
from executorch_mm.sampling import deadline_ns
from executorch_mm.stats import Stats, peak_memory_bytes

if TYPE_CHECKING:
    from executorch_mm._engine.jobs import Channel
    from executorch_mm._engine.streams import AsyncStream

PieceT = TypeVar("PieceT")
PreparedT = TypeVar("PreparedT")
ResultT = TypeVar("ResultT")
FoundT = TypeVar("FoundT")
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
        load_start_ns: When loading began.
        load_ns: How long it took; None where it ends now.
        what: The session's name for messages.
        admission: Counts the requests to the model.

    Attributes:
        stats: What the last finished request cost.
    """

    def __init__(
        self,
        session: SessionT,
        load_start_ns: int,
        load_ns: int | None = None,
        what: str = "runner",
        admission: Admission | None = None,
    ) -> None:
        self._handle = Handle(session, what)
        self._turnstile = Turnstile(what)
        self._admission = admission or Admission()
        self.stats = Stats()
        self._load_start_ns = load_start_ns
        self._load_ns = _core.now_ns() - load_start_ns if load_ns is None else load_ns

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
        self.run(self._close)

    def _close(self, session: SessionT) -> None:
        self._handle.close()
        self._release()
        session.write_profile()

    def _release(self) -> None:
        """Lets go of whatever else holds the session."""

    def _forward_log_lines(self) -> None:
        if not self._handle.is_forked:  # where a lock may have been copied in its locked state
            forward_log_lines()

    def run(self, request: Callable[[SessionT], ResultT]) -> ResultT:
        """Does something with the session that nobody else may use meanwhile.

        Raises:
            BusyError: Another request is under way.
        """
        self._handle.expect_usable()
        return self._turnstile.call(lambda: self._let_in(request))

    def _let_in(self, request: Callable[[SessionT], ResultT]) -> ResultT:
        try:
            return request(self.session)
        finally:
            self._forward_log_lines()

    def _admit(self, request: Callable[[], ResultT]) -> ResultT:
        return self._let_in(lambda _: self._admission.call(request))

    def serve(self, request: Callable[[SessionT], ResultT]) -> ResultT:
        """`run` for a request to the model, from its beginning."""

        def begin(session: SessionT) -> ResultT:
            session.begin_request()
            return self._admission.call(lambda: request(session))

        return self.run(begin)

    def pieces(
        self, session: SessionT, request: Callable[[SessionT], Generator[PieceT, None, None]]
    ) -> Generator[PieceT, None, None]:
        """What a request gives out; for the one who has been let in."""
        pieces = request(session)
        try:
            for piece in pieces:
                yield piece
                self._handle.expect_usable()  # a stream can be carried over a fork
        finally:
            pieces.close()

    def stream(
        self, request: Callable[[SessionT], Generator[PieceT, None, None]]
    ) -> Generator[PieceT, None, None]:
        """What a request gives out, piece by piece."""
        self._handle.expect_usable()
        yield from self._turnstile.stream(lambda: self._stream(request))

    def _stream(
        self, request: Callable[[SessionT], Generator[PieceT, None, None]]
    ) -> Generator[PieceT, None, None]:
        session = self.session
        session.begin_request()
        try:
            yield from self._admission.stream(lambda: self.pieces(session, request))
        finally:
            self._forward_log_lines()

    async def run_async(
        self,
        prepare: Callable[[], Awaitable[PreparedT]],
        request: Callable[[SessionT, PreparedT], ResultT],
    ) -> ResultT:
        """`serve` for a task: it waits its turn, and the model works in a thread of the request's own.

        Args:
            prepare: Gets ready what the request needs, while the task waits.
            request: What is done with the session and with that.
        """
        from executorch_mm._engine.jobs import Job  # here: asyncio takes as long to import as all the rest

        self._handle.expect_usable()
        ticket = self._turnstile.queue()
        try:
            prepared = await prepare()
            await ticket.turn()
            session = self.session
            job = Job(self._turnstile, session, lambda: self._admit(lambda: request(session, prepared)))
            job.start(ticket)
        except BaseException:
            ticket.leave()
            raise
        return await job.result()

    def stream_async(
        self,
        prepare: Callable[[], Awaitable[PreparedT]],
        request: Callable[[SessionT, PreparedT], Generator[PieceT, None, None]],
        timeout: Callable[[PreparedT], float | None],
        find_result: Callable[[], FoundT | None],
    ) -> AsyncStream[PieceT, FoundT]:
        """`stream` for a task.

        Args:
            prepare: As in `run_async`.
            request: As in `run_async`.
            timeout: Seconds after which the request comes to an end, read or not.
            find_result: What the stream's result is, once it is over.
        """
        from executorch_mm._engine.jobs import Channel
        from executorch_mm._engine.streams import AsyncStream

        channel: Channel[PieceT] = Channel(self._turnstile)
        is_over: list[bool] = []
        pieces = self._read_pieces(channel, prepare, request, timeout, is_over)
        return AsyncStream(pieces, channel, lambda: find_result() if is_over else None)

    async def _read_pieces(
        self,
        channel: Channel[PieceT],
        prepare: Callable[[], Awaitable[PreparedT]],
        request: Callable[[SessionT, PreparedT], Generator[PieceT, None, None]],
        timeout: Callable[[PreparedT], float | None],
        is_over: list[bool],
    ) -> AsyncGenerator[PieceT, None]:
        from executorch_mm._engine.jobs import Job

        def work() -> None:
            end_ns = deadline_ns(timeout(prepared), session.timings.start_ns)
            channel.fill(self.pieces(session, lambda session: request(session, prepared)), end_ns)

        self._handle.expect_usable()
        ticket = self._turnstile.queue()
        try:
            prepared = await prepare()
            await ticket.turn()
            session = self.session
            job = Job(self._turnstile, session, lambda: self._admit(work), channel.complete)
            job.start(ticket)
        except BaseException:
            ticket.leave()
            raise
        is_at_yield, has_loop = False, True
        try:
            while (piece := await channel.get()) is not None:
                is_at_yield = True
                yield piece
                is_at_yield = False
                self._handle.expect_usable()
            await job.result()
        except GeneratorExit:
            has_loop = is_at_yield
            raise
        finally:
            is_over.append(True)
            if not self._handle.is_forked:
                channel.leave()
                job.cancel()
                if has_loop:
                    await job.ended()

    def make_stats(
        self,
        session: SessionT,
        finish_reason: str | None = None,
        stopped_by: str | int | None = None,
        token_times_ns: tuple[int, ...] = (),
        prepare_ns: int = 0,
        mask_ns: int = 0,
        draft_ns: int = 0,
        step_ns: int = 0,
        input_notes: tuple[str, ...] = (),
        num_known: int = 0,
        num_cached: int = 0,
    ) -> Stats:
        """What the running request has cost so far.

        Args:
            session: After its last step.
            finish_reason: As in `Stats`, like the next ones.
            stopped_by: The same.
            token_times_ns: The same.
            prepare_ns: The same.
            mask_ns: The same.
            draft_ns: The same.
            step_ns: The same.
            input_notes: The same.
            num_known: Positions of the prompt that were held already, here or by another session.
            num_cached: Those of them that the model did not have to read again.
        """
        timings = session.timings
        num_read = timings.num_prompt_positions  # 0 of a prompt that was taken back
        return Stats(
            num_prompt_tokens=num_known + num_read,
            num_cached_tokens=num_cached,
            num_generated_tokens=timings.num_generated_tokens,
            num_decode_steps=timings.num_decode_steps,
            num_shared_steps=timings.num_shared_steps,
            num_forced_tokens=timings.num_forced_tokens,
            num_drafted_tokens=timings.num_drafted_tokens,
            num_accepted_tokens=timings.num_accepted_tokens,
            finish_reason=finish_reason,
            stopped_by=stopped_by,
            num_encoder_hits=timings.num_encoder_hits,
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
            draft_ns=draft_ns,
            step_ns=step_ns,
            token_times_ns=token_times_ns,
            input_notes=input_notes,
        )


def read_prompt(session: _core.Session, end_ns: int, progress: Progress | None = None) -> bool:
    """Reads a prompt that the session has begun.

    Args:
        session: The session.
        end_ns: When reading ends, whether or not the session has had its turn.
        progress: Called before each call of the model.

    Returns:
        Whether it was read to its end: not after a `cancel()` or beyond `end_ns`.
    """
    while (phase := session.prefill_phase) is not None:
        if progress is not None:
            progress(session.prefill_done, session.prefill_total, phase)
        if session.is_cancelled or _core.now_ns() >= end_ns:
            return False
        session.step_prefill(end_ns)
    return True


def checked_priority(priority: object) -> int:
    """A priority as the core takes it.

    Raises:
        InputError: It is none.
    """
    if isinstance(priority, bool) or not isinstance(priority, int) or not -(2**31) <= priority < 2**31:
        raise InputError(f"priority: expected an int of 32 bits, got {shown(priority)}")
    return priority
