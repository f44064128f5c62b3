"""Decisions: how likely given answers to a prompt are."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from executorch_mm import _core
from executorch_mm._engine.likelihood import Limits, apart, log_probabilities, log_sum, normalized
from executorch_mm._engine.prefix_store import READ_AGAIN
from executorch_mm._engine.requests import Request, Requests
from executorch_mm._tokenizers.inside import encode_inside, expect_texts_of_tokens
from executorch_mm.errors import InputError, shown
from executorch_mm.stats import Stats

if TYPE_CHECKING:
    from executorch_mm.tokenizer import Tokenizer

AnswerT = TypeVar("AnswerT", str, int, bool)
_MOST_ANSWERS = 256
_LARGEST = 10**9  # number of a scale
_YES_OR_NO: Mapping[bool, tuple[str, ...]] = {True: ("Yes", "yes"), False: ("No", "no")}

_EXPECTED = "a statement (a str), answers (a list of str) or numbers (a range)"


@dataclass(frozen=True, repr=False)
class Decision(Generic[AnswerT]):
    """How likely each of the answers is that were given to choose from.

    Attributes:
        probabilities: Of each answer, in the order in which they were given; they sum to 1.
        logprobs: The logarithm of each answer's probability in the model's own distribution, where others
            could have come too.
        stats: What the request cost.
    """

    probabilities: Mapping[AnswerT, float]
    logprobs: Mapping[AnswerT, float]
    stats: Stats

    @property
    def answer(self) -> AnswerT:
        """The likeliest; of equals the first."""
        return max(self.probabilities, key=lambda answer: self.probabilities[answer])

    @property
    def coverage(self) -> float:
        """How likely it is that the model says one of these answers at all; small where it would not."""
        return math.fsum(map(math.exp, self.logprobs.values()))

    @property
    def mean(self) -> float:
        """Of a scale's numbers, each counted as often as it is likely; of a statement how likely it is true.

        Raises:
            InputError: The answers are texts.
        """
        if any(isinstance(answer, str) for answer in self.probabilities):
            raise InputError("mean: expected answers that are numbers, got texts")
        return math.fsum(int(answer) * share for answer, share in self.probabilities.items())

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "answer": self.answer,
            "answers": [
                {"answer": answer, "probability": share, "logprob": self.logprobs[answer]}
                for answer, share in self.probabilities.items()
            ],
            "stats": self.stats.to_dict(),
        }

    def __repr__(self) -> str:
        shares = ", ".join(f"{answer!r}: {share:.3f}" for answer, share in self.probabilities.items())
        return f"<Decision: {shares}>"

    def _repr_html_(self) -> str:
        """For notebooks: the answers with their probabilities, as bars."""
        from html import escape  # here: only notebooks need it

        rows = "".join(
            f"<tr><th>{escape(str(answer))}</th><td>{share:.3f}</td>"
            f"<td><meter min='0' max='1' value='{share:.4f}'></meter></td></tr>"
            for answer, share in self.probabilities.items()
        )
        return f"<table>{rows}</table>"


def read_answers(answers: object) -> Mapping[Any, tuple[str, ...]]:
    """How each answer may be spelled.

    Args:
        answers: What `decide` takes.

    Raises:
        InputError: It is none of these, or there are fewer than two answers, too many, or two the same.
    """
    if isinstance(answers, str):
        if not answers.strip():
            raise InputError("answers: expected a statement, got an empty text")
        return _YES_OR_NO
    if not isinstance(answers, Sequence) or isinstance(answers, (bytes, bytearray, memoryview)):
        raise InputError(f"answers: expected {_EXPECTED}, got {shown(answers)}")
    if isinstance(answers, range) and max(map(abs, (answers.start, answers.stop))) > _LARGEST:
        raise InputError(f"answers: expected numbers of at most {_LARGEST}, got {shown(answers)}")
    given: Sequence[object] = answers
    if not 2 <= len(given) <= _MOST_ANSWERS:
        raise InputError(f"answers: expected 2 to {_MOST_ANSWERS} of them, got {len(given)}")
    if isinstance(answers, range):
        return {number: (str(number),) for number in answers}
    for index, answer in enumerate(given):
        if not isinstance(answer, str) or not answer:
            raise InputError(f"answers[{index}]: expected a str that is not empty, got {shown(answer)}")
    if len({*given}) < len(given):
        raise InputError(f"answers: expected each only once, got {shown(answers)}")
    return {str(answer): (str(answer),) for answer in given}


class Choices:
    """Answers in tokens.

    Args:
        spellings: How each answer may be spelled.
        tokenizer: Of the model.
        end_ids: Tokens that end an answer.

    Raises:
        InputError: The tokenizer has no tokens for one, the same for two, or one is the beginning of another
            and the model has no end token.
    """

    def __init__(
        self, spellings: Mapping[Any, tuple[str, ...]], tokenizer: Tokenizer, end_ids: Sequence[int]
    ) -> None:
        expect_texts_of_tokens(tokenizer, "answers")
        owners: dict[tuple[int, ...], object] = {}
        for answer, texts in spellings.items():
            for text in texts:
                ids = encode_inside(tokenizer, text)
                if not ids:
                    raise InputError(
                        f"answers: expected texts that the tokenizer has plain tokens for, got {shown(text)}"
                    )
                if owners.setdefault(tuple(ids), answer) != answer:
                    raise InputError(f"answers: expected different tokens for each, got {shown(text)} twice")
        self._sequences = list(owners)
        self._end_ids = end_ids
        self._owners = list(owners.values())
        self._answers = list(spellings)
        ordered = sorted(self._sequences)
        for one, next_one in pairwise(ordered):
            if next_one[: len(one)] == one and not end_ids:
                raise InputError(
                    f"answers: {shown(tokenizer.decode(one))} is the beginning of "
                    f"{shown(tokenizer.decode(next_one))}, and the model has no end token to tell them apart"
                )

    def decide(
        self,
        session: _core.Session,
        limits: Limits,
        make_stats: Callable[[_core.Session], Stats],
    ) -> Decision[Any]:
        """How likely each of them comes next.

        Args:
            session: Has just read the prompt, and stands there afterwards too.
            limits: Looked at before each call of the model.
            make_stats: What it cost, told by the session that was used.

        Raises:
            ExecutionError: The model gives none of them a probability.
        """
        needs_calls = any(len(sequence) > 1 for sequence in self._sequences)
        with apart(session) if needs_calls else nullcontext(session) as branch:
            logprobs = log_probabilities(branch, self._sequences, self._end_ids, limits)
            stats = make_stats(branch)
        of_answers: dict[object, list[float]] = {answer: [] for answer in self._answers}
        for owner, logprob in zip(self._owners, logprobs, strict=True):
            of_answers[owner].append(logprob)
        summed = [log_sum(values) for values in of_answers.values()]
        return Decision(
            probabilities=dict(zip(self._answers, normalized(summed), strict=True)),
            logprobs=dict(zip(self._answers, summed, strict=True)),
            stats=stats,
        )


def decide(requests: Requests, session: _core.Session, request: Request, choices: Choices) -> Decision[Any]:
    """Reads a prompt and tells how likely each choice is, for the one who has been let in."""
    limits = Limits(session, request.config.timeout)
    cache = requests.prefix_cache
    # Never one token alone: probabilities do not depend on whether the prompt is there already.
    if not requests.read(session, cache.to_read(request.inputs, session, READ_AGAIN), request.config):
        limits.check()
    num_prompt_tokens = requests.about_prompt(session)["num_known"] + session.timings.num_prompt_positions

    def make_stats(used: _core.Session) -> Stats:
        stats = requests.make_stats(used, **requests.about_prompt(session))
        requests.stats = replace(stats, num_prompt_tokens=num_prompt_tokens)
        return requests.stats

    return choices.decide(session, limits, make_stats)
