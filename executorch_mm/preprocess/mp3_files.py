"""MP3 files whose length libsndfile would guess: its guess takes the first frame's bit rate for that of all.

The first frame of most files is no audio but says how many follow (LAME's and Xing's "Info" and "Xing",
Fraunhofer's "VBRI"). Where it was lost, or speaks only of a part, the frames are counted and such a frame is
put in front.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from executorch_mm.preprocess.file_tags import end_of_id3

_SYNC = 0xFF
_RATES = (44100, 48000, 32000)
_KBITS = {
    True: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
# What must be the same in all frames of a file: MPEG's version, the layer, and the sampling rate.
_KIND = 0xFE0C
# How far into a file the first frame is looked for.
_SEARCHED = 2**16
# Places that are tried for a frame where none follows the one before; more would be no MP3 but a trap.
_MAX_TRIES = 2**20
# Samples by which LAME delays an audio clip, besides the 529 of every decoder.
_USUAL_DELAY = 576
_LAME = b"LAME3.100"


def _frame_sizes() -> dict[int, int]:
    """Bytes of a frame of layer III by the second and third byte of its header."""
    sizes = {}
    for version, halvings in ((3, 0), (2, 1), (0, 2)):
        for bits, rate in enumerate(_RATES):
            for number, kbits in enumerate(_KBITS[version == 3], start=1):
                for rest in range(16):  # protection, padding, private
                    second = 0xE0 | version << 3 | 1 << 1 | rest & 1
                    third = number << 4 | bits << 2 | rest >> 1 & 3
                    slots = (144 if version == 3 else 72) * kbits * 1000 // (rate >> halvings)
                    sizes[second << 8 | third] = slots + (third >> 1 & 1)
    return sizes


_SIZES = _frame_sizes()


@dataclass(frozen=True)
class Frames:
    """The frames of a file.

    Attributes:
        first: Where the first one begins.
        number: How many there are, the first one included.
        is_variable: Whether their bit rates differ.
    """

    first: int
    number: int
    is_variable: bool


@dataclass(frozen=True)
class Info:
    """What the first frame says of the others.

    Attributes:
        number: How many there are; None where it does not say.
        gaps: LAME's three bytes of delay and padding.
    """

    number: int | None
    gaps: bytes = b""


def with_true_length(data: bytes) -> tuple[bytes, str | None]:
    """An MP3 file that libsndfile reads to its end, and what is to be said about it.

    Args:
        data: Any file.
    """
    frames = count_frames(data)
    if frames is None:
        return data, None
    info = read_info(data[frames.first : frames.first + _SIZES[_key(data, frames.first)]])
    if info is None:
        note = (
            f"the MP3 has no information frame: {frames.number} frames were counted, and the delay of LAME's "
            "encoder was taken off the beginning; that of another encoder differs by some milliseconds"
        )
        return _with_info(data, frames.first, frames.number, None), note if frames.is_variable else None
    others = frames.number - 1
    if info.number is not None and info.number > others + 1:
        return data, f"the MP3 is cut short: its first frame says {info.number} frames, {others} are there"
    if info.number is None or info.number < others - 1:
        first = frames.first + _SIZES[_key(data, frames.first)]
        return _with_info(data, first, others, info.gaps or None), None
    return data, None


def count_frames(data: bytes) -> Frames | None:
    """Walks over the frames of layer III; None where the file does not begin with some.

    What lies between two frames (tags, the end of another file) is stepped over.
    """
    tries = iter(range(_MAX_TRIES))
    begin = end_of_id3(data)
    place = _next_frame(data, begin, None, tries)
    if place is None or place > begin + _SEARCHED:
        return None
    first, kind, number, rates = place, _key(data, place) & _KIND, 0, set()
    while place is not None and place + 4 <= len(data):
        key = _key(data, place)
        size = _SIZES.get(key)
        if data[place] != _SYNC or size is None or key & _KIND != kind:
            place = _next_frame(data, end_of_id3(data, place), kind, tries)
            continue
        if place + size > len(data):
            break
        number += 1
        rates.add(key & 0xF0)
        place += size
    return Frames(first, number, is_variable=len(rates) > 1)


def _next_frame(data: bytes, start: int, kind: int | None, tries: Iterator[int]) -> int | None:
    """The next place, this one included, where a frame begins that another one of its kind follows."""
    while (
        (place := data.find(_SYNC, start)) >= 0 and place + 4 <= len(data) and next(tries, None) is not None
    ):
        key = _key(data, place)
        size = _SIZES.get(key)
        if size is not None and kind in (None, key & _KIND):
            behind = place + size
            if behind + 4 > len(data):
                return None if kind is None else place
            if data[behind] == _SYNC and _key(data, behind) & _KIND == key & _KIND:
                return place
        start = place + 1
    return None


def _key(data: bytes, place: int) -> int:
    return data[place + 1] << 8 | data[place + 2]


def read_info(frame: bytes) -> Info | None:
    """What a frame says of the others; None for one that is audio."""
    start = _info_place(frame)
    if frame[36:40] == b"VBRI" and len(frame) >= 54:
        return Info(int.from_bytes(frame[50:54], "big"))
    if frame[start : start + 4] not in (b"Xing", b"Info") or len(frame) < start + 12:
        return None
    flags = int.from_bytes(frame[start + 4 : start + 8], "big")
    number = int.from_bytes(frame[start + 8 : start + 12], "big") if flags & 1 else None
    # The encoder's part stands behind the fields that the flags name.
    lame = start + 8 + 4 * (flags & 1) + 2 * (flags & 2) + 25 * (flags & 4) + flags // 8 % 2 * 4
    return Info(number, frame[lame + 21 : lame + 24] if frame[lame : lame + 1].isalpha() else b"")


def _info_place(frame: bytes) -> int:
    """Where the tag stands: behind the side information of a frame without audio."""
    is_mono = frame[3] >> 6 == 3
    is_version_1 = frame[1] >> 3 & 3 == 3
    return 4 + ((17 if is_mono else 32) if is_version_1 else (9 if is_mono else 17))


def _with_info(data: bytes, first: int, number: int, gaps: bytes | None) -> bytes:
    """The frames from `first` on, behind a frame that says their number and the delay before the audio."""
    header = bytearray(data[first : first + 4])
    header[1] |= 1  # no checksum
    header[2] &= 0x0F
    start = _info_place(bytes(header))
    delay = struct.pack(">I", _USUAL_DELAY << 12)[1:] if gaps is None else bytes([gaps[0], gaps[1] & 0xF0, 0])
    tag = struct.pack(">4sIII", b"Xing", 0xF, number, len(data) - first)
    tag += bytes(number * 256 // 100 for number in range(100)) + bytes(4)
    tag += _LAME + bytes(12) + delay + bytes(12)
    size = 0
    for number in range(1, 15):  # the smallest frame that has room for it
        header[2] = number << 4 | header[2] & 0x0F
        size = _SIZES[header[1] << 8 | header[2]]
        if size >= start + len(tag):
            break
    frame = bytes(header) + bytes(start - 4) + tag
    return frame + bytes(size - len(frame)) + data[first:]
