"""Who is answered now, who waits, and who has to come again."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from executorch_mm._openai.failures import ApiError


class Places:
    """Places for requests that are answered at the same time, and for those that wait, in their order.

    For the tasks of one event loop.

    Args:
        max_running: Requests that are answered at the same time.
        max_waiting: Requests that wait for their place.

    Attributes:
        num_running: Those that are answered now.
    """

    def __init__(self, max_running: int, max_waiting: int) -> None:
        self._max_running = max_running
        self._max_waiting = max_waiting
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._seconds = 1.0  # that a request takes, of late
        self.num_running: int = 0

    @property
    def num_waiting(self) -> int:
        """Those that wait."""
        return len(self._waiting)

    @asynccontextmanager
    async def place(self, seconds: float | None) -> AsyncIterator[None]:
        """A place, which is waited for and held for the block.

        Args:
            seconds: To wait at most.

        Raises:
            ApiError: 429, as many wait as may; 503, none came in time.
        """
        await self._enter(seconds)
        start = time.monotonic()
        try:
            yield
        finally:
            self._seconds += (time.monotonic() - start - self._seconds) / 8
            self._leave()

    async def _enter(self, seconds: float | None) -> None:
        if self.num_running < self._max_running:  # then nobody waits
            self.num_running += 1
            return
        if len(self._waiting) >= self._max_waiting:
            raise ApiError(
                429,
                f"{self.num_running} requests are being answered and {len(self._waiting)} wait: "
                "try again later",
                code="queue_full",
                retry_after=self._retry_after(),
            )
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await asyncio.wait([place], timeout=seconds)
        except asyncio.CancelledError:
            if place.done():
                self._leave()
            else:
                self._waiting.remove(place)
            raise
        if not place.done():
            self._waiting.remove(place)
            message = f"no request has made room within {seconds:.0f} s: try again later"
            raise ApiError(503, message, code="timeout", retry_after=self._retry_after())

    def _leave(self) -> None:
        """Hands the place to the one who has waited longest."""
        if self._waiting:
            self._waiting.popleft().set_result(None)
        else:
            self.num_running -= 1

    def _retry_after(self) -> int:
        rounds = (len(self._waiting) + 1) / self._max_running
        return min(max(math.ceil(self._seconds * rounds), 1), 60)
