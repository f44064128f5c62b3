"""How many requests to a model may be under way at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from typing import TypeVar

from executorch_mm.errors import QueueFullError

ResultT = TypeVar("ResultT")
PieceT = TypeVar("PieceT")


class Admission:
    """Counts the requests that are under way: each of them waits for its next turn, or has one.

    Args:
        most: How many there may be; None for any number.

    Attributes:
        most: The same.
    """

    def __init__(self, most: int | None = None) -> None:
        self.most = most
        self._count = 0
        self._change = threading.Lock()

    @property
    def count(self) -> int:
        """How many there are."""
        return self._count

    def call(self, request: Callable[[], ResultT]) -> ResultT:
        """Counts a request while it is under way.

        Raises:
            QueueFullError: There are as many as may be.
        """
        taken: list[None] = []
        try:
            self._enter(taken)
            return request()
        finally:
            self._leave(taken)

    def stream(self, request: Callable[[], Generator[PieceT, None, None]]) -> Generator[PieceT, None, None]:
        """The same for one that gives out pieces."""
        taken: list[None] = []
        try:
            self._enter(taken)
            yield from request()
        finally:
            self._leave(taken)

    def _enter(self, taken: list[None]) -> None:
        with self._change:
            if self.most is not None and self._count >= self.most:
                raise QueueFullError(
                    f"max_requests: {self.most} requests to the model are under way: try again later"
                )
            self._count += 1
            taken.append(None)

    def _leave(self, taken: list[None]) -> None:
        with self._change:
            self._count -= len(taken)
