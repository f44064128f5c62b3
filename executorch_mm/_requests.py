"""Requests of a runner: one at a time, from the prompt to the last token."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from executorch_mm import _core
from executorch_mm._logging import forward_log_lines
from executorch_mm._steps import Steps
from executorch_mm._turnstile import Turnstile
from executorch_mm.config import GenerationConfig
from executorch_mm.errors import CapacityError, ExecutorchMMError, ForkError
from executorch_mm.inputs import MultimodalInput, Prompt
from executorch_mm.prompt import PromptEncoder
from executorch_mm.result import GenerationResult, make_result
from executorch_mm.sampling import generation_options, timeout_ns
from executorch_mm.stats import Stats, peak_memory_bytes
from executorch_mm.text_stream import TextStream
from executorch_mm.tokenizer import Tokenizer

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from executorch_mm._constraint import Constraints
    from executorch_mm.context import ChatPrompt

Progress = Callable[[int, int, str], object]


class Ending(NamedTuple):
    """What is known once an answer is complete.

    Attributes:
        text: Of an alternative; the pieces of the answer itself went out one by one.
    """

    records: list[_core.TokenRecord]
    stats: Stats
    text: str = ""

    def after(self, text: str) -> Ending:
        return self._replace(text=text + self.text)


class Requests:
    """Serves the requests to a session.

    Args:
        session: The session; nobody else uses it.
        tokenizer: Of the model.
        encoder: Turns prompts into what the session reads.
        eos_ids: Tokens that end an answer.
        load_start_ns: When loading began; it ends now.
    """

    def __init__(
        self,
        session: _core.Session,
        tokenizer: Tokenizer,
        encoder: PromptEncoder,
        eos_ids: Sequence[int],
        load_start_ns: int,
    ) -> None:
        self._loaded: _core.Session | None = session  # None once closed
        self._tokenizer = tokenizer
        self.encoder = encoder
        self._eos_ids = eos_ids
        self._constraints: Constraints | None = None  # made with the first request that needs it
        from executorch_mm.context import Context  # here: it takes long to import

        self.context = Context()
        self._turnstile = Turnstile()
        self._process = os.getpid()
        self.stats = Stats()
        self._load_start_ns, self._load_ns = load_start_ns, _core.now_ns() - load_start_ns
        self._prepare_ns = 0  # of the last prompt

    @property
    def session(self) -> _core.Session:
        """The session.

        Raises:
            ExecutorchMMError: The runner is closed.
            ForkError: This is a forked child.
        """
        self._expect_usable()
        if self._loaded is None:
            raise ExecutorchMMError("the runner is closed")
        return self._loaded

    def stop(self) -> None:
        """`MultimodalRunner.stop`."""
        if self._loaded is not None:
            self.session.cancel()

    def close(self) -> None:
        """`MultimodalRunner.close`."""
        if self._is_forked or self._loaded is None:
            self._loaded = None
            return
        with self.exclusive() as session:
            self._loaded = None
            del self.encoder
            session.write_profile()

    @property
    def _is_forked(self) -> bool:
        return os.getpid() != self._process

    def _expect_usable(self) -> None:
        if self._is_forked:
            raise ForkError(
                f"the runner was loaded in process {self._process} and cannot be used in a child that was "
                "forked from it, which has none of its threads: load a runner in each process, after the fork"
            )

    def _forward_log_lines(self) -> None:
        if not self._is_forked:  # where a lock may have been copied in its locked state
            forward_log_lines()

    def result(self, inputs: Prompt | ChatPrompt, config: GenerationConfig) -> GenerationResult:
        """A whole answer."""
        endings: list[Ending] = []
        with contextlib.closing(self.answer(inputs, config, None, endings.append)) as pieces:
            text = "".join(pieces)
        return _result(text, endings, config)

    async def result_async(self, inputs: Prompt | ChatPrompt, config: GenerationConfig) -> GenerationResult:
        """A whole answer for a task."""
        endings: list[Ending] = []
        text = "".join([piece async for piece in self.answer_async(inputs, config, None, endings.append)])
        return _result(text, endings, config)

    def prefill(self, inputs: Prompt, config: GenerationConfig, progress: Progress | None) -> int:
        """Reads a prompt; returns the position behind it."""
        with self.exclusive() as session:
            session.begin_request()
            self._read(session, self.context.to_read(inputs, session), config, progress)
            self.stats = self._make_stats(session)
            return session.position

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[_core.Session]:
        """The session, for one request or change at a time.

        Raises:
            BusyError: Another one is under way.
        """
        self._expect_usable()
        with self._turnstile.passed():
            try:
                yield self.session
            finally:
                self._forward_log_lines()

    def answer(
        self,
        inputs: Prompt | ChatPrompt,
        config: GenerationConfig,
        progress: Progress | None = None,
        on_end: Callable[[Ending], object] = lambda _: None,
    ) -> Generator[str, None, None]:
        """An answer, piece by piece; `on_end` gets what is known when it is complete or left."""
        with self.exclusive() as session:
            session.begin_request()
            yield from self._answer(session, inputs, config, progress, on_end)

    async def answer_async(
        self,
        inputs: Prompt | ChatPrompt,
        config: GenerationConfig,
        progress: Progress | None = None,
        on_end: Callable[[Ending], object] = lambda _: None,
    ) -> AsyncGenerator[str, None]:
        """`answer` for a task: it waits its turn, and the model runs in a thread of the answer's own."""
        from concurrent.futures import ThreadPoolExecutor

        self._expect_usable()
        async with self._turnstile.awaited():
            session = self.session
            session.begin_request()  # here, so that no cancellation comes before it and is forgotten
            pieces = self._answer(session, inputs, config, progress, on_end)
            worker = ThreadPoolExecutor(1, "executorch_mm")
            try:
                while (piece := await _pull(session, worker, pieces)) is not None:
                    yield piece
            finally:
                worker.shutdown()  # waits for nothing, unless the event loop is gone
                pieces.close()
                self._forward_log_lines()

    def _answer(
        self,
        session: _core.Session,
        inputs: Prompt | ChatPrompt,
        config: GenerationConfig,
        progress: Progress | None,
        on_end: Callable[[Ending], object],
    ) -> Generator[str, None, None]:
        # Made before the prompt is read, because they check options against the model.
        steps = self._steps(session, config)
        parts = self.context.to_read(inputs, session)
        echoed = "".join(part.value for part in parts if isinstance(part.value, str)) if config.echo else ""
        if echoed:
            yield echoed
        self._read(session, parts, config, progress, is_answered=True)
        if config.num_return_sequences == 1:
            yield from self._generate(session, steps, config, on_end)
            return
        start = session.save()
        yield from self._generate(session, steps, config, on_end)
        self._generate_alternatives(session, start, config, lambda ending: on_end(ending.after(echoed)))

    def _generate_alternatives(
        self,
        session: _core.Session,
        start: _core.Snapshot,
        config: GenerationConfig,
        on_end: Callable[[Ending], object],
    ) -> None:
        """More answers from `start`; the conversation then goes on from the one it holds now."""
        answer, stats = session.save(), self.stats
        try:
            for index in range(1, config.num_return_sequences):
                session.restore(start)
                session.begin_answer()
                seed = None if config.seed is None else config.seed + index
                steps = self._steps(session, config.replace(seed=seed))
                endings: list[Ending] = []
                pieces = self._generate(session, steps, config, endings.append)
                text = "".join(pieces)
                on_end(endings[0].after(text))
        finally:
            session.restore(answer)
            self.stats = stats

    def _generate(
        self,
        session: _core.Session,
        steps: Steps,
        config: GenerationConfig,
        on_end: Callable[[Ending], object],
    ) -> Generator[str, None, None]:
        """The answer to the prompt that the session has read."""
        text = TextStream(
            self._tokenizer, config.stop_strings, config.include_stop, after=_tokens_so_far(session)
        )
        reason: str | None = None
        try:
            while (token := steps.next()) is not None:
                if piece := text.push(token):
                    yield piece
                if text.stopped is not None:
                    reason = "stop"
                    break
                self._expect_usable()  # a stream can be carried over a fork
            else:
                reason = steps.finish_reason
                if piece := text.finish():
                    yield piece
        finally:
            records = steps.generation.records
            stats = self._make_stats(
                session,
                finish_reason=reason or "cancelled",
                stopped_by=steps.generation.stop_token if text.stopped is None else text.stopped,
                token_times_ns=tuple(record.time_ns for record in records),
                mask_ns=steps.mask_ns,
            )
            if not config.warming:
                self.stats = stats
            on_end(Ending(records, stats))

    def _steps(self, session: _core.Session, config: GenerationConfig) -> Steps:
        generation = _core.Generation(session, generation_options(config, self._eos_ids))
        if config.response_format is None:
            return Steps(generation, tuple(config.logits_processors), None)
        if self._constraints is None:
            from executorch_mm._constraint import Constraints  # here: few requests need it

            self._constraints = Constraints(self._tokenizer, self._eos_ids, session.contract.vocab_size)
        return Steps(generation, tuple(config.logits_processors), self._constraints.start(config))

    def _read(
        self,
        session: _core.Session,
        parts: list[MultimodalInput],
        config: GenerationConfig,
        progress: Progress | None,
        is_answered: bool = False,
    ) -> None:
        self._prepare_ns = 0
        if not parts and session.can_generate:
            return
        start_ns = session.timings.start_ns
        deadline_ns = math.inf if config.timeout is None else start_ns + timeout_ns(config.timeout)
        prompt = self.encoder.encode(parts, config, is_start=session.position == 0)
        self._prepare_ns = _core.now_ns() - start_ns
        try:
            session.begin_prefill(prompt)
            if is_answered:
                _expect_room(session, config)
            while (phase := session.prefill_phase) is not None:
                if progress is not None:
                    progress(session.prefill_done, session.prefill_total, phase)
                if session.is_cancelled or _core.now_ns() >= deadline_ns:
                    return
                session.step_prefill()
            if progress is not None:
                progress(session.prefill_done, session.prefill_total, "prefill")
        finally:
            session.abort_prefill()  # nothing to do once the prompt has been read

    def _make_stats(
        self,
        session: _core.Session,
        finish_reason: str | None = None,
        stopped_by: str | int | None = None,
        token_times_ns: tuple[int, ...] = (),
        mask_ns: int = 0,
    ) -> Stats:
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
            prepare_ns=self._prepare_ns,
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
        )

    def warmup(self) -> None:
        """`MultimodalRunner.warmup`."""
        with self.exclusive() as session:
            if session.position:
                return
            options = generation_options(GenerationConfig(max_new_tokens=2, ignore_eos=True), ())
            for part in self.encoder.rehearsal():
                try:
                    session.begin_request()
                    session.begin_prefill([part])
                    while session.step_prefill():
                        pass
                    generation = _core.Generation(session, options)
                    while generation.next() is not None:
                        pass
                finally:
                    session.reset()


