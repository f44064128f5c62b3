"""How much a chat template may do, and the refusal of more.

What one operation takes is bounded by the sizes that go into it, which are checked before; how many there are
is counted. So an end comes within about a second, and memory within `MAX_BYTES`, whatever the source.
"""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from typing import TypeVar, cast

from jinja2.exceptions import SecurityError
from jinja2.runtime import Undefined
from jinja2.utils import Namespace

_T = TypeVar("_T")

MAX_STEPS = 500_000  # passes of loops, calls, operators, filters
MAX_SECONDS = 1.0  # of the thread's processor time
MAX_DEPTH = 100  # of calls within calls
MAX_CHARS = 10_000_000  # of one text, of a list with all that is in it, and written in all
MAX_BYTES = 256 * 2**20  # of all texts and lists that are made
MAX_SOURCE = 256_000  # characters of a template: the longest published ones have 40,000
MAX_NESTING = 60  # of brackets, and of blocks
MAX_BITS = 64  # of a whole number
MAX_WIDTH = 1000  # of a format, of an indentation
_ITEM = 10  # what an item of a list counts in characters
_NUMBER = re.compile(r"\d+")


class Budget:
    """What one rendering may still use."""

    def __init__(self) -> None:
        self._steps = 0
        self._chars = 0
        self._bytes = 0
        self.depth = 0
        self._end = time.thread_time() + MAX_SECONDS

    def step(self) -> None:
        """Counts an operation.

        Raises:
            SecurityError: There were too many, or they have taken too long.
        """
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise SecurityError(f"stopped after {MAX_STEPS} passes of loops and calls")
        if time.thread_time() > self._end:
            raise SecurityError(f"stopped after {MAX_SECONDS:g} s")

    def made(self, value: _T) -> _T:
        """Counts the result of an operation.

        Raises:
            SecurityError: It is too large, or all of them together are.
        """
        self.step()
        checked(value)
        if isinstance(value, (str, list, tuple, dict)):
            self._bytes += sys.getsizeof(value)
            if self._bytes > MAX_BYTES:
                raise SecurityError(f"stopped after making {MAX_BYTES} bytes of texts and lists")
        return value

    def write(self, text: str) -> str:
        """Counts what is written, into the answer or into a variable."""
        self._chars += len(text)
        check_size(self._chars)
        return self.made(text)


class Current(threading.local):
    """The budget of the rendering that this thread is in."""

    def __init__(self) -> None:
        self.budget: Budget = Budget()


def checked(value: _T) -> _T:
    """Refuses texts, lists and mappings that are too large with all that is in them, and huge numbers.

    Raises:
        SecurityError: There is more in it than `MAX_CHARS`, or a number has more than `MAX_BITS`.
    """
    if isinstance(value, str):
        check_size(len(value))
    elif isinstance(value, int):
        if value.bit_length() > MAX_BITS:
            raise SecurityError(f"stopped at a number of more than {MAX_BITS} bits")
    elif isinstance(value, (list, tuple, dict)):
        _check_items(value)
    return value


def _check_items(value: object) -> None:
    size, waiting = 0, [value]
    while waiting:
        item = waiting.pop()
        size += _ITEM + len(item) if isinstance(item, str) else _ITEM
        if isinstance(item, dict):
            waiting += [*item.keys(), *item.values()]
        elif isinstance(item, (list, tuple)):
            waiting += item
        elif isinstance(item, Namespace):
            raise SecurityError("a namespace may not be put into a list or mapping")
        check_size(size + _ITEM * len(waiting))


def check_size(size: int) -> None:
    """Refuses texts and lists that are too long, and work on them.

    Raises:
        SecurityError: `size` is above `MAX_CHARS`.
    """
    if size > MAX_CHARS:
        raise SecurityError(f"stopped at a text or list of more than {MAX_CHARS} characters or items")


def check_width(*widths: object) -> None:
    """Refuses a width, an indentation or a count that is too large; others than numbers are nobody's width.

    Raises:
        SecurityError: One is above `MAX_WIDTH`.
    """
    for width in widths:
        size = len(width) if isinstance(width, str) else abs(width) if isinstance(width, int) else 0
        if size > MAX_WIDTH:
            raise SecurityError(f"stopped at a width of {size}: expected at most {MAX_WIDTH}")


def text_of(value: object) -> str:
    """A value as text.

    Raises:
        SecurityError: It is too large, or a namespace, which may hold itself.
    """
    if isinstance(value, str):
        return value
    if not isinstance(value, (int, float, list, tuple, dict, Undefined, type(None))):
        name = type(value).__name__
        if isinstance(value, Namespace) or not hasattr(value, "__html__"):
            raise SecurityError(f"stopped at a {name} where a text was expected")
    return str(checked(value))


