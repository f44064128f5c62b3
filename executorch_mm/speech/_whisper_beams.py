"""Beam search over the tokens of one window, by the rules of transformers' `generate`.

Each beam is a session of its own over one load: a fork shares with the others what was read together and what
the encoder made of the clip.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from executorch_mm import _core
from executorch_mm.speech._transcriber import SearchCosts
from executorch_mm.speech.config import SpeechConfig

if TYPE_CHECKING:
    from executorch_mm.preprocess.steps import FloatArray


@dataclass(frozen=True)
class Beam:
    """One way on through a window.

    Attributes:
        tokens: So far, without an end token.
        logprobs: Of them and of an end token, after what is forbidden was removed.
        score: Sum of ln p in the model's own distribution.
        alignment: What the decoder's heads looked at with each token that was read, where that is wanted.
        session: Has the tokens, the last one perhaps pending.
    """

    session: _core.Session
    tokens: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    score: float = 0.0
    alignment: tuple[FloatArray, ...] = ()


@dataclass(frozen=True)
class _Step:
    """A token that may follow a beam."""

    score: float
    beam: Beam
    token: int
    logprob: float


class BeamSearch:
    """The likeliest text of a window.

    Args:
        session: Has read the window's prompt; left at whatever beam it had last.
        options: With the rules for tokens; its temperature plays no part.
        config: The number of beams, patience and length penalty.
        ends: End tokens.
        limit: Tokens at most, an end token among them.
        end_ns: When to stop.
        wants_alignment: Whether to note what the decoder looks at.

    Attributes:
        interruption: "cancelled" or "timeout" where it was not brought to an end.
        times_ns: When each step was made, since the request began.
        costs: Of all beams, beside what the session counts itself.
    """

    def __init__(
        self,
        session: _core.Session,
        options: _core.SamplingOptions,
        config: SpeechConfig,
        ends: Sequence[int],
        limit: int,
        end_ns: int,
        *,
        wants_alignment: bool,
    ) -> None:
        self._session = session
        self._size = config.beam_size
        self._most_finished = (
            self._size if config.patience is None else max(1, round(self._size * config.patience))
        )
        self._is_hasty = config.patience is not None
        self._penalty = config.length_penalty
        self._ends = frozenset(ends)
        self._limit = limit
        self._end_ns = end_ns
        self._wants_alignment = wants_alignment
        # So many that the beams go on even where all of the best ones end.
        self._num_steps = max(2, 1 + len(self._ends)) * self._size
        options.num_logprobs = self._num_steps
        self._sampler = _core.Sampler(options)
        self._finished: list[tuple[float, Beam]] = []
        self.interruption: str | None = None
        self.times_ns: list[int] = []
        self.costs = SearchCosts()

    def search(self) -> Generator[tuple[int, ...], None, Beam]:
        """The best beam; yields the tokens of the one that leads meanwhile."""
        before = self._session.timings
        running = [Beam(self._session)]
        try:
            for length in range(1, self._limit + 1):
                steps, running = self._steps(running)
                if self.interruption is not None:
                    break
                self.times_ns.append(_core.now_ns() - before.start_ns)
                children = self._split(steps, length)
                if not children or self._is_over(children[0].score, length):
                    break
                running = self._advance(running, children)
                yield running[0].tokens
        finally:
            self._count(running)
        best = self._best(running)
        after = self._session.timings
        counted = after.num_generated_tokens - before.num_generated_tokens
        self.costs.num_generated_tokens += len(best.logprobs) - counted
        self.costs.num_forced_tokens -= after.num_forced_tokens - before.num_forced_tokens
        self.times_ns = self.times_ns[: len(best.logprobs)]
        return best

    def _best(self, running: Sequence[Beam]) -> Beam:
        if self.interruption is None and self._finished:
            return self._finished[0][1]
        return running[0]

    def _steps(self, running: Sequence[Beam]) -> tuple[list[_Step], list[Beam]]:
        """The best steps of all beams, falling; and the beams, which have been read."""
        steps: list[_Step] = []
        read: list[Beam] = []
        for beam in running:
            shift = None
            if self._stopped() is None:
                shift = beam.session.rank(self._sampler, len(beam.tokens), self._end_ns)
            if shift is None:
                self.interruption = self._stopped() or "timeout"
                return [], list(running)
            if self._wants_alignment and beam.tokens:
                alignment = (*beam.alignment, beam.session.alignment)
                beam = dataclasses.replace(beam, alignment=alignment)
            read.append(beam)
            for found in self._sampler.top_logprobs:
                score = beam.score + found.logprob + shift
                steps.append(_Step(score, beam, found.token, found.logprob))
        steps.sort(key=lambda step: -step.score)
        return steps[: self._num_steps], read

    def _stopped(self) -> str | None:
        if self._session.is_cancelled:
            return "cancelled"
        return "timeout" if _core.now_ns() >= self._end_ns else None

    def _split(self, steps: Sequence[_Step], length: int) -> list[_Step]:
        """Takes out the steps that end; of the others as many as there are beams."""
        children: list[_Step] = []
        for place, step in enumerate(steps):
            is_end = step.token in self._ends
            if (is_end or length == self._limit) and place < self._size:
                beam = step.beam
                tokens = beam.tokens if is_end else (*beam.tokens, step.token)
                done = dataclasses.replace(
                    beam, tokens=tokens, logprobs=(*beam.logprobs, step.logprob), score=step.score
                )
                self._finished.append((step.score / length**self._penalty, done))
            if not is_end:
                children.append(step)
        self._finished.sort(key=lambda pair: -pair[0])
        del self._finished[self._most_finished :]
        return children[: self._size]

    def _is_over(self, best_score: float, length: int) -> bool:
        """Whether enough have ended, or none that goes on is better than those that have."""
        if length == self._limit:
            return True
        if len(self._finished) < self._most_finished:
            return False
        return self._is_hasty or best_score / length**self._penalty <= self._finished[-1][0]

    def _advance(self, running: Sequence[Beam], children: Sequence[_Step]) -> list[Beam]:
        """Each child with a session that has its token pending: the first one keeps its parent's."""
        free = {id(beam.session) for beam in running}
        made: list[Beam] = []
        for child in children:
            parent = child.beam
            session = parent.session
            if id(session) in free:
                free.remove(id(session))
            else:
                session = self._fork(session)
            made.append(
                Beam(
                    session,
                    (*parent.tokens, child.token),
                    (*parent.logprobs, child.logprob),
                    child.score,
                    parent.alignment,
                )
            )
        for beam in made:
            beam.session.append(beam.tokens[-1])
        self._count([beam for beam in running if id(beam.session) in free])
        return made

    def _fork(self, session: _core.Session) -> _core.Session:
        child = session.fork()
        child.begin_request()  # its costs are its own
        child.share_cancel(self._session)
        return child

    def _count(self, beams: Sequence[Beam]) -> None:
        """Adds what sessions have cost that are used no more."""
        for beam in beams:
            if beam.session is not self._session:
                self.costs.add(beam.session.timings)
