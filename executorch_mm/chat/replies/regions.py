"""An answer cut into the parts that a response template names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from executorch_mm.chat.replies.contents import Parser
from executorch_mm.chat.replies.patterns import Budget, Delimiter, Found
from executorch_mm.chat.replies.template import ReplyField, ReplyTemplate
from executorch_mm.errors import InputError

_MOST_STALLS = 20  # matches of nothing, one after the other


class Event(NamedTuple):
    """What happened.

    Attributes:
        field: In which part.
        text: More of its text; of one that ends all of it, with its delimiters.
        is_end: The part is complete.
        value: What it stands for.
        error: Why it stands for nothing.
    """

    field: ReplyField
    text: str
    is_end: bool = False
    value: object = None
    error: ValueError | None = None


class _Match(NamedTuple):
    found: Found
    field: ReplyField
    opens: bool


class Regions:
    """Cuts an answer into parts, as transformers does with the same template.

    Args:
        template: Says how.
        begun: What of the answer the prompt holds already.
    """

    def __init__(self, template: ReplyTemplate, begun: str) -> None:
        self._template = template
        self._budget = Budget()
        self._parsers: dict[str, Parser] = {}
        self._text = begun
        self._place = 0
        self._num_stalls = 0
        # Of the part that is open, or of the rest.
        self._field: ReplyField | None = template.rest
        self._is_open = False
        self._body = ""
        self._begin = 0
        self._captures: dict[str, str] = {}
        for _ in self._advance(is_end=False):
            pass
        if self._field is not None and self._field.is_streamed:
            self._body = ""  # the caller has it

    @property
    def field(self) -> ReplyField | None:
        """The part that what comes next belongs to, if nothing else begins."""
        return self._field

    def push(self, text: str) -> Iterator[Event]:
        """Takes more of the answer.

        Raises:
            InputError: The template's patterns take too long.
        """
        self._text += text
        yield from self._advance(is_end=False)

    def finish(self, ended_by: str) -> Iterator[Event]:
        """Takes the rest; the token that ended it counts where it ends a part.

        Raises:
            InputError: As `push`.
        """
        if ended_by and self._ends_with(ended_by):
            self._text += ended_by
        yield from self._advance(is_end=True)

    def _ends_with(self, ended_by: str) -> bool:
        whole = self._text + ended_by
        founds = [delimiter.search(whole, self._place, self._budget) for _, delimiter, _ in self._watched()]
        return any(found is not None and found.end > len(self._text) for found in founds)

    def _advance(self, *, is_end: bool) -> Iterator[Event]:
        while True:
            match, hold = self._next_match(is_end=is_end)
            if match is None:
                yield from self._take(len(self._text) if is_end else hold)
                if is_end:
                    yield from self._close(len(self._text))
                return
            yield from self._take(match.found.start)
            was_open = self._is_open
            is_empty = match.found.start == match.found.end
            self._expect_progress(is_empty=is_empty)
            self._place = match.found.end
            if match.opens:
                yield from self._close(match.found.start)
                self._field, self._is_open = match.field, True
                self._captures, self._begin = dict(match.found.groups), match.found.start
            else:
                self._captures.update(match.found.groups)
                yield from self._close(match.found.end)
                if not was_open and is_empty:
                    return

    def _expect_progress(self, *, is_empty: bool) -> None:
        self._num_stalls = self._num_stalls + 1 if is_empty else 0
        if self._num_stalls > _MOST_STALLS:
            raise InputError("response_template: its patterns match nothing at all, again and again")

    def _watched(self) -> list[tuple[ReplyField, Delimiter, bool]]:
        """What may come next: the end of the part that is open, or else the beginnings of all."""
        rest = self._template.rest
        if self._field is not None and self._field is not rest:
            return [] if self._field.closing is None else [(self._field, self._field.closing, False)]
        fields = self._template.fields
        watched = [(field, field.opening, True) for field in fields if field.opening is not None]
        if rest is not None and rest.closing is not None:
            return [*watched, (rest, rest.closing, False)]
        return watched

    def _next_match(self, *, is_end: bool) -> tuple[_Match | None, int]:
        """The first that is certain, of several at one place the longest; and where one may come about."""
        best: _Match | None = None
        hold = len(self._text)
        for field, delimiter, opens in self._watched():
            found = delimiter.search(self._text, self._place, self._budget, is_end=is_end)
            if found is None:
                continue
            if found.is_open:
                hold = min(hold, found.start)
            elif best is None or _order(found, field, opens) < _order(best.found, best.field, best.opens):
                best = _Match(found, field, opens)
        if best is not None and best.found.start >= hold and not is_end:
            best = None
        return best, hold

    def _take(self, end: int) -> Iterator[Event]:
        text, self._place = self._text[self._place : end], max(end, self._place)
        if text and self._field is not None:
            if not self._is_open:
                self._is_open, self._begin = True, end - len(text)
            self._body += text
            yield Event(self._field, text)

    def _close(self, end: int) -> Iterator[Event]:
        field, body, captures, begin = self._field, self._body, self._captures, self._begin
        is_open = self._is_open
        self._leave()
        if field is None or not is_open:
            return
        if field.name not in self._parsers:
            self._parsers[field.name] = field.make_parser(self._budget)
        written = self._text[begin:end]
        try:
            value = field.value(body, captures, self._parsers[field.name])
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            yield Event(field, written, is_end=True, error=error)
        else:
            yield Event(field, written, is_end=True, value=value)

    def _leave(self) -> None:
        self._field = self._template.rest
        self._is_open = False
        self._body = ""
        self._captures = {}
        self._begin = self._place


def _order(found: Found, field: ReplyField, opens: bool) -> tuple[int, int, bool, str]:
    return found.start, found.start - found.end, not opens, field.name
