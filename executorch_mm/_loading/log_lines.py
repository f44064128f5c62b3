"""The core's log lines on their way to Python's `logging`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from executorch_mm import _core

if TYPE_CHECKING:
    from logging import Logger


def package_logger() -> Logger:
    """The logger `executorch_mm`; nothing is printed unless the application says so."""
    import logging  # here: the package is imported faster without it

    logger = logging.getLogger("executorch_mm")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return logger


def forward_log_lines() -> None:
    """Hands the lines that the core has logged since the last time to the logger `executorch_mm`.

    The core logs on any thread and without the GIL; it keeps the lines until a call is back in Python.
    """
    lines = _core.take_log_lines()
    if not lines or "logging" not in sys.modules:  # nobody listens, and the import takes longer than a step
        return
    logger = package_logger()
    for level, file, line, text in lines:
        if logger.isEnabledFor(level):
            logger.handle(logger.makeRecord(logger.name, level, file, line, text, (), None))
