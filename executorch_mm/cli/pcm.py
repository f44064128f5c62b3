"""Audio that comes on standard input for as long as it likes: PCM, or a WAV file of it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Protocol

from executorch_mm.cli.errors import UsageError

_PART_BYTES = 1 << 15
_MOST_HEADER = 1 << 20  # bytes before the samples
_PCM, _EXTENSIBLE = 1, 0xFFFE


class SupportsRead1(Protocol):
    """A stream of bytes that gives what is there."""

    def read1(self, size: int, /) -> bytes:
        """At most `size` bytes, without waiting for all of them; none at the end."""
        ...


class Pcm:
    """Samples of 16 bits, little endian.

    Args:
        stream: Where they come from.
        rate: Samples per second, where no header says it.
        channels: The same.

    Attributes:
        rate: Samples per second.
        channels: How many there are.

    Raises:
        UsageError: It is a WAV file of other samples.
    """

    def __init__(self, stream: SupportsRead1, rate: int, channels: int) -> None:
        self._stream = stream
        self.rate: int = rate
        self.channels: int = channels
        self._head = self._read(12)
        if self._head[:4] in (b"RIFF", b"RF64") and self._head[8:12] == b"WAVE":
            self._head = b""
            self._skip_header()

    def __iter__(self) -> Iterator[bytes]:
        if self._head:
            yield self._head
        while part := self._stream.read1(_PART_BYTES):
            yield part

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size and (part := self._stream.read1(size - len(data))):
            data += part
        return data

    def _skip_header(self) -> None:
        is_known, num_read = False, 0
        while len(head := self._read(8)) == 8:
            kind, size = head[:4], int.from_bytes(head[4:], "little")
            if kind == b"data":
                if not is_known:
                    break
                return
            num_read += size
            if num_read > _MOST_HEADER:
                break
            content = self._read(size + size % 2)
            if kind == b"fmt " and len(content) >= 16:
                tag, self.channels, self.rate, _, _, bits = struct.unpack_from("<HHIIHH", content)
                if tag not in (_PCM, _EXTENSIBLE) or bits != 16:
                    raise UsageError(
                        f"transcribe: --live: expected samples of 16 bits, got {bits} bits of kind {tag}"
                    )
                is_known = True
        raise UsageError("transcribe: --live: expected PCM or a WAV file, got a header without samples")
