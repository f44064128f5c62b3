"""What a check finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "note", "warning", "failed"]
STATUSES: tuple[Status, ...] = ("ok", "note", "warning", "failed")

MIB = 1 << 20


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: What was looked at.
        status: "note" is nothing to worry about, "warning" may cost time or quality, "failed" has to be
            mended.
        detail: What was found.
        advice: What to do; not empty for warnings and failures.
    """

    name: str
    status: Status
    detail: str
    advice: str = ""


def guarded(name: str, run: Callable[[], Iterator[Check]], advice: str) -> Iterator[Check]:
    """The findings of a check; an exception in it is one more.

    Args:
        name: Of the check.
        run: The check.
        advice: What to do when it raises.
    """
    try:
        yield from run()
    except (RuntimeError, OSError, ImportError, ValueError, MemoryError) as error:
        yield Check(name, "failed", " ".join(str(error).split()) or type(error).__name__, advice)