def check_format(mark: str, text: str, values: Iterable[object]) -> None:
    """Refuses a format whose result would be huge.

    Args:
        mark: "%" or "{".
        text: The format.
        values: What is put into it.

    Raises:
        SecurityError: It asks for large widths, or takes them from the values.
    """
    if (
        re.search(r"%[^a-zA-Z%]*\*", text)
        if mark == "%"
        else re.search(r"\{[^{}]*\{", text.replace("{{", ""))
    ):
        raise SecurityError("stopped at a format that takes widths from its values")
    for number in _NUMBER.findall(text):
        if len(number) > 6 or int(number) > MAX_WIDTH:
            raise SecurityError(f"stopped at a format with the number {number[:20]}: at most {MAX_WIDTH}")
    largest = max((len(text_of(value)) for value in values), default=0)
    check_size(len(text) + text.count(mark) * (largest + MAX_WIDTH if _NUMBER.search(text) else largest))


def check_product(left: object, right: object) -> None:
    """Refuses to repeat a text or list too often."""
    for one, other in ((left, right), (right, left)):
        if isinstance(one, int) and isinstance(other, (str, list, tuple)):
            check_size(max(one, 0) * max(len(other), 1))


def check_power(left: object, right: object) -> None:
    """Refuses powers that are huge, before they are computed."""
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() * abs(right) > 2 * MAX_BITS:
        raise SecurityError(f"stopped at a number of more than {MAX_BITS} bits")


# Methods that templates use of what they are given, each at most as large as its arguments or checked below.
METHODS: Mapping[type, frozenset[str]] = {
    str: frozenset(
        [
            "capitalize",
            "casefold",
            "center",
            "count",
            "endswith",
            "find",
            "format",
            "index",
            "isalnum",
            "isalpha",
            "isascii",
            "isdecimal",
            "isdigit",
            "isidentifier",
            "islower",
            "isnumeric",
            "isprintable",
            "isspace",
            "istitle",
            "isupper",
            "join",
            "ljust",
            "lower",
            "lstrip",
            "partition",
            "removeprefix",
            "removesuffix",
            "replace",
            "rfind",
            "rindex",
            "rjust",
            "rpartition",
            "rsplit",
            "rstrip",
            "split",
            "splitlines",
            "startswith",
            "strip",
            "swapcase",
            "title",
            "upper",
            "zfill",
        ]
    ),
    dict: frozenset(["copy", "get", "items", "keys", "values"]),
    list: frozenset(["copy", "count", "index"]),
    tuple: frozenset(["count", "index"]),
    int: frozenset(["bit_length"]),
    float: frozenset(["is_integer"]),
}


def check_method(owner: object, name: str, args: tuple[object, ...]) -> None:
    """Refuses a method that is not in `METHODS`, or whose result or work would be huge.

    Raises:
        SecurityError: As said.
    """
    kind = next((kind for kind in METHODS if isinstance(owner, kind)), None)
    if kind is None or name not in METHODS[kind]:
        raise SecurityError(f"unsafe: a template may not call {type(owner).__name__}.{name}")
    if isinstance(owner, str):
        _check_text_method(owner, name, args)


def _check_text_method(text: str, name: str, args: tuple[object, ...]) -> None:
    if name in {"center", "ljust", "rjust", "zfill"}:
        check_width(*args[:1])
    elif name in {"strip", "lstrip", "rstrip"}:
        check_strip(text, *args)
    elif name == "replace" and len(args) >= 2:
        check_replace(text, args[0], args[1])
    elif name == "join" and args:
        check_join(text, args[0])


def check_strip(text: str, chars: object = None, *_: object) -> None:
    """Refuses to look for so many characters at the ends of a text that it takes long."""
    if isinstance(chars, str):
        check_size(len(chars) * min(len(text), 1000))
        check_width(chars)


def check_replace(text: str, old: object, new: object) -> None:
    """Refuses a replacement whose result would be huge."""
    if isinstance(old, str) and isinstance(new, str):
        check_size(len(text) + text.count(old) * len(new))


def check_join(between: object, items: object) -> list[object]:
    """The items to join as a list, unless the result would be huge."""
    found = list(cast("Iterable[object]", items))
    length = sum(len(item) if isinstance(item, str) else len(text_of(item)) for item in found)
    check_size(length + len(text_of(between)) * len(found))
    return found
