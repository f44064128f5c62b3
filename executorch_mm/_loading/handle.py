"""A loaded program: in one process, until it is closed."""

from __future__ import annotations

import os
from typing import Generic, TypeVar

from executorch_mm.errors import ExecutorchMMError, ForkError

LoadedT = TypeVar("LoadedT")


class Handle(Generic[LoadedT]):
    """Hands out what was loaded where it may be used.

    Args:
        loaded: What was loaded, by this process.
        what: Its name for messages, such as "runner".
    """

    def __init__(self, loaded: LoadedT, what: str) -> None:
        self._loaded: LoadedT | None = loaded  # None once closed
        self._what = what
        self._process = os.getpid()

    @property
    def is_forked(self) -> bool:
        """Whether this is a child of the process that loaded it."""
        return os.getpid() != self._process

    @property
    def is_closed(self) -> bool:
        """Whether it has been closed."""
        return self._loaded is None

    def expect_usable(self) -> None:
        """Refuses a forked child.

        Raises:
            ForkError: This is one.
        """
        if self.is_forked:
            raise ForkError(
                f"the {self._what} was loaded in process {self._process} and cannot be used in a child that "
                f"was forked from it, which has none of its threads: load a {self._what} in each process, "
                "after the fork"
            )

    def get(self) -> LoadedT:
        """What was loaded.

        Raises:
            ExecutorchMMError: It is closed.
            ForkError: This is a forked child.
        """
        self.expect_usable()
        if self._loaded is None:
            raise ExecutorchMMError(f"the {self._what} is closed")
        return self._loaded

    def close(self) -> None:
        """Lets go of it."""
        self._loaded = None
