"""The text of one answer as it comes, and what it says."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from executorch_mm import _core
from executorch_mm._engine.answer import TextPiece
from executorch_mm._engine.text_stream import TextStream
from executorch_mm.config import GenerationConfig
from executorch_mm.tokenizer import Tokenizer

if TYPE_CHECKING:
    from executorch_mm._engine.reply import Delta, ReplyReader, ThinkingBudget
    from executorch_mm._engine.steps import Steps

PieceT = TypeVar("PieceT")
Piece: TypeAlias = "tuple[str, Sequence[Delta] | None]"
"""Text to show, and the same told apart, if somebody does that: either may be empty."""
Pieces: TypeAlias = "Generator[Piece, None, None]"
Form: TypeAlias = Callable[[Pieces], Generator[PieceT, None, None]]


class AnswerText:
    """Turns the tokens of one answer into text, and hands it to the one who tells it apart.

    Args:
        tokenizer: Of the model.
        config: Stop texts and whether they are shown.
        after: Ids before the answer.
        reader: Tells it apart; it gets control tokens written out.
        budget: How long the model may think; None for as long as it likes.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        config: GenerationConfig,
        after: Sequence[int],
        reader: ReplyReader | None,
        budget: ThinkingBudget | None = None,
    ) -> None:
        self._budget = budget
        self._num_thought = 0  # tokens
        self._is_ending = False
        self._tokenizer = tokenizer
        self._config = config
        self._reader = reader
        self._text = TextStream(tokenizer, config.stop_strings, config.include_stop, after=after)
        self._written = None
        if reader is not None:
            self._written = TextStream(
                tokenizer, config.stop_strings, config.include_stop, skip_special_tokens=False, after=after
            )

    @property
    def stopped(self) -> str | None:
        """The stop text that ended it."""
        return self._text.stopped

    def next(self, steps: Steps) -> int | None:
        """The next token; one that ends thinking, once the model has thought long enough."""
        if self._budget is not None and self._reader is not None:
            is_late = self._reader.is_thinking and self._num_thought >= self._budget.num_tokens
            if is_late and not self._is_ending:
                steps.force(self._budget.end)
            self._is_ending = is_late
        return steps.next()

    def push(self, token: int) -> Piece:
        """Takes a token."""
        piece = self._text.push(token)
        if self._reader is None or self._written is None:
            return piece, None
        deltas = [*self._reader.push(self._written.push(token))]
        self._num_thought += self._reader.is_thinking
        if self.stopped is not None:
            deltas += self._reader.finish()
        return piece, deltas

    def finish(self, stop_token: int | None) -> Piece:
        """Takes the token that ended it, if one did."""
        is_shown = self._config.include_stop and stop_token in self._config.stop_token_ids
        ended_by = None if is_shown else stop_token
        piece = self._text.finish(ended_by)
        if self._reader is None or self._written is None:
            return piece, None
        deltas = [*self._reader.push(self._written.finish(ended_by))]
        end = "" if ended_by is None else self._tokenizer.decode([ended_by], skip_special_tokens=False)
        return piece, [*deltas, *self._reader.finish("" if self.stopped is not None else end)]


def texts(pieces: Pieces) -> Generator[str, None, None]:
    """The text of an answer's pieces."""
    with closing(pieces):
        for text, _ in pieces:
            if text:
                yield text


def deltas(pieces: Pieces) -> Generator[Delta, None, None]:
    """What an answer's pieces say; those that nobody tells apart are content."""
    from executorch_mm._engine.reply import Delta, TokensDelta  # here: few need it

    records: list[_core.TokenRecord] = []
    with closing(pieces):
        for text, told in pieces:
            if isinstance(text, TextPiece):
                records += text.records
            for delta in [Delta(content=text)] if told is None else told:
                if records:
                    yield TokensDelta.of(delta, records)
                    records = []
                else:
                    yield delta
