"""Python in a process of its own, with some files of this one."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence

from executorch_mm.errors import InputError

_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from {} import serve; serve(*sys.argv[2:])"
)
_FREE = 10  # numbers from here on do not get in the way of those that a program has for its files


def expect_python(option: str) -> None:
    """Refuses an option that needs a Python to start where there is none.

    Raises:
        InputError: The program is frozen, or embeds Python.
    """
    if not sys.executable or getattr(sys, "frozen", False):
        raise InputError(f"{option}: there is no Python here to start: the program is frozen or embedded")


def start_python(
    module: str,
    arguments: Sequence[str],
    files: Mapping[int, int],
    environment: Mapping[str, str] | None = None,
) -> int:
    """Starts a Python that calls a module's `serve`, with this one's `sys.path` and no standard streams.

    Args:
        module: Its name.
        arguments: Of `serve`.
        files: Files of this process, by the numbers that they have there.
        environment: Of the process; None for this one's.

    Returns:
        The number of the process, for who waits for its end.

    Raises:
        OSError: There is no room for it.
    """
    import fcntl  # here: few models are isolated

    given: dict[int, int] = {}
    try:
        for number, file in files.items():
            given[number] = fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, _FREE)
        return os.posix_spawn(
            sys.executable,
            [sys.executable, "-c", _PROGRAM.format(module), json.dumps(sys.path), *arguments],
            os.environ if environment is None else environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
                *((os.POSIX_SPAWN_DUP2, file, number) for number, file in given.items()),
            ],
            setpgroup=0,  # Ctrl-C of a terminal is for this process
            setsigmask=[],  # whatever this thread has blocked
        )
    finally:
        for file in given.values():
            os.close(file)
