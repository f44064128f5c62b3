"""What is known of an answer while it is given out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from executorch_mm import _core
from executorch_mm._engine.result import GenerationResult, make_result
from executorch_mm.stats import Stats

if TYPE_CHECKING:
    from executorch_mm._engine.json_answer import JsonAnswer
    from executorch_mm._engine.reply import ReplyReader, ThinkingBudget


class TextPiece(str):
    """A piece of an answer whose logprobs are asked for.

    Attributes:
        records: The tokens that have come with it: since the piece before.
    """

    records: Sequence[_core.TokenRecord] = ()


# No dataclasses, which take a millisecond each to import.
class Answer:
    """An answer while it is given out.

    Attributes:
        pieces: Of its text, so far.
        records: Its tokens, when it is complete or left.
        stats: At that time; None before.
        json: Of a complete answer to a request for JSON.
        reader: Tells it apart; None where it is text alone.
        budget: How long the model may think; None for as long as it likes.
    """

    def __init__(
        self,
        *pieces: str,
        reader: ReplyReader | None = None,
        budget: ThinkingBudget | None = None,
    ) -> None:
        self.budget = budget
        self.pieces = list(pieces)
        self.reader = reader
        self.records: Sequence[_core.TokenRecord] = ()
        self.stats: Stats | None = None
        self.json: JsonAnswer | None = None
        self._num_given = 0

    def add(self, text: str, records: Sequence[_core.TokenRecord] | None) -> str:
        """Adds a piece to the text.

        Args:
            text: The piece.
            records: All tokens so far, where the piece is to carry its own.

        Returns:
            What is given out.
        """
        if text:
            self.pieces.append(text)
        if records is None:
            return text
        piece = TextPiece(text)
        piece.records = records[self._num_given :]
        self._num_given = len(records)
        return piece


class Answers:
    """The answers to a prompt.

    Attributes:
        first: What is given out piece by piece.
        others: Where several are asked for.
        has_logprobs: Whether those are asked for.
    """

    def __init__(self) -> None:
        self.first = Answer()
        self.others: list[Answer] = []
        self.has_logprobs = False

    def result(self) -> GenerationResult | None:
        """All that is known; None before the first answer is complete or left."""
        others = [result for answer in self.others if (result := self._result(answer)) is not None]
        return self._result(self.first, others)

    def _result(self, answer: Answer, others: Sequence[GenerationResult] = ()) -> GenerationResult | None:
        if answer.stats is None:
            return None
        return make_result(
            "".join(answer.pieces),
            answer.records,
            answer.stats,
            has_logprobs=self.has_logprobs,
            json=answer.json,
            reply=None if answer.reader is None else answer.reader.reply(),
            alternatives=others,
        )
