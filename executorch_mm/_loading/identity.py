"""Which model and tokenizer these are: what a saved conversation can go on with."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from executorch_mm._files.file_part import FilePart, find_part
from executorch_mm._files.model_files import files_of
from executorch_mm._loading.lazy import BuiltOnce
from executorch_mm.errors import StateFileError
from executorch_mm.tokenizer import Tokenizer

if TYPE_CHECKING:
    from hashlib import _Hash

    from typing_extensions import Buffer

    from executorch_mm._loading.options import PathLike

_BLOCK_BYTES = 1 << 16
_MOST_BLOCKS = 128  # a file of up to 8 MiB is read as a whole
_MOST_TOKENS = 1024
_ALIGNMENT = 16  # of memory that the core uses in place


class ModelIdentity:
    """Fingerprints of a model and its tokenizer, made when they are first asked for.

    That of a model is the SHA-256 of its size and content, of a file above 8 MiB of 128 blocks spread over
    it: gigabytes would take seconds, and other weights differ everywhere.

    Args:
        model: The .pte file or its content, or an export folder.
        data: The .ptd files.
        tokenizer: Of the model.
    """

    def __init__(
        self, model: PathLike | Buffer, data: PathLike | Sequence[PathLike], tokenizer: Tokenizer
    ) -> None:
        data = [data] if isinstance(data, (str, os.PathLike)) else data
        self._memory = None if isinstance(model, (str, os.PathLike)) else memoryview(model).cast("B")
        paths = [*([model] if isinstance(model, (str, os.PathLike)) else []), *data]
        files = [file for path in paths for file in files_of(Path(os.fspath(path)))]
        parts = [find_part(path) for path in files]
        self._files = [(part, _mark(part.path.stat())) for part in parts]
        self._tokenizer = tokenizer
        self._begun: _Hash | None = None
        if self._memory is not None and _address(self._memory) % _ALIGNMENT:
            # The core has made a copy and lets the caller's memory go: so does this.
            self._begun = self._of_memory()
            self._memory = None

    @BuiltOnce
    def model(self) -> str:
        """Of the model, as hexadecimal digits.

        Raises:
            StateFileError: A file of it has changed since it was loaded, or is gone.
        """
        digest = self._of_memory() if self._begun is None else self._begun.copy()
        for part, mark in self._files:
            self._add_file(digest, part, mark)
        return digest.hexdigest()

    def _of_memory(self) -> _Hash:
        import hashlib

        digest = hashlib.sha256()
        if self._memory is not None:
            _add(digest, self._memory.nbytes, self._blocks_of(self._memory))
        return digest

    @BuiltOnce
    def tokenizer(self) -> str:
        """Of the tokenizer: what its ids stand for."""
        import hashlib

        tokenizer = self._tokenizer
        size = tokenizer.vocab_size
        ends = _MOST_TOKENS // 4
        ids = {*range(min(ends, size)), *range(max(size - ends, 0), size)}
        ids |= {index * size // (2 * ends) for index in range(2 * ends)}
        seen = [
            size,
            tokenizer.bos_id,
            [tokenizer.id_to_token(token) for token in sorted(ids) if token < size],
        ]
        return hashlib.sha256(repr(seen).encode("utf-8", "surrogatepass")).hexdigest()

    @staticmethod
    def _blocks_of(memory: memoryview[int]) -> Iterator[memoryview[int]]:
        return (memory[start : start + _BLOCK_BYTES] for start in _starts(memory.nbytes))

    @staticmethod
    def _add_file(digest: _Hash, part: FilePart, mark: tuple[int, ...]) -> None:
        path, offset, size = part
        try:
            with path.open("rb", buffering=0) as file:
                status = os.fstat(file.fileno())
                if _mark(status) != mark:
                    raise StateFileError(f"{path}: the file has changed since the model was loaded from it")
                blocks = ((at, min(_BLOCK_BYTES, size - at)) for at in _starts(size))
                _add(digest, size, (os.pread(file.fileno(), count, offset + at) for at, count in blocks))
        except OSError as error:
            raise StateFileError(f"{path}: cannot be read: {error.strerror or error}") from error


def _address(memory: memoryview[int]) -> int:
    import numpy as np  # here: models in files do without

    return np.frombuffer(memory, np.uint8).ctypes.data


def _mark(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _starts(size: int) -> list[int]:
    """Where the blocks begin that are looked at; the last one ends where the file does."""
    if size <= _MOST_BLOCKS * _BLOCK_BYTES:
        return [*range(0, size, _BLOCK_BYTES)]
    return [(size - _BLOCK_BYTES) * index // (_MOST_BLOCKS - 1) for index in range(_MOST_BLOCKS)]


def _add(digest: _Hash, size: int, blocks: Iterator[Buffer]) -> None:
    digest.update(size.to_bytes(8, "little"))
    for block in blocks:
        digest.update(block)
