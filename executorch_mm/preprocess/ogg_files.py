"""Ogg files that libsndfile would read in part or at a rate that cuts their highs off.

A file may be several one after the other ("chained", as saved streams are), of which libsndfile reads the
first. Opus is decoded at whatever rate is asked for, and libsndfile asks for the one that the header notes as
that of the original; where it notes none, for 8 kHz.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from typing import NamedTuple

from executorch_mm.preprocess.crc import crc

_MARK = b"OggS"
_IS_FIRST = 2  # of its stream
_HEADER_SIZE = 27
# Most pages carry thousands of bytes; a file with more of them than this is a trap.
_MAX_PAGES = 2**20
_POLYNOMIAL = 0x04C11DB7  # of a page's check of 32 bits
_OPUS, _OPUS_RATE_AT, _FULL_RATE = b"OpusHead", 12, 48000


class _Page(NamedTuple):
    """Where a page lies, and where what it carries begins."""

    start: int
    content: int
    end: int
    is_first: bool


def links(data: bytes) -> list[bytes]:
    """The files that are chained in one, each as libsndfile reads all of it; none where it is no Ogg file."""
    starts: list[int] = []
    unnoted: list[list[_Page]] = []  # pages of each that note no rate
    was_first = False
    for page in itertools.islice(_pages(data), _MAX_PAGES):
        if page.is_first and not was_first:
            starts.append(page.start)
            unnoted.append([])
        was_first = page.is_first
        head = data[page.content : page.content + 16]
        if page.is_first and head.startswith(_OPUS) and head[_OPUS_RATE_AT:] == bytes(4):
            unnoted[-1].append(page)
    parts: list[bytes] = []
    for start, pages, end in zip(starts, unnoted, [*starts[1:], len(data)], strict=False):
        part = data[start:end]
        parts.append(_with_rates(part, start, pages) if pages else part)
    return parts


def _pages(data: bytes) -> Iterator[_Page]:
    start = 0 if data.startswith(_MARK) else -1
    while start >= 0 and start + _HEADER_SIZE <= len(data):
        content = start + _HEADER_SIZE + data[start + 26]
        end = content + sum(data[start + _HEADER_SIZE : content])
        yield _Page(start, content, end, bool(data[start + 5] & _IS_FIRST))
        start = end if data.startswith(_MARK, end) else data.find(_MARK, start + 4)


def _with_rates(part: bytes, start: int, pages: list[_Page]) -> bytes:
    """A part of a file, which begins at `start`, with the full rate noted on these pages."""
    changed = bytearray(part)
    for page in pages:
        begin, end = page.start - start, page.end - start
        struct.pack_into("<I", changed, page.content - start + _OPUS_RATE_AT, _FULL_RATE)
        changed[begin + 22 : begin + 26] = bytes(4)
        changed[begin + 22 : begin + 26] = struct.pack("<I", crc(changed[begin:end], 32, _POLYNOMIAL))
    return bytes(changed)