async def _pull(
    session: _core.Session, worker: ThreadPoolExecutor, pieces: Generator[str, None, None]
) -> str | None:
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


def _result(text: str, endings: list[Ending], config: GenerationConfig) -> GenerationResult:
    has_logprobs = config.logprobs is not None
    first, *others = endings
    return make_result(
        text,
        first.records,
        first.stats,
        has_logprobs=has_logprobs,
        alternatives=[
            make_result(other.text, other.records, other.stats, has_logprobs=has_logprobs) for other in others
        ],
    )


def _tokens_so_far(session: _core.Session) -> list[int]:
    return [token for token in session.history if token >= 0]


def _expect_room(session: _core.Session, config: GenerationConfig) -> None:
    """Refuses, before anything is computed, a prompt after which seq_len leaves no token to generate.

    The context itself may be filled to the last position: the token sampled there needs no room.
    """
    start = 0 if session.contract.is_unbounded else session.position
    if config.max_new_tokens == 0 or not -1 < config.seq_len < session.contract.capacity:
        return
    needed, available = session.prefill_total + 1, max(config.seq_len - start, 0)
    if needed > available:
        raise CapacityError(
            f"the prompt and one token of an answer need {needed} positions, {available} of "
            f"seq_len={config.seq_len} are free",
            needed,
            available,
        )
