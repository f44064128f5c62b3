"""Fields of JSON objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias, cast

from executorch_mm._openai.failures import invalid
from executorch_mm.errors import shown

Schema: TypeAlias = Mapping[str, object]
"""A JSON schema."""


class Fields:
    """The fields of a JSON object. null counts as not given, as in OpenAI's API.

    Args:
        values: By name.
        where: The object stands, as in "stream_options."; "" for the body itself.

    Attributes:
        values: As above.
    """

    def __init__(self, values: Mapping[str, Any], where: str = "") -> None:
        self.values = values
        self._where = where
        self._known: set[str] = set()

    def take(self, name: str, schema: Schema | None = None) -> Any:  # noqa: ARG002 (for `Described`)
        """A value; None where there is none.

        Args:
            name: Of the field.
            schema: What the caller takes, for a description of the fields; it is not looked at here.
        """
        self._known.add(name)
        return self.values.get(name)

    def text(self, name: str) -> str | None:
        """A text.

        Raises:
            ApiError: 400, it is something else.
        """
        return cast("str | None", self._of(name, str, "a text"))

    def flag(self, name: str, default: bool = False) -> bool:
        """A truth value, or what stands for none.

        Raises:
            ApiError: 400, it is something else.
        """
        value = self._of(name, bool, "true or false")
        return default if value is None else bool(value)

    def integer(self, name: str, least: int, most: int = 2**31 - 1) -> int | None:
        """An integer.

        Raises:
            ApiError: 400, it is something else or out of range.
        """
        value = self.take(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise invalid(self._where + name, f"expected an integer of {least} to {most}, got {shown(value)}")
        return value

    def choice(self, name: str, *allowed: str) -> str | None:
        """One of a few texts.

        Raises:
            ApiError: 400, it is something else.
        """
        value = self.take(name)
        if value is not None and value not in allowed:
            raise invalid(self._where + name, f"expected one of {', '.join(allowed)}, got {shown(value)}")
        return cast("str | None", value)

    def fields(self, name: str) -> Fields | None:
        """An object.

        Raises:
            ApiError: 400, it is something else.
        """
        value = self._of(name, dict, "an object")
        return None if value is None else Fields(cast("dict[str, Any]", value), f"{self._where}{name}.")

    def items(self, name: str, each: Schema | None = None) -> list[Any] | None:  # noqa: ARG002
        """A list.

        Args:
            name: Of the field.
            each: What the caller takes as an item; see `take`.

        Raises:
            ApiError: 400, it is something else.
        """
        return cast("list[Any] | None", self._of(name, list, "a list"))

    def refuse(self, name: str, why: str, *allowed: object) -> None:
        """Refuses a field that asks for something that is not there.

        Args:
            name: Of the field.
            why: For the message.
            *allowed: Values that ask for nothing.

        Raises:
            ApiError: 400, the field asks for something.
        """
        value = self.take(name)
        # True is 1 for Python, but not for JSON.
        if value is not None and not any(type(value) is type(each) and value == each for each in allowed):
            raise invalid(self._where + name, why, "unsupported_value")

    def ignore(self, *names: str) -> None:
        """Passes over fields that change nothing here."""
        self._known.update(names)

    def finish(self) -> None:
        """Refuses what has not been taken.

        Raises:
            ApiError: 400, there is a field that nobody knows.
        """
        for name in self.values:
            if name not in self._known:
                raise invalid(self._where + name, "there is no such field", "unknown_parameter")

    def _of(self, name: str, kind: type, expected: str) -> object:
        value = self.take(name)
        if value is not None and not isinstance(value, kind):
            raise invalid(self._where + name, f"expected {expected}, got {shown(value)}")
        return value
