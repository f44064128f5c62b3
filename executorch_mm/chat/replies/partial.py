"""Calls whose arguments are told while they are written, where they are JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

from executorch_mm._engine.reply import CallPiece

_STRING = r'"(?:[^"\\\x00-\x1f]|\\.)*"'
_HEADS = (
    # {"name": "f", "arguments": {, alone or in a list
    re.compile(rf'\{{\s*"name"\s*:\s*({_STRING})\s*,\s*"(?:arguments|parameters)"\s*:\s*\{{'),
    # f[ARGS]{
    re.compile(r"([\w.-]+)\s*(?:\[CALL_ID\]\s*\w+\s*)?\[ARGS\]\s*\{"),
)
_BETWEEN = re.compile(r"[\s,;\[}]*")
_KEY = re.compile(rf"\s*(?:(,)\s*)?({_STRING})\s*:\s*(?=\S)")
_WHOLE = re.compile(r'(?:[^"\\\x00-\x1f]|\\.)*(?=")')
_TEXT = re.compile(r'(?:[^"\\\x00-\x1f]|\\["\\/bfnrt])*')
_BEHIND = tuple(" \t\r\n,}")
_LONGEST_HEAD = 4096  # characters that may be looked at again for each that comes


class PartialCalls:
    """Reads the text of a part that holds calls as it comes.

    The arguments that it gives, joined, are what `ToolCall.to_dict` writes; what it cannot read it gives
    nothing of, and leaves to who reads the part when it is complete.

    Args:
        is_text: Whether the argument of this function and name is a text whatever it spells.
        typed: An argument's value as its function's schema wants it.
        new_id: Makes the id of a call.
    """

    def __init__(
        self,
        is_text: Callable[[str, str], bool],
        typed: Callable[[str, str, object], object],
        new_id: Callable[[], str],
    ) -> None:
        self._is_text = is_text
        self._typed = typed
        self._new_id = new_id
        self.begun: list[tuple[str, str]] = []
        """Ids and names of the calls that have been begun."""
        self._text = ""
        self._place = 0
        self._step: Callable[[], Iterator[str] | None] = self._head
        self._is_first = True  # of the arguments
        self._is_over = False

    def push(self, text: str) -> list[CallPiece]:
        """Takes more of the part's text."""
        if self._is_over:
            return []
        self._text += text
        pieces: list[CallPiece] = []
        known = len(self.begun)
        try:
            while (written := self._step()) is not None:
                joined = "".join(written)
                if joined or len(self.begun) > known:
                    pieces.append(CallPiece(*self.begun[-1], joined))
                    known = len(self.begun)
        except (ValueError, RecursionError):  # no JSON: whoever has the whole says so
            self._is_over = True
        return pieces

    def _head(self) -> Iterator[str] | None:
        """Up to the brace that opens the arguments."""
        if (between := _BETWEEN.match(self._text, self._place)) is not None:
            self._place = between.end()
        for head in _HEADS:
            if (found := head.match(self._text, self._place)) is not None:
                name = json.loads(found[1]) if found[1].startswith('"') else found[1]
                self._place, self._is_first = found.end(), True
                self._step = self._key
                self.begun.append((self._new_id(), name))
                return iter("{")
        if len(self._text) - self._place > _LONGEST_HEAD:
            raise ValueError("no call")
        return None

    def _key(self) -> Iterator[str] | None:
        """Up to the beginning of an argument's value, or the end of them all."""
        found = _KEY.match(self._text, self._place)
        if found is None:
            rest = self._text[self._place :].lstrip()
            if not rest.startswith("}"):
                return None
            self._place = len(self._text) - len(rest) + 1
            self._step = self._head
            return iter("}")
        if bool(found[1]) is self._is_first:
            raise ValueError("no JSON")
        before = "" if self._is_first else ", "
        self._place, self._is_first = found.end(), False
        name = json.loads(found[2])
        if self._text[self._place] == '"' and self._is_text(self.begun[-1][1], name):
            self._place += 1
            self._step = self._string
            return iter((before, _json(name), ': "'))
        self._step = lambda: self._value(name)
        return iter((before, _json(name), ": "))

    def _value(self, name: str) -> Iterator[str] | None:
        """A value as a whole."""
        try:
            value, end = json.JSONDecoder().raw_decode(self._text, self._place)
        except ValueError:
            return None
        if self._text[end : end + 1] not in _BEHIND:  # a number may go on
            return None
        self._place = end
        self._step = self._key
        return iter([_json(self._typed(self.begun[-1][1], name, value))])

    def _string(self) -> Iterator[str] | None:
        """A text, as far as it is there; behind an escaped code point only as a whole."""
        found = _TEXT.match(self._text, self._place)
        end = self._place if found is None else found.end()
        if self._text.startswith("\\u", end):
            whole = _WHOLE.match(self._text, self._place)
            if whole is None:
                return None
            end = whole.end()
        shown = _json(json.loads(f'"{self._text[self._place : end]}"'))[1:-1]
        self._place = end
        if self._text.startswith('"', end):
            self._place += 1
            self._step = self._key
            return iter((shown, '"'))
        if end < len(self._text) and self._text[end] != "\\":
            raise ValueError("no JSON")
        return iter([shown]) if shown else None


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
