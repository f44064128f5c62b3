"""Files with a checksum over all of it, that are either whole or not there."""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import stat
import struct
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

import numpy as np

from executorch_mm.errors import StateFileError

if TYPE_CHECKING:
    import numpy.typing as npt
    from typing_extensions import Buffer, Self

# Magic, version of the format, bytes of the header and of the body; then the SHA-256 of these and the header,
# which has that of the body. As in a PNG, a transfer that changes line ends shows in the magic.
_PRELUDE = struct.Struct("<8sIIQ")
_DIGEST_BYTES = 32
_START = _PRELUDE.size + _DIGEST_BYTES
_MAGIC = b"\x89EMM\r\n\x1a\n"
_MOST_HEADER_BYTES = 1 << 20
_BODY_DIGEST = "body_sha256"
_PIECE_BYTES = 1 << 20
_WORTH_A_THREAD = 4  # pieces


def write_sealed(
    path: Path, version: int, header: Mapping[str, object], body: Sequence[memoryview[int]]
) -> None:
    """Writes a file beside its place and puts it there when it is on the disk.

    Whatever goes wrong, a file that was there before still is. It can be read by its owner alone.

    Args:
        path: Of the file; a link is followed.
        version: Of the format.
        header: What JSON can say.
        body: Bytes, in pieces.

    Raises:
        StateFileError: The file cannot be written: no such folder, no room, no right to.
    """
    head = json.dumps({**header, _BODY_DIGEST: _digest(body).hex()}).encode()
    prelude = _PRELUDE.pack(_MAGIC, version, len(head), sum(piece.nbytes for piece in body))
    try:
        target = Path(os.path.realpath(path))
        if target.exists() and not target.is_file():
            raise StateFileError(f"{path}: expected a regular file or none, there is something else")
        _replace(target, [prelude, _digest([prelude, head]), head, *body])
    except OSError as error:
        raise StateFileError(f"{path}: cannot be written: {error.strerror or error}") from error


def _replace(target: Path, pieces: Iterable[Buffer]) -> None:
    beside = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
    try:
        with io.FileIO(beside, "xb", opener=_for_the_owner) as file:
            for piece in pieces:
                _write(file, memoryview(piece).cast("B"))
            os.fsync(file.fileno())
        beside.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise
    with contextlib.suppress(OSError):  # what some file systems do not know
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _for_the_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _at_once(path: str, flags: int) -> int:
    """Without waiting for the other end of a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


def _write(file: io.FileIO, piece: memoryview[int]) -> None:
    while piece.nbytes:
        piece = piece[file.write(piece) :]


class SealedFile:
    """A file that `write_sealed` wrote, its header checked.

    Args:
        path: Of the file.
        version: Of the format that is expected.

    Attributes:
        path: As given.
        header: As it was given.
        body_bytes: Of the body.

    Raises:
        StateFileError: There is none, it is of another kind or version, or it is damaged.
    """

    header: dict[str, object]
    body_bytes: int

    def __init__(self, path: Path, version: int) -> None:
        self.path = path
        try:
            self._file = io.FileIO(path, "rb", opener=_at_once)
        except OSError as error:
            raise StateFileError(f"{path}: cannot be read: {error.strerror or error}") from error
        try:
            self._read_header(version)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def body(self) -> npt.NDArray[np.uint8]:
        """The body. Look at `body_bytes` first, for which memory is taken.

        Raises:
            StateFileError: It is damaged.
        """
        body = np.empty(self.body_bytes, np.uint8)  # in large pages, and not written twice
        if self._filled_digest(body.data).hex() != self.header.get(_BODY_DIGEST):
            raise self.damaged("the checksum of its content is another")
        return body

    def damaged(self, reason: str) -> StateFileError:
        """An error that says so."""
        return StateFileError(f"{self.path}: the file is damaged: {reason}")

    def _read_header(self, version: int) -> None:
        status = os.fstat(self._file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise StateFileError(f"{self.path}: expected a regular file")
        start = bytearray(min(_START, status.st_size))
        self._fill(memoryview(start))
        if start[: len(_MAGIC)] != _MAGIC:
            raise StateFileError(f"{self.path}: expected a saved conversation, got another kind of file")
        if len(start) < _START:
            raise self.damaged(f"it ends after {len(start)} bytes")
        _, got, head_bytes, self.body_bytes = _PRELUDE.unpack_from(start)
        if got != version:
            raise StateFileError(f"{self.path}: expected version {version} of the format, got {got}")
        if status.st_size != _START + head_bytes + self.body_bytes or head_bytes > _MOST_HEADER_BYTES:
            raise self.damaged(
                f"expected {head_bytes} + {self.body_bytes} bytes after the first {_START}, "
                f"got {status.st_size - _START}"
            )
        head = bytearray(head_bytes)
        self._fill(memoryview(head))
        if _digest([start[: _PRELUDE.size], head]) != start[_PRELUDE.size :]:
            raise self.damaged("the checksum of its header is another")
        try:
            self.header = json.loads(head)
        except (ValueError, RecursionError) as error:
            raise self.damaged(f"its header is no JSON: {error}") from error
        if not isinstance(self.header, dict):
            raise self.damaged("its header is no object")

    def _fill(self, memory: memoryview[int]) -> None:
        while memory.nbytes:
            try:
                count = self._file.readinto(memory)
            except OSError as error:
                raise StateFileError(f"{self.path}: cannot be read: {error.strerror or error}") from error
            if not count:
                raise self.damaged("it has become shorter")
            memory = memory[count:]

    def _filled_digest(self, memory: memoryview[int]) -> bytes:
        """Fills a memory, and meanwhile makes the checksum of what has come."""
        pieces = [memory[at : at + _PIECE_BYTES] for at in range(0, memory.nbytes, _PIECE_BYTES)]
        filled: SimpleQueue[memoryview[int] | None] = SimpleQueue()
        digests: list[bytes] = []
        hasher = threading.Thread(
            target=lambda: digests.append(_digest(iter(filled.get, None))), name="checksum", daemon=True
        )
        if len(pieces) >= _WORTH_A_THREAD:
            with contextlib.suppress(RuntimeError):  # the system has no more threads
                hasher.start()
        if not hasher.is_alive():
            self._fill(memory)
            return _digest([memory])
        try:
            for piece in pieces:
                self._fill(piece)
                filled.put(piece)
        finally:
            filled.put(None)
            hasher.join()
        return digests[0] if digests else _digest([memory])  # it had no memory


def _digest(pieces: Iterable[Buffer]) -> bytes:
    import hashlib  # here: imports are to be fast

    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.digest()
