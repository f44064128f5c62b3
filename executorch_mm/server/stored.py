"""Responses that are kept, so that clients can go on from them: the newest, in memory, up to a bound."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_OVERHEAD = 100  # bytes of a value beside its text


@dataclass(frozen=True)
class StoredResponse:
    """A response and what it came of.

    Attributes:
        response: As its client got it.
        messages: The conversation with the answer, without instructions, which are each request's own.
    """

    response: dict[str, Any]
    messages: Sequence[dict[str, Any]]


class StoredResponses:
    """Keeps responses; the one that was used longest ago goes first.

    Args:
        most: Responses.
        max_bytes: Of them all.

    Attributes:
        num_bytes: That they take now, about.
    """

    def __init__(self, most: int, max_bytes: int) -> None:
        self._most = most
        self._max_bytes = max_bytes
        self._kept: OrderedDict[str, tuple[StoredResponse, int]] = OrderedDict()
        self.num_bytes: int = 0

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, name: str, response: StoredResponse) -> None:
        """Keeps a response; one that is larger than all of them may be is not kept.

        Args:
            name: Its id.
            response: The response.
        """
        self.forget(name)
        num_bytes = _size(response.response) + sum(map(_size, response.messages))
        if self._most == 0 or num_bytes > self._max_bytes:
            return
        self._kept[name] = (response, num_bytes)
        self.num_bytes += num_bytes
        while len(self._kept) > self._most or self.num_bytes > self._max_bytes:
            self.forget(next(iter(self._kept)))

    def get(self, name: str) -> StoredResponse | None:
        """A response; None where there is none any more.

        Args:
            name: Its id.
        """
        if name not in self._kept:
            return None
        self._kept.move_to_end(name)
        return self._kept[name][0]

    def forget(self, name: str) -> bool:
        """Lets a response go; says whether it was there.

        Args:
            name: Its id.
        """
        _, num_bytes = self._kept.pop(name, (None, -1))
        self.num_bytes -= max(num_bytes, 0)
        return num_bytes >= 0


def _size(value: object) -> int:
    """Bytes in memory, about."""
    num_bytes, rest = 0, [value]
    while rest:
        one = rest.pop()
        num_bytes += _OVERHEAD
        if isinstance(one, dict):
            rest += [*one, *one.values()]
        elif isinstance(one, list):
            rest += one
        elif isinstance(one, str):
            num_bytes += len(one) * (1 if one.isascii() else 4)
    return num_bytes
