"""Bodies of requests: bounded while they are read, JSON objects, their fields."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn, cast

from starlette.requests import ClientDisconnect, Request

from executorch_mm.errors import shown
from executorch_mm.server.connection import ClientGone
from executorch_mm.server.failures import ApiError, invalid

_BODIES = 4  # of the largest size may be in memory at a time
_SECONDS = 60.0  # that a body may take to arrive
_IN_THREAD = 1 << 18  # bytes above which JSON is read beside the event loop


class Bodies:
    """Reads the bodies of requests.

    Args:
        max_bytes: Of one body.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._room = _BODIES * max_bytes

    @contextmanager
    def held(self) -> Iterator[Body]:
        """One body, as long as what it says is in memory."""
        body = Body(self)
        try:
            yield body
        finally:
            self._room += body.num_bytes

    def take(self, body: Body, num_bytes: int) -> None:
        """Counts bytes that have come.

        Raises:
            ApiError: 413, the body is too large; 429, all bodies together are.
        """
        if body.num_bytes + num_bytes > self._max_bytes:
            raise ApiError(413, f"body: expected at most {self._max_bytes} bytes", "body", "body_too_large")
        if num_bytes > self._room:
            raise ApiError(429, "too much is being sent: try again later", code="busy", retry_after=1)
        self._room -= num_bytes
        body.num_bytes += num_bytes

    def expect(self, headers: Mapping[str, str]) -> None:
        """Refuses a body that says it is too large, before it is read.

        Raises:
            ApiError: 413.
        """
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length[:20]) > self._max_bytes:
            raise ApiError(413, f"body: expected at most {self._max_bytes} bytes", "body", "body_too_large")


class Body:
    """The body of a request.

    Args:
        bodies: Counts its bytes.

    Attributes:
        num_bytes: That have come.
    """

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self.num_bytes = 0

    async def json(self, request: Request) -> Fields:
        """The JSON object in it.

        Raises:
            ApiError: 400, it is none; 408, it comes too slowly; 413, it is too large; 415, it is said to be
                something else.
            ClientGone: The client went away.
        """
        kind = request.headers.get("content-type", "")
        if kind.partition(";")[0].strip().lower() != "application/json":
            raise ApiError(415, f"Content-Type: expected application/json, got {shown(kind)}", "Content-Type")
        data = await self._read(request)
        value = await asyncio.to_thread(_parse, data) if len(data) > _IN_THREAD else _parse(data)
        if not isinstance(value, dict):
            raise ApiError(400, f"body: expected a JSON object, got {_kind(value)}", "body")
        return Fields(value)

    async def _read(self, request: Request) -> bytes:
        self._bodies.expect(request.headers)
        try:
            return await asyncio.wait_for(self._parts(request), _SECONDS)
        except asyncio.TimeoutError:
            raise ApiError(408, f"body: expected within {_SECONDS:.0f} s", "body", "timeout") from None
        except ClientDisconnect:
            raise ClientGone from None

    async def _parts(self, request: Request) -> bytes:
        parts = []
        async for part in request.stream():
            self._bodies.take(self, len(part))
            parts.append(part)
        return b"".join(parts)


def _parse(data: bytes) -> object:
    try:
        return json.loads(data, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"body: expected JSON ({error})", "body", "invalid_json") from None


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON")


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

    def take(self, name: str) -> Any:
        """A value; None where there is none."""
        self._known.add(name)
        return self.values.get(name)

    def text(self, name: str) -> str | None:
        """A text.

        Raises:
            ApiError: 400, it is something else.
        """
        return cast("str | None", self._of(name, str, "a text"))

    def flag(self, name: str) -> bool:
        """A truth value; False where there is none.

        Raises:
            ApiError: 400, it is something else.
        """
        return bool(self._of(name, bool, "true or false"))

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

    def fields(self, name: str) -> Fields | None:
        """An object.

        Raises:
            ApiError: 400, it is something else.
        """
        value = self._of(name, dict, "an object")
        return None if value is None else Fields(cast("dict[str, Any]", value), f"{self._where}{name}.")

    def items(self, name: str) -> list[Any] | None:
        """A list.

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
        if value is not None and value not in allowed:
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


def _kind(value: object) -> str:
    return {list: "a list", str: "a text", type(None): "null"}.get(type(value), "a number or a truth value")
