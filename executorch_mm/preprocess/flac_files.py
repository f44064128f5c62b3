"""FLAC files whose header does not know their length, or not all of it.

A writer that cannot go back leaves the number of samples at 0, and libsndfile's reading ends in an error;
one that was stopped leaves that of an earlier moment, and libsndfile reads no further. The last frame of the
file knows better.
"""

from __future__ import annotations

from dataclasses import dataclass

from executorch_mm.preprocess.crc import crc
from executorch_mm.preprocess.file_tags import end_of_id3

_MARK = b"fLaC"
_NUMBER_BITS = 36
_HEADER_SIZE = 4 + 4 + 34  # the mark, and the block STREAMINFO, which comes first
# Bytes that are looked at from the end of the file; a frame has a few thousand, seldom more than 2**17.
_SEARCHED = 2**20
_HEADER, _FRAME = 0x07, 0x8005  # polynomials of the checks: 8 bits of a frame's header, 16 of a frame
_SIZE_CODES = {
    1: 192,
    **{code: 576 << code - 2 for code in range(2, 6)},
    **{c: 256 << c - 8 for c in range(8, 16)},
}


@dataclass(frozen=True)
class FlacFile:
    """The lengths of a FLAC file, in samples of each channel.

    Attributes:
        start: Where the file begins, behind tags.
        declared: What its header says; 0 where it does not know.
        counted: What its complete frames hold.
    """

    start: int
    declared: int
    counted: int


def read_flac(data: bytes) -> FlacFile | None:
    """The lengths of a FLAC file; None for a file of another kind, or one without a complete frame."""
    start = end_of_id3(data)
    if data[start : start + 4] != _MARK or data[start + 4] & 0x7F or len(data) < start + _HEADER_SIZE:
        return None
    declared = int.from_bytes(data[start + 18 : start + 26], "big") & (1 << _NUMBER_BITS) - 1
    smallest_block = int.from_bytes(data[start + 8 : start + 10], "big")
    counted = _end_of_last_frame(data, start + _HEADER_SIZE, smallest_block)
    return None if counted is None else FlacFile(start, declared, counted)


def with_length(data: bytes, start: int, number: int) -> bytes:
    """The file that begins at `start` with another number of samples in its header."""
    place = start + 18
    fields = int.from_bytes(data[place : place + 8], "big") >> _NUMBER_BITS << _NUMBER_BITS
    return b"".join((data[start:place], (fields | number).to_bytes(8, "big"), data[place + 8 :]))


def _end_of_last_frame(data: bytes, first: int, smallest_block: int) -> int | None:
    """The number of samples up to the end of the last frame whose checksum is right."""
    end = len(data) - 128 if data[-128:-125] == b"TAG" else len(data)
    begin = max(first, end - _SEARCHED)
    place, ends, budget = end, [end], _SEARCHED
    while budget > 0 and (place := data.rfind(b"\xff", begin, place)) >= 0:
        span = _samples_of_header(data[place : place + 17], smallest_block)
        if span is None:
            continue
        checksum, behind = 0, place
        for stop in ends:  # in ascending order
            if budget <= 0:
                break
            budget -= stop - behind
            checksum = crc(data[behind:stop], 16, _FRAME, checksum)
            behind = stop
            if checksum == 0:
                return span
        ends.insert(0, place)
        del ends[8:]
    return None


def _samples_of_header(header: bytes, smallest_block: int) -> int | None:
    """The number of samples up to the end of the frame that begins with this; None where none does."""
    if len(header) < 2 or header[1] & 0xFE != 0xF8:
        return None
    header = header.ljust(17, b"\0")
    size_code, rate_code = header[2] >> 4, header[2] & 15
    if size_code == 0 or rate_code == 15 or header[3] >> 4 > 10 or header[3] & 1:
        return None
    length = 8 - (header[4] ^ 0xFF).bit_length()  # ones in front: bytes of the number, as in UTF-8
    if length in (1, 8):
        return None
    number = header[4] & (0x7F >> length)
    place = 5
    for byte in header[5 : 4 + length] if length else ():
        if byte >> 6 != 2:
            return None
        number = number << 6 | byte & 0x3F
        place += 1
    size = _SIZE_CODES.get(size_code, 0)
    for code, width in ((6, 1), (7, 2)):
        if size_code == code:
            size = int.from_bytes(header[place : place + width], "big") + 1
            place += width
    place += {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if crc(header[:place], 8, _HEADER) != header[place]:
        return None
    is_variable = header[1] & 1
    return (number if is_variable else number * smallest_block) + size
