"""Paths as callers give them, checked before anything is done with them."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

from executorch_mm.errors import ExecutorchMMError, InputError, shown

_NO_FILE = {errno.ENOENT, errno.ENOTDIR}


def checked_path(path: object, name: str, error: Callable[[str], ExecutorchMMError] = InputError) -> Path:
    """A path that the system can be asked about; there need be no file there.

    Args:
        path: A str or an object with `__fspath__`. Bytes of a file's name that are no UTF-8 stand in it as
            `os.fsdecode` writes them.
        name: Of the argument, for messages.
        error: Makes what is raised of a message.

    Raises:
        ExecutorchMMError: It is no path, holds a null byte or a character that no name of a file has, or the
            system says that there can be no such file or that it may not be looked at.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise error(f"{name}: expected a path, got {shown(path)}")
    try:
        text = os.fspath(path)
        if not isinstance(text, str):
            raise error(f"{name}: expected a path as a str, got {shown(text)}")
        if "\0" in text:
            raise error(f"{name}: expected a path without null bytes, got {shown(text)}")
        os.fsencode(text)
        Path(text).stat()
    except TypeError as failure:  # of an object whose __fspath__ gives something else
        raise error(f"{name}: expected a path, got {shown(path)}") from failure
    except UnicodeEncodeError as failure:
        raise error(
            f"{name}: expected characters that a file's name can have, got {shown(text)}"
        ) from failure
    except OSError as failure:
        if failure.errno not in _NO_FILE:
            raise error(f"{name}: {failure.strerror or failure}: {shown(text)}") from failure
    return Path(text)


def expect_file(path: Path) -> None:
    """Refuses what is there and no file: opening a pipe would wait for somebody at its other end.

    Raises:
        OSError: It is something else, or not there.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "expected a regular file", str(path))


def refuse_pipe(path: Path, name: str) -> None:
    """Refuses a file to be written that is a pipe: opening it would wait for somebody at its other end.

    Args:
        path: Where there may be nothing.
        name: Of the argument, for messages.

    Raises:
        InputError: It is one.
    """
    if path.is_fifo():
        raise InputError(f"{name}: expected a file, got the pipe {path}")
