"""Functions as tools; tools/fixtures/chat/make_messages_golden.py has transformers make their schemas."""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal, Optional, Union

from PIL.Image import Image


class Unit(enum.Enum):
    CELSIUS = "C"
    KELVIN = "K"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Odd(enum.Enum):
    NONE = None
    ONE = 1
    HALF = 0.5
    YES = True


def weather(town: str, unit: Literal["C", "F"] = "C") -> str:
    """Says what the weather is like — in a town's <own> words & units.

    Args:
        town: Its name, such as Zürich
        unit: Of the temperature
    """


def several_lines(first: str, second: int) -> dict[str, int]:
    """Does something.

    It takes a second paragraph: to say so,
    and a second line.

    Args:
        first: A description
            on more lines: with a colon,

            and a gap
        second (int, optional): With a type before it

    Returns:
        Counts by name,
        on two lines

    Raises:
        ValueError: Never.
    """


def choices(drink: str, size: int) -> None:
    """Orders.

    Args:
        drink: What to drink (choices: ["tea ", "coffee"])
        size: How much of it (Choices: [1, 2])
    """


def containers(
    names: list[str],
    pairs: list[tuple[int, float]],
    counts: dict[str, list[int]],
    anything: list,
    mapping: dict,
    couple: tuple,
) -> list[Image]:
    """Takes lists.

    Args:
        names: a
        pairs: b
        counts: c
        anything: d
        mapping: e
        couple: f

    Returns:
        Pictures
    """


def unions(
    both: int | str,
    maybe: str | None = None,
    old: Optional[float] = None,  # noqa: UP045
    older: Union[int, float, None] = None,  # noqa: UP007
    complex_: list[int] | dict[str, int] | None = None,
    same: list | tuple = (),
    sure: bool | Literal["maybe"] = True,
) -> int | None:
    """Takes either.

    Args:
        both: a
        maybe: b
        old: c
        older: d
        complex_: e
        same: f
        sure: g
    """


def enums(unit: Unit, level: Level, odd: Odd, literal: Literal[1, "a", None, True] = 1) -> Unit:
    """Takes members.

    Args:
        unit: a
        level: b
        odd: c
        literal: d
    Returns:
        A unit
    """


def media(picture: Image, anything: Any, nothing: None = None) -> Callable[[], int]:
    """Looks at a picture.

    Args:
        picture: What to look at
        anything: Whatever
        nothing: Not used
    """


def annotated(size: Annotated[int, "in pixels"], kind: "str" = "x") -> Iterable[int]:  # noqa: UP037
    """Takes annotations.

    Args:
        size: Of the picture
        kind: In quotes
    """


def many(*words: str, **options: int) -> bool:
    """Takes as many as you like.

    Args:
        words: a
        options: b
    """


def keyword_only(first: int, /, second: int, *, third: int, fourth: int = 4) -> bool:
    """Takes arguments by place and by name.

    Args:
        first: 1
        second: 2
        third: 3
        fourth: 4
    """


def no_arguments() -> float:
    """Tells the time."""


def no_hint_of_result(x: int):
    """Doubles.

    Args:
        x: A number

    Returns:
        Twice the number
    """


def description_on_the_next_line(x: int, y: int) -> int:
    """Adds.

    Args:
        x:
            The first number
        y: The second
         (indented by one more)
        z: There is no such argument
    """


def markers_in_the_text(x: int) -> int:
    """Explains what Returns: means, and Args: too.

    Args:
        x: What Raises: would do
    Returns:
        Lines are
          kept
    """


def windows(x: str) -> str:
    """Reads a path such as C:\\Users or file: this.

    Args:
      x: A path: such as C:\\Users
      note: not an argument
    """


async def asynchronous(x: str) -> str:
    """Waits.

    Args:
        x: For what
    """


def _logged(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: object, **kwargs: object) -> object:
        return function(*args, **kwargs)

    return call


@_logged
def wrapped(x: str, n: int = 3) -> str:
    """Repeats.

    Args:
        x: What
        n: How often
    """


class Shop:
    """A place with methods."""

    def order(self, item: str, count: int = 1) -> bool:
        """Orders.

        Args:
            item: What to order
            count: How many
        """

    @classmethod
    def close(cls, now: bool) -> None:
        """Closes.

        Args:
            now: At once
        """

    @staticmethod
    def greet(name: str) -> str:
        """Greets.

        Args:
            name: Whom
        """


FUNCTIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        *(weather, several_lines, choices, containers, unions, enums, media, annotated, many, keyword_only),
        *(no_arguments, no_hint_of_result, description_on_the_next_line, markers_in_the_text, windows),
        *(asynchronous, wrapped, Shop().order, Shop.close, Shop.greet),
    )
}


# Functions that transformers refuses, with what our error has to say.


def no_docstring(x: int) -> int: ...


def no_hint(x) -> int:
    """Has none.

    Args:
        x: A number
    """


def no_description(x: int, y: int) -> int:
    """Describes one.

    Args:
        x: A number
    """


def unknown_class(x: Shop) -> int:
    """Takes an object.

    Args:
        x: A shop
    """


def unknown_generic(x: set[int]) -> int:
    """Takes a set.

    Args:
        x: Numbers
    """


def unknown_name(x: "Missing") -> int:  # type: ignore[name-defined]  # noqa: F821, UP037
    """Names a type that is nowhere.

    Args:
        x: A number
    """


def tuple_of_any_length(x: tuple[int, ...]) -> int:
    """Takes numbers.

    Args:
        x: Numbers
    """


def tuple_of_one(x: tuple[int]) -> int:
    """Takes a number.

    Args:
        x: A number
    """


def broken_choices(x: str) -> int:
    """Chooses.

    Args:
        x: One of (choices: a, b)
    """


def literal_bytes(x: Literal[b"a"]) -> int:
    """Takes bytes.

    Args:
        x: Bytes
    """


REFUSED: dict[Callable[..., Any], str] = {
    no_docstring: "expected a docstring",
    no_hint: "expected a type for argument 'x'",
    no_description: "expected a description of 'y'",
    unknown_class: "argument 'x': expected int, float, str",
    unknown_generic: "argument 'x': expected int, float, str",
    unknown_name: "its types cannot be told",
    tuple_of_any_length: "expected a list, or a tuple of two or more types",
    tuple_of_one: "expected a list, or a tuple of two or more types",
    broken_choices: "expected JSON in \\(choices: ...\\), got 'a, b'",
    literal_bytes: "expected values that are int, float, str, bool or None",
    (lambda x: x): "expected a docstring",
}
