"""Cells of a notebook that are interrupted: streams that their variables hold would keep the runner."""

from __future__ import annotations

import sys
import threading
import weakref
from contextlib import suppress
from typing import Any, Protocol


class _Stream(Protocol):
    def close(self) -> None: ...


_open: weakref.WeakSet[Any] = weakref.WeakSet()
_shells: weakref.WeakSet[Any] = weakref.WeakSet()


def remember(stream: _Stream) -> None:
    """Has a stream of this thread closed when a cell is interrupted, if this is a notebook.

    Args:
        stream: Whoever drops it, closes it too.
    """
    ipython = sys.modules.get("IPython")
    if ipython is None or threading.current_thread() is not threading.main_thread():
        return
    shell = ipython.get_ipython()
    if shell is None:
        return
    if shell not in _shells:
        shell.events.register("post_run_cell", _after_cell)
        _shells.add(shell)
    _open.add(stream)


def _after_cell(result: Any = None) -> None:
    """IPython tells what came of a cell."""
    if isinstance(getattr(result, "error_in_exec", None), KeyboardInterrupt):
        for stream in list(_open):
            with suppress(ValueError):  # it is running in another thread
                stream.close()
        _open.clear()
