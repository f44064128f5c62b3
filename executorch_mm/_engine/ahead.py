"""Work that is begun before its turn comes, and handed out in order."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Literal, TypeAlias, TypeVar

from executorch_mm._loading.background import Background
from executorch_mm.errors import (
    BusyError,
    ExecutorchMMError,
    ForkError,
    InputError,
    IsolatedProcessError,
    shown,
)

RequestT = TypeVar("RequestT")
ResultT = TypeVar("ResultT")

OnError: TypeAlias = Literal["raise", "return"]
_MOST_AHEAD = 1024


def in_order(
    requests: Iterator[RequestT], work: Callable[[RequestT], ResultT], ahead: int
) -> Generator[Callable[[], ResultT], None, None]:
    """Does something for each of many requests, some of them at the same time.

    Requests are asked for on the reader's thread, and never more of them than may be under way. What their
    iterator raises is raised when all results before it have been given out. Closing waits for what is under
    way and begins nothing more.

    Args:
        requests: Any number of them.
        work: What is done for one, on a thread beside the reader's.
        ahead: How many are begun before they are asked for; with 0 all is done on the reader's thread.

    Yields:
        For each request, in order, a function that gives its result or raises what came of it.
    """
    begun: deque[Background[ResultT]] = deque()
    failures: list[Exception] = []
    taken = _until_failure(requests, failures)
    try:
        while True:
            for request in islice(taken, ahead + 1 - len(begun)):
                begun.append(Background(partial(work, request), starts=ahead > 0))
            if not begun:
                break
            yield begun.popleft().result
        if failures:
            raise failures.pop()
    finally:
        for under_way in begun:
            under_way.wait()


def _until_failure(requests: Iterator[RequestT], failures: list[Exception]) -> Iterator[RequestT]:
    try:
        for request in requests:  # noqa: UP028 (yield from closes the caller's generator)
            yield request
    except Exception as error:  # noqa: BLE001 (raised in its turn)
        failures.append(error)


def checked_requests(requests: Iterable[RequestT], name: str = "requests") -> Iterator[RequestT]:
    """What gives the requests.

    Raises:
        InputError: It cannot be iterated over, or is one text.
    """
    if not isinstance(requests, (str, bytes)):
        with contextlib.suppress(TypeError):
            return iter(requests)
    raise InputError(f"{name}: expected an iterable of {name}, got {shown(requests)}")


def checked_ahead(prefetch: object) -> int:
    """How many requests are made ready ahead.

    Raises:
        InputError: It is no such number.
    """
    if isinstance(prefetch, bool) or not isinstance(prefetch, int) or not 0 <= prefetch <= _MOST_AHEAD:
        raise InputError(f"prefetch: expected 0 to {_MOST_AHEAD}, got {shown(prefetch)}")
    return prefetch


def checked_on_error(on_error: object) -> OnError:
    """What is done with errors.

    Raises:
        InputError: It is neither word.
    """
    if isinstance(on_error, str) and on_error == "raise":
        return "raise"
    if isinstance(on_error, str) and on_error == "return":
        return "return"
    raise InputError(f"on_error: expected 'raise' or 'return', got {shown(on_error)}")


def result_or_error(work: Callable[[], ResultT], on_error: OnError) -> ResultT | ExecutorchMMError:
    """What work for a request gives, or why there is no result.

    Raises:
        ExecutorchMMError: An error that is to be raised, or one of no single request.
    """
    try:
        return work()
    except ExecutorchMMError as error:
        is_closed = type(error) is ExecutorchMMError
        if (
            on_error == "raise"
            or is_closed
            or isinstance(error, (BusyError, ForkError, IsolatedProcessError))
        ):
            raise
        return error
