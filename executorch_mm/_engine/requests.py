"""Requests of a runner: one at a time, from the prompt to the last token."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NamedTuple, cast

from executorch_mm import _core
from executorch_mm._engine.access import Progress
from executorch_mm._engine.answer import Answer, Answers
from executorch_mm._engine.answer_text import AnswerText, Form, Pieces, PieceT, texts
from executorch_mm._engine.callbacks import checked_callback
from executorch_mm._engine.prompts import Prompts, checked_progress
from executorch_mm._engine.result import GenerationResult
from executorch_mm._engine.steps import Steps
from executorch_mm.config import GenerationConfig
from executorch_mm.errors import InputError
from executorch_mm.inputs import Prompt, as_parts
from executorch_mm.response_format import LarkGrammar
from executorch_mm.sampling import generation_options

if TYPE_CHECKING:
    from executorch_mm._engine.constraint import Constraints
    from executorch_mm._engine.json_answer import JsonAnswer
    from executorch_mm._engine.loaded import Loaded
    from executorch_mm._engine.prefix_reuse import ChatPrompt
    from executorch_mm._engine.streams import AsyncStream, Stream


class Request(NamedTuple):
    """What is asked of the model."""

    inputs: Prompt | ChatPrompt
    config: GenerationConfig

    @classmethod
    def of_chat(cls, prompt: ChatPrompt, config: GenerationConfig) -> Request:
        """Asks for an answer to a chat.

        Args:
            prompt: Begins the context, so that nothing is put before it.
            config: Of the answer.

        Raises:
            InputError: The config and the tools of the chat want an answer of different forms.
        """
        config = config.replace(num_bos=0)
        if prompt.grammar is None:
            return cls(prompt, config)
        if config.response_format is not None:
            raise InputError("response_format: expected None where calls of tools are forced, got one")
        return cls(prompt, config.replace(response_format=LarkGrammar(prompt.grammar)))


class Requests(Prompts):
    """Serves the requests to a session.

    Args:
        session: The session; nobody else uses it.
        loaded: The model.
        what: The session's name for messages, such as "runner".

    Attributes:
        tokenizer: Of the model.
        eos_ids: Tokens that end an answer.
    """

    def __init__(self, session: _core.Session, loaded: Loaded, what: str) -> None:
        super().__init__(session, loaded, what)
        loaded.enter()
        self.tokenizer = loaded.tokenizer
        self.eos_ids = loaded.eos_ids
        self._constraints: Constraints | None = None  # made with the first request that needs it
        self._drafter: _core.Drafter | None = None  # made with the first request that needs it

    @property
    def end_ids(self) -> list[int]:
        """Tokens that end an answer and that the model has."""
        return [token for token in self.eos_ids if token < self.session.contract.vocab_size]

    def _release(self) -> None:
        self._drafter = None
        self._loaded.leave()

    def draft_as(self, other: Requests) -> None:
        """Has what the draft model has read in another conversation, of which this one is a fork."""
        if other._drafter is not None and self._loaded.drafting is not None:
            self._drafter = self._loaded.drafting.fork(other._drafter)

    def _drafter_for(self, config: GenerationConfig) -> _core.Drafter | None:
        if self._loaded.drafting is None:
            if config.num_assistant_tokens:
                raise InputError("num_assistant_tokens: expected a model that was loaded with draft_model")
            return None
        if config.num_assistant_tokens == 0:
            return None
        if self._drafter is None:
            self._drafter = self._loaded.drafting.drafter()
        return self._drafter

    def result(self, request: Request) -> GenerationResult:
        """A whole answer."""
        return self.serve(lambda session: self._whole(session, request))

    def ready(self, request: Request) -> Request:
        """A request whose images and audio are prepared, beside whatever the session does."""
        from executorch_mm._engine.prefix_reuse import ChatPrompt  # here: it takes long to import

        _ = self.session  # refuses once closed
        if isinstance(request.inputs, ChatPrompt):
            parts = tuple(self.encoder.ready(request.inputs.parts))
            return request._replace(inputs=request.inputs._replace(parts=parts))
        return request._replace(inputs=self.encoder.ready(as_parts(request.inputs)))

    def result_anew(
        self, request: Request, is_stopped: Callable[[], bool] = lambda: False
    ) -> GenerationResult:
        """A whole answer to what does not go on from the conversation: a chat, or a prompt after a reset.

        Args:
            request: What is asked.
            is_stopped: Whether a `stop()` came before the request began.
        """
        from executorch_mm._engine.prefix_reuse import ChatPrompt

        def answer(session: _core.Session) -> GenerationResult:
            if is_stopped():
                session.cancel()
            if not isinstance(request.inputs, ChatPrompt):
                session.reset()
            return self._whole(session, request)

        return self.serve(answer)

    async def result_async(self, prepare: Callable[[], Awaitable[Request]]) -> GenerationResult:
        """A whole answer for a task; see `run_async`."""
        return await self.run_async(prepare, self._whole)

    def answer(self, request: Request, on_piece: Callable[[str], object], progress: Progress | None) -> None:
        """Gives out an answer by callback."""
        progress = checked_progress(progress)

        def give_out(session: _core.Session) -> None:
            answer = self.pieces(session, lambda _: self._answer(session, request, progress, Answers()))
            for piece in texts(answer):
                on_piece(piece)

        self.serve(give_out)

    def answer_stream(
        self, request: Request, progress: Progress | None, form: Form[PieceT]
    ) -> Stream[PieceT, GenerationResult]:
        """An answer, piece by piece.

        Args:
            request: What is asked.
            progress: As in `MultimodalRunner.generate`.
            form: What the pieces are: `texts` or `deltas`.
        """
        from executorch_mm._engine.streams import Stream  # here: imports are to be fast

        progress = checked_progress(progress)
        answers = Answers()
        pieces = self.stream(lambda session: form(self._answer(session, request, progress, answers)))
        return Stream(pieces, answers.result)

    def answer_async(
        self, prepare: Callable[[], Awaitable[Request]], progress: Progress | None, form: Form[PieceT]
    ) -> AsyncStream[PieceT, GenerationResult]:
        """`answer_stream` for a task; see `stream_async`."""
        progress = checked_progress(progress)
        answers = Answers()
        return self.stream_async(
            prepare,
            lambda session, request: form(self._answer(session, request, progress, answers)),
            lambda request: request.config.timeout,
            answers.result,
        )

    def _whole(self, session: _core.Session, request: Request) -> GenerationResult:
        answers = Answers()
        for _ in self.pieces(session, lambda _: self._answer(session, request, None, answers)):
            pass
        return cast(GenerationResult, answers.result())

    def _answer(
        self, session: _core.Session, request: Request, progress: Progress | None, answers: Answers
    ) -> Pieces:
        inputs, config = request
        answers.has_logprobs = config.logprobs is not None
        # Made before the prompt is read, because they check options against the model.
        steps = self._steps(session, config)
        parts = self.prefix_cache.to_read(inputs, session)
        echoed = "".join(part.value for part in parts if isinstance(part.value, str)) if config.echo else ""
        if echoed:
            answers.first.pieces.append(echoed)
            yield echoed, None
        make_reader = getattr(inputs, "make_reader", None) or _no_reader
        budget = getattr(inputs, "budget", None)
        answers.first.reader, answers.first.budget = make_reader(), budget
        self.read(session, parts, config, progress, is_answered=True)
        start = _fork_or_save(session) if config.num_return_sequences > 1 else None
        yield from self._generate(session, steps, config, answers.first)
        if not session.is_cancelled:
            self._loaded.prefixes.keep(session)
        if start is None:
            return
        answers.others = [
            Answer(echoed, reader=make_reader(), budget=budget) for _ in range(1, config.num_return_sequences)
        ]
        if isinstance(start, _core.Session):
            self._generate_from_forks(session, start, config, answers.others)
        else:
            self._generate_alternatives(session, start, config, answers.others)

    def _generate_from_forks(
        self, session: _core.Session, start: _core.Session, config: GenerationConfig, others: list[Answer]
    ) -> None:
        """More answers, each by a fork of `start`; the conversation goes on from the one it holds."""
        stats = self.stats
        try:
            for index, other in enumerate(others, 1):
                branch = start if other is others[-1] else start.fork()
                branch.share_cancel(session)
                branch.begin_answer()
                seed = None if config.seed is None else config.seed + index
                steps = self._steps(branch, config.replace(seed=seed))
                for _ in self._generate(branch, steps, config, other):
                    pass
        finally:
            self.stats = stats

    def _generate_alternatives(
        self,
        session: _core.Session,
        start: _core.Snapshot,
        config: GenerationConfig,
        others: list[Answer],
    ) -> None:
        """More answers from `start`; the conversation then goes on from the one it holds now."""
        answer, stats = session.save(), self.stats
        try:
            for index, other in enumerate(others, 1):
                session.restore(start)
                session.begin_answer()
                seed = None if config.seed is None else config.seed + index
                steps = self._steps(session, config.replace(seed=seed))
                for _ in self._generate(session, steps, config, other):
                    pass
        finally:
            session.restore(answer)
            self.stats = stats

    def _generate(
        self,
        session: _core.Session,
        steps: Steps,
        config: GenerationConfig,
        answer: Answer,
    ) -> Pieces:
        """The answer to the prompt that the session has read."""
        text = AnswerText(self.tokenizer, config, self._before_answer(session), answer.reader, answer.budget)
        reason: str | None = None
        generation, has_logprobs = steps.generation, config.logprobs is not None
        try:
            while (token := text.next(steps)) is not None:
                piece, deltas = text.push(token)
                if piece or deltas:
                    yield answer.add(piece, generation.records if has_logprobs else None), deltas
                if text.stopped is not None:
                    reason = "stop"
                    break
            else:
                piece, deltas = text.finish(generation.stop_token)
                reason = steps.finish_reason if text.stopped is None else "stop"
                if piece or deltas:
                    yield answer.add(piece, generation.records if has_logprobs else None), deltas
                answer.json = self._json_answer(steps, config)
        finally:
            records = generation.records
            stats = self.make_stats(
                session,
                finish_reason=reason or "cancelled",
                stopped_by=generation.stop_token if text.stopped is None else text.stopped,
                token_times_ns=tuple(record.time_ns for record in records),
                mask_ns=steps.mask_ns,
                draft_ns=generation.draft_ns,
                step_ns=generation.step_ns,
                **self.about_prompt(session),
            )
            self.stats = stats
            answer.records, answer.stats = records, stats

    def _json_answer(self, steps: Steps, config: GenerationConfig) -> JsonAnswer | None:
        """What an answer says that is complete by a JSON schema; None for any other."""
        end = steps.generation.stop_token
        is_complete = steps.finish_reason == "stop" and (end is None or end in self.eos_ids)
        if steps.schema is None or not is_complete:
            return None
        from executorch_mm._engine.json_answer import read_answer  # here: few requests need it

        # Not what was shown, of which a stop text may have taken a part.
        tokens = [record.token for record in steps.generation.records]
        text = self.tokenizer.decode(tokens if end is None else tokens[:-1])
        return read_answer(text, steps.schema, config.response_format)

    def _steps(self, session: _core.Session, config: GenerationConfig) -> Steps:
        options = generation_options(config, self.eos_ids)
        generation = _core.Generation(session, options, self._drafter_for(config))
        processors = tuple(checked_callback(call, "logits_processors") for call in config.logits_processors)
        if config.response_format is None:
            return Steps(generation, processors, None)
        if self._constraints is None:
            self._constraints = self._loaded.constraints
        return Steps(generation, processors, self._constraints.start(config))

    def _before_answer(self, session: _core.Session, /) -> list[int]:
        """Tokens that the answer's text goes on from."""
        return [token for token in session.history if token >= 0]


def _no_reader() -> None:
    return None


def _fork_or_save(session: _core.Session) -> _core.Session | _core.Snapshot:
    try:
        return session.fork()
    except InputError:  # the model holds one conversation where it runs
        return session.save()
