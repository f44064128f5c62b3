"""Files that stand for a part of another one, which the core reads where it lies: cpp/program/file_part.h."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

_MAGIC = b"EMM-PART 1\n"
_MOST_BYTES = 8192


class FilePart(NamedTuple):
    """Where the bytes of a file are.

    Attributes:
        path: Of the file that holds them.
        offset: Of the first one.
        size: How many there are.
    """

    path: Path
    offset: int
    size: int


def write_part(path: Path, part: FilePart, status: os.stat_result) -> None:
    """Writes a file that stands for a part of another.

    Args:
        path: Where; there is no file yet.
        part: What it stands for.
        status: Of the other file, by which a later change of it is found.

    Raises:
        OSError: It cannot be written, or the other file's path is too long.
    """
    numbers = (part.offset, part.size, status.st_ino, status.st_size, int(status.st_mtime))
    content = _MAGIC + " ".join(map(str, numbers)).encode() + b"\n" + os.fsencode(part.path)
    if len(content) > _MOST_BYTES:
        raise OSError(f"{part.path}: the path is too long")
    with path.open("xb") as file:
        file.write(content)


def find_part(path: Path) -> FilePart:
    """The part that a file stands for, or the whole of the file itself. The core checks what is there.

    Raises:
        OSError: The file cannot be read.
    """
    size = path.stat().st_size
    if len(_MAGIC) < size <= _MOST_BYTES:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES)
        if content.startswith(_MAGIC):
            numbers, _, other = content[len(_MAGIC) :].partition(b"\n")
            fields = numbers.split()
            if len(fields) == 5 and all(field.isdigit() for field in fields):
                return FilePart(Path(os.fsdecode(other)), int(fields[0]), int(fields[1]))
    return FilePart(path, 0, size)
