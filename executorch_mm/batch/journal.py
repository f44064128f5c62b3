"""Results in a file: each is there as a whole or not at all, and none is there twice."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from executorch_mm.errors import InputError

_PART_BYTES = 1 << 20


def json_line(value: object) -> bytes:
    """A value as a line of JSON, with escapes where texts hold lone surrogates, which JSON can write.

    Args:
        value: Of what JSON can hold.
    """
    try:
        return json.dumps(value, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(value).encode() + b"\n"


class Journal:
    """A file of results, one JSON object a line, to which results are added.

    A line that a process left half written, because it was killed, is cut off when the file is opened again.
    One process at a time has it open. The file is written by the system when it sees fit, and on `close()`.

    Args:
        path: Of the file; None for standard output, which holds nothing yet.
        drops_errors: Results that say why there is none are removed, so that their rows are tried again.

    Attributes:
        ids: Of the rows that have a result.
        num_errors: Of those results, how many are errors.

    Raises:
        InputError: There is something else in the file, or another process has it open.
        OSError: It cannot be written.
    """

    def __init__(self, path: Path | None, *, drops_errors: bool = False) -> None:
        self.ids: set[str] = set()
        self.num_errors: int = 0
        self._is_file = path is not None
        if path is None:
            sys.stdout.flush()
            self._file = os.dup(sys.stdout.fileno())
            return
        self._file = _opened(path)
        try:
            length = self._read(path)
            if length < os.fstat(self._file).st_size:
                os.ftruncate(self._file, length)
            if drops_errors and self.num_errors:
                self._drop_errors(path)
        except BaseException:
            os.close(self._file)
            raise

    def write(self, row_id: str, result: Mapping[str, object], *, is_error: bool) -> None:
        """Adds a result.

        Args:
            row_id: Of its row.
            result: What the line says.
            is_error: Whether it says why there is none.

        Raises:
            OSError: It cannot be written; then nothing of it is there.
        """
        line = memoryview(json_line(result))
        start = os.lseek(self._file, 0, os.SEEK_END) if self._is_file else 0
        try:
            while line:
                line = line[os.write(self._file, line) :]
        except OSError:
            if self._is_file:
                os.ftruncate(self._file, start)
            raise
        self.ids.add(row_id)
        self.num_errors += is_error

    def close(self) -> None:
        """Sees to it that all that was written is on the disk."""
        try:
            if self._is_file:
                os.fsync(self._file)
        finally:
            os.close(self._file)

    def _read(self, path: Path) -> int:
        """Bytes of the results that are whole."""
        length = 0
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    if not b'{"'.startswith(line[:2]):
                        raise _strange(path, number)
                    break
                row_id, is_error = _told(line, path, number)
                self.ids.add(row_id)
                self.num_errors += is_error
                length += len(line)
        return length

    def _drop_errors(self, path: Path) -> None:
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        try:
            with path.open("rb") as old, temporary.open("xb") as new:
                for number, line in enumerate(old, 1):
                    row_id, is_error = _told(line, path, number)
                    if is_error:
                        self.ids.discard(row_id)
                    else:
                        new.write(line)
                new.flush()
                os.fsync(new.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        self.num_errors = 0
        os.close(self._file)
        self._file = _opened(path)


def _opened(path: Path) -> int:
    import fcntl  # here: only batches need it

    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(file)
        raise InputError(f"{path}: another process writes its results to this file") from error
    except OSError:
        pass  # a file system without locks
    return file


def _told(line: bytes, path: Path, number: int) -> tuple[str, bool]:
    """The id in a result, and whether it is an error."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise _strange(path, number) from None
    row_id = value.get("custom_id", value.get("id")) if isinstance(value, dict) else None
    if not isinstance(row_id, (str, int)):
        raise _strange(path, number)
    return str(row_id), bool(value.get("error"))


def _strange(path: Path, number: int) -> InputError:
    return InputError(f"{path}: line {number} is no result of a batch: give another file for the results")
