"""What is done for a client, as long as it is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Coroutine
from contextlib import aclosing
from typing import Any, Protocol, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from executorch_mm._openai.failures import ApiError
from executorch_mm.server.failures import response_of

ResultT = TypeVar("ResultT")

_MOST_TOGETHER = 1 << 16  # bytes


class ClientGone(Exception):  # noqa: N818 (no error: nobody is left to be told)
    """The client has closed its connection."""


class Work:
    """What the server does for its clients now.

    For the tasks of one event loop.

    Attributes:
        is_ending: Whether the server has been told to stop.
    """

    def __init__(self) -> None:
        self.is_ending = False
        self._ends: set[asyncio.Future[None]] = set()

    @property
    def count(self) -> int:
        """Requests that are under way."""
        return len(self._ends)

    async def run(
        self, receive: Receive, work: Coroutine[Any, Any, ResultT], *, is_begun: bool = False
    ) -> ResultT:
        """Does something, whose body the client has sent, and stops where the client goes away.

        Args:
            receive: Of the connection.
            work: Is cancelled then, and awaited.
            is_begun: It goes on with an answer, also where the server has been told to stop since.

        Raises:
            ClientGone: The client has gone away.
            ApiError: 503, the server ends.
        """
        if self.is_ending and not is_begun:
            work.close()
            raise ending()
        end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ends.add(end)
        task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait((task, gone, end), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise ending() if end.done() else ClientGone
        finally:
            self._ends.discard(end)
            gone.cancel()
            task.cancel()
            await asyncio.gather(task, gone, return_exceptions=True)

    def end(self) -> None:
        """Ends what is under way, before the model's next step."""
        for end in self._ends:
            if not end.done():
                end.set_result(None)


def ending() -> ApiError:
    """What clients hear of a server that ends."""
    return ApiError(503, "the server is being stopped: try again later", code="stopping", retry_after=5)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Pace(Protocol):
    """When what is written is sent."""

    @property
    def has_next(self) -> bool:
        """Whether the next event comes without being waited for."""
        ...

    async def rest(self) -> None:
        """Waits before the next is looked for."""
        ...


class EventStream(Response):
    """Server-sent events.

    Args:
        work: Of the server.
        events: Each ready to be sent; closed in the end, also where the client goes away.
        pace: Says which are sent together; None for each by itself.
    """

    media_type = "text/event-stream"

    def __init__(self, work: Work, events: AsyncGenerator[bytes, None], pace: Pace | None = None) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        self._work = work
        self._events = events
        self._pace = pace

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Sends them."""
        headers = [pair for pair in self.raw_headers if pair[0] != b"content-length"]
        await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
        try:
            await self._work.run(receive, self._send(send), is_begun=True)
        except ApiError as error:  # the server ends: it has begun to answer, and says so where it leaves off
            await send_event(send, error_event(error))
        except ClientGone:
            return
        await send({"type": "http.response.body", "body": b""})

    async def _send(self, send: Send) -> None:
        async with aclosing(self._events) as events:
            data = b""
            async for event in events:
                data += event
                if self._pace is not None and self._pace.has_next and len(data) < _MOST_TOGETHER:
                    continue
                await send_event(send, data)
                data = b""
                if self._pace is not None:
                    await self._pace.rest()
            if data:
                await send_event(send, data)


def send_event(send: Send, event: bytes) -> Awaitable[None]:
    """Sends an event; more come."""
    return send({"type": "http.response.body", "body": event, "more_body": True})


def error_event(error: ApiError) -> bytes:
    """An error in the middle of a stream, as OpenAI's client understands it."""
    return b"data: " + bytes(response_of(error).body) + b"\n\n"
