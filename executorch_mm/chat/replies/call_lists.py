"""Calls as a list of Python's: `[get_weather(city="Paris", days=3)]`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import NoReturn, TypeVar

ItemT = TypeVar("ItemT")
_SPACE = re.compile(r"[ \t\n\r]*")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:[-.][A-Za-z0-9_]+)*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_STRING = re.compile(r"""'((?:[^'\\\n\r]|\\.)*)'|"((?:[^"\\\n\r]|\\.)*)\"""", re.DOTALL)
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_ESCAPES = dict(zip("\\'\"/bfnrt", "\\'\"/\b\f\n\r\t", strict=True))
_PAIR = re.compile(r"[\ud800-\udbff][\udc00-\udfff]")
_LONE = re.compile(r"[\ud800-\udfff]")
_CONSTANTS = {"True": True, "true": True, "False": False, "false": False, "None": None, "null": None}
_LARGEST = 2**53 - 1  # integer
_DEEPEST = 100  # lists and mappings in each other


def read_call_list(text: str) -> list[dict[str, object]]:
    """The calls, each a name and arguments.

    Args:
        text: The list, with keyword arguments alone, whose values are texts, numbers, lists, mappings, True,
            False and None.

    Raises:
        ValueError: It is no such list.
    """
    return _Reader(text).calls()


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._place = 0

    def calls(self) -> list[dict[str, object]]:
        self._expect("[")
        calls = self._items("]", self._call)
        self._skip()
        if self._place != len(self._text):
            self._fail("expected the end")
        return calls

    def _fail(self, message: str) -> NoReturn:
        raise ValueError(f"{message} at character {self._place}")

    def _skip(self) -> None:
        if (space := _SPACE.match(self._text, self._place)) is not None:
            self._place = space.end()

    def _is_at(self, char: str) -> bool:
        self._skip()
        return self._text.startswith(char, self._place)

    def _expect(self, char: str) -> None:
        if not self._is_at(char):
            self._fail(f"expected {char!r}")
        self._place += 1

    def _items(self, end: str, item: Callable[[], ItemT]) -> list[ItemT]:
        items: list[ItemT] = []
        while not self._is_at(end) or items:
            items.append(item())
            if self._is_at(end):
                break
            self._expect(",")
        self._place += 1
        return items

    def _unique(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        mapping = dict(pairs)
        if len(mapping) < len(pairs):
            self._fail("expected each name once, before")
        return mapping

    def _call(self) -> dict[str, object]:
        name = self._name()
        self._expect("(")
        return {"name": name, "arguments": self._unique(self._items(")", self._argument))}

    def _argument(self) -> tuple[str, object]:
        name = self._name()
        self._expect("=")
        return name, self._value(0)

    def _name(self) -> str:
        self._skip()
        found = _NAME.match(self._text, self._place)
        if found is None:
            self._fail("expected a name")
        self._place = found.end()
        return found[0]

    def _value(self, depth: int) -> object:
        if self._is_at("'") or self._is_at('"'):
            return self._string()
        if self._is_at("[") or self._is_at("{"):
            if depth >= _DEEPEST:
                self._fail(f"expected at most {_DEEPEST} lists and mappings in each other")
            self._place += 1
            if self._text[self._place - 1] == "[":
                return self._items("]", lambda: self._value(depth + 1))
            return self._unique(self._items("}", lambda: self._pair(depth + 1)))
        if (number := _NUMBER.match(self._text, self._place)) is not None:
            return self._number(number)
        found = _NAME.match(self._text, self._place)
        if found is None or found[0] not in _CONSTANTS:
            self._fail("expected a text, number, list, mapping, True, False or None")
        self._place = found.end()
        return _CONSTANTS[found[0]]

    def _number(self, found: re.Match[str]) -> int | float:
        is_integer = found[1] is None and found[2] is None
        if is_integer and (len(found[0]) > 17 or abs(int(found[0])) > _LARGEST):
            self._fail(f"expected an integer of at most {_LARGEST}")
        if not is_integer and math.isinf(float(found[0])):
            self._fail("expected a number that is not infinite")
        self._place = found.end()
        return int(found[0]) if is_integer else float(found[0])

    def _pair(self, depth: int) -> tuple[str, object]:
        if not (self._is_at("'") or self._is_at('"')):
            self._fail("expected a text for a key")
        key = self._string()
        self._expect(":")
        return key, self._value(depth)

    def _string(self) -> str:
        found = _STRING.match(self._text, self._place)
        if found is None:
            self._fail("expected a text")
        written = found[1] if found[1] is not None else found[2]
        if _LONE.search(written):
            self._fail("expected whole characters")
        text = _ESCAPE.sub(self._escaped, written)
        text = _PAIR.sub(lambda pair: pair[0].encode("utf-16", "surrogatepass").decode("utf-16"), text)
        if _LONE.search(text):
            self._fail("expected whole characters")
        self._place = found.end()
        return text

    def _escaped(self, found: re.Match[str]) -> str:
        if found[1] is not None:
            return chr(int(found[1], 16))
        if found[2] not in _ESCAPES:
            self._fail(f"expected an escape of JSON, got {found[0]!r}")
        return _ESCAPES[found[2]]
