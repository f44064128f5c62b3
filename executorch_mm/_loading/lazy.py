"""Values that are built when they are first asked for, and once whatever threads ask."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

ValueT = TypeVar("ValueT")


class BuiltOnce(Generic[ValueT]):
    """A property whose value is kept; what `functools.cached_property` no longer is from Python 3.12 on.

    An exception is not kept: the next who asks tries again.
    """

    def __init__(self, build: Callable[[Any], ValueT]) -> None:
        self._build = build
        self._name = build.__name__
        self.__doc__ = build.__doc__

    @overload
    def __get__(self, owner: None, kind: type) -> BuiltOnce[ValueT]: ...
    @overload
    def __get__(self, owner: object, kind: type) -> ValueT: ...
    def __get__(self, owner: object, kind: type) -> BuiltOnce[ValueT] | ValueT:
        if owner is None:
            return self
        kept = vars(owner)  # found there from then on, without coming here
        lock: threading.RLock = kept.setdefault(f"{self._name} is built", threading.RLock())
        with lock:
            if self._name not in kept:
                kept[self._name] = self._build(owner)
            value: ValueT = kept[self._name]
            return value


def once(build: Callable[[], ValueT]) -> Callable[[], ValueT]:
    """A function without parameters that always returns the value of its first call.

    `functools.cache` lets two threads build a value each.
    """
    lock = threading.RLock()
    kept: list[ValueT] = []

    def value() -> ValueT:
        if not kept:
            with lock:
                if not kept:
                    kept.append(build())
        return kept[0]

    return value
