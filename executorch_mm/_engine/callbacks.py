"""What callers hand in to be called."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from executorch_mm.errors import InputError, shown

ResultT = TypeVar("ResultT")


def checked_callback(callback: Callable[..., ResultT], name: str) -> Callable[..., ResultT]:
    """The callback, for use inside of generators.

    There Python makes a nameless RuntimeError of the two exceptions by which iterators end.

    Args:
        callback: What was handed in.
        name: Of the argument, for messages.

    Raises:
        InputError: It cannot be called; or, when it is, it raises one of the two.
    """
    if not callable(callback):
        raise InputError(f"{name}: expected something to call, got {shown(callback)}")

    def call(*arguments: object) -> ResultT:
        try:
            return callback(*arguments)
        except (StopIteration, StopAsyncIteration) as error:
            kind = type(error).__name__
            raise InputError(f"{name}: raised {kind}, which is how iterators end and no error") from error

    return call
