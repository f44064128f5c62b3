"""Bodies of requests: bounded while they are read, JSON objects, their fields."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Iterator, Mapping
from contextlib import contextmanager
from typing import NoReturn, TypeVar

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from executorch_mm._openai.failures import ApiError
from executorch_mm._openai.fields import Fields
from executorch_mm.errors import shown
from executorch_mm.server.connection import ClientGone

ResultT = TypeVar("ResultT")

_MOST_FIELDS = 64  # of a form
_BODIES = 4  # of the largest size may be in memory at a time
_SECONDS = 60.0  # that a body may take to arrive
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")  # of a surrogate pair, perhaps with the other one beside it
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
        _expect_type(request, "application/json")
        self._bodies.expect(request.headers)
        data = await self._read(request)
        value = await asyncio.to_thread(_parse, data) if len(data) > _IN_THREAD else _parse(data)
        if not isinstance(value, dict):
            raise ApiError(400, f"body: expected a JSON object, got {_kind(value)}", "body")
        return Fields(value)

    async def form(self, request: Request) -> Fields:
        """The fields of a form (multipart/form-data): files are bytes, fields whose names end in [] lists.

        Raises:
            ApiError: 400, it is none; 408, it comes too slowly; 413, it is too large; 415, it is said to be
                something else.
            ClientGone: The client went away.
        """
        _expect_type(request, "multipart/form-data")
        self._bodies.expect(request.headers)

        async def counted() -> Message:
            message = await request.receive()
            self._bodies.take(self, len(message.get("body", b"")))
            return message

        form = Request(request.scope, counted)
        try:
            sent = await self._in_time(form.form(max_files=1, max_fields=_MOST_FIELDS))
        except HTTPException as error:  # of Starlette's: it is no form
            raise ApiError(400, f"body: {error.detail}", "body", "invalid_form") from None
        try:
            files = {name: await file.read() for name, file in sent.items() if isinstance(file, UploadFile)}
        finally:
            await sent.close()
        lists = {name: sent.getlist(name) for name in sent if name.endswith("[]")}
        return Fields({**sent, **lists, **files})

    async def _read(self, request: Request) -> bytes:
        return await self._in_time(self._parts(request))

    async def _in_time(self, reading: Awaitable[ResultT]) -> ResultT:
        try:
            return await asyncio.wait_for(reading, _SECONDS)
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


def _expect_type(request: Request, wanted: str) -> None:
    given = request.headers.get("content-type", "")
    if given.partition(";")[0].strip().lower() != wanted:
        raise ApiError(415, f"Content-Type: expected {wanted}, got {shown(given)}", "Content-Type")


def _parse(data: bytes) -> object:
    try:
        value = json.loads(data.decode("utf-8-sig"), parse_constant=_refuse)
        if _HALF.search(data):
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except UnicodeEncodeError:
        message = "body: expected texts of Unicode, got one with half of a surrogate pair"
        raise ApiError(400, message, "body", "invalid_json") from None
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"body: expected JSON ({error})", "body", "invalid_json") from None


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON")


def _kind(value: object) -> str:
    return {list: "a list", str: "a text", type(None): "null"}.get(type(value), "a number or a truth value")
