"""WAV files: what their headers say, what is there, and their samples.

Recorders and streams write sizes before they know the length. So that of the file is never asked, and that of
the samples counts only where the bytes behind them bear it out.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from executorch_mm.preprocess.file_tags import end_of_id3, is_tag

Float32Array = npt.NDArray[np.float32]

MPEG_LAYER_3 = 0x55
_PCM, _FLOAT, _A_LAW, _MU_LAW, _EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
# What follows the number of one of these formats in the names that an extensible header gives: Microsoft's,
# and those of Ambisonics.
_NAME_TAILS = {bytes.fromhex("000000001000800000aa00389b71"), bytes.fromhex("00002107d3118644c8c1ca000000")}
# Numpy's types by format and bytes of a sample; 24 bits have none.
_TYPES = {
    _PCM: {1: "u1", 2: "i2", 3: "u1", 4: "i4"},
    _FLOAT: {4: "f4", 8: "f8"},
    _A_LAW: {1: "u1"},
    _MU_LAW: {1: "u1"},
}
_MARKS = (b"RIFF", b"RIFX", b"RF64", b"BW64")
_IN_DS64 = 0xFFFFFFFF  # a size that stands in the chunk "ds64"
# Chunks that stand behind the samples.
_TRAILERS = frozenset(
    b"LIST INFO bext cart iXML axml _PMX smpl inst acid fact PEAK JUNK junk FLLR afsp DISP data".split()
) | {b"PAD ", b"cue ", b"id3 ", b"ID3 "}
_MAX_CHUNKS = 2**16  # more would be a trap
_BLOCK_FRAMES = 2**16
# Bytes of no known kind at the end of a file are worth a word from this on.
_NOTED_SECONDS = 0.1
# How far before the end of a file its last chunk is looked for where nothing says where it begins.
_SEARCHED = 2**16
_MAX_TRAILERS = 8


class Format(NamedTuple):
    """The chunk "fmt ".

    Attributes:
        content: The chunk, without its name and size.
        byte_order: "<" or ">".
        code: 1 for integers and so on; 0 where samples cannot be told from it alone.
        channels: Number of channels.
        rate: Samples per second.
        bits: Of a sample.
    """

    content: bytes
    byte_order: str
    code: int
    channels: int
    rate: int
    bits: int

    @property
    def width(self) -> int:
        """Bytes of a sample."""
        return -(-self.bits // 8)

    @property
    def dtype(self) -> np.dtype[np.generic] | None:
        """Of the samples, or of their bytes where they have 24 bits; None where they are compressed."""
        name = _TYPES.get(self.code, {}).get(self.width)
        return None if name is None else np.dtype(self.byte_order + name)


@dataclass(frozen=True)
class WavFile:
    """A WAV file.

    Attributes:
        format: Of the samples.
        samples: Their bytes.
        note: What may be wrong with them, or None.
    """

    format: Format
    samples: bytes | memoryview
    note: str | None = None

    @property
    def can_be_read(self) -> bool:
        """Whether `blocks` reads the samples; else they need soundfile."""
        return self.format.dtype is not None and self.format.channels > 0

    @property
    def is_float(self) -> bool:
        """Whether only custom keeps the samples in -1..1."""
        return self.format.code == _FLOAT

    @property
    def num_frames(self) -> int:
        """Samples of each channel."""
        return len(self.samples) // (self.format.width * self.format.channels)

    def blocks(self) -> Iterator[Float32Array]:
        """The samples in order, (num_frames, channels), in -1..1 unless they are floats."""
        form = self.format
        step = form.width * form.channels
        end = self.num_frames * step
        for start in range(0, end, _BLOCK_FRAMES * step):
            block = self.samples[start : min(start + _BLOCK_FRAMES * step, end)]
            yield _to_floats(np.frombuffer(block, form.dtype), form).reshape(-1, form.channels)

    def rewritten(self) -> bytes:
        """The same samples as a file whose sizes are right."""
        form = self.format
        mark = b"RIFF" if form.byte_order == "<" else b"RIFX"
        chunks = [(b"fmt ", form.content), (b"data", self.samples)]
        parts = [b"WAVE"]
        for name, content in chunks:
            size = struct.pack(f"{form.byte_order}I", len(content))
            parts += [name, size, bytes(content), b"\0" * (len(content) % 2)]
        size = struct.pack(f"{form.byte_order}I", sum(map(len, parts)))
        return b"".join([mark, size, *parts])


def read_wav(data: bytes) -> WavFile | None:
    """What a WAV file holds; None for a file of another kind, or one without format or samples.

    Args:
        data: The file; ID3 tags may stand in front.
    """
    begin = end_of_id3(data)
    mark = data[begin : begin + 4]
    if mark not in _MARKS or data[begin + 8 : begin + 12] != b"WAVE":
        return None
    byte_order = ">" if mark == b"RIFX" else "<"
    form: Format | None = None
    long_size: int | None = None
    parts: list[memoryview] = []
    note = None
    for name, start, size in _chunks(data, begin + 12, byte_order):
        if name == b"ds64" and size >= 16:
            long_size = int.from_bytes(data[start + 8 : start + 16], "little")
        elif name == b"fmt " and form is None:
            form = _read_format(data[start : start + size], byte_order)
        elif name == b"data" and form is not None:
            declared = long_size if size == _IN_DS64 and long_size is not None else size
            size, note = _size_of_samples(data, start, declared, form)
            parts.append(memoryview(data)[start : start + size])
            if size != declared:
                break
    if form is None or not parts:
        return None
    return WavFile(form, parts[0] if len(parts) == 1 else b"".join(parts), note)


def _read_format(content: bytes, byte_order: str) -> Format | None:
    if len(content) < 16:
        return None
    code, channels, rate, _, align, bits = struct.unpack_from(f"{byte_order}HHIIHH", content)
    if code == _EXTENSIBLE:
        code = _code_of_name(content[24:40], byte_order)
    if code == _PCM and bits == 24 and align == 4 * channels:
        code = 0  # 24 bits of 32, but which? libsndfile looks at the samples
    return Format(content, byte_order, code, channels, rate, bits)


def _code_of_name(name: bytes, byte_order: str) -> int:
    if len(name) < 16:
        return 0
    code, *numbers = struct.unpack_from(f"{byte_order}IHH", name)
    tail = struct.pack("<IHH", code, *numbers)[2:] + name[8:]
    return code & 0xFFFF if tail in _NAME_TAILS else 0


def _chunks(data: bytes, start: int, byte_order: str) -> Iterator[tuple[bytes, int, int]]:
    """Name, first byte and size of each; a size may reach beyond the end."""
    for _ in range(_MAX_CHUNKS):
        name = data[start : start + 4]
        if start + 8 > len(data) or not _is_name(name):
            return
        size = struct.unpack_from(f"{byte_order}I", data, start + 4)[0]
        yield name, start + 8, size
        start += 8 + size
        if size % 2 and not _is_name(data[start : start + 4]):
            start += 1  # the padding that some writers forget


def _is_name(name: bytes) -> bool:
    return len(name) == 4 and all(0x20 <= byte < 0x7F for byte in name)


def _size_of_samples(data: bytes, start: int, declared: int, form: Format) -> tuple[int, str | None]:
    """How many bytes of samples there are, and what is to be said about it."""
    end = start + declared
    there = _start_of_trailers(data, start, form.byte_order) - start
    if (
        declared >= len(data) - start
    ):  # a guess made before the length was known, or a file that was cut short
        return there, None
    rest = memoryview(data)[end:]
    if is_tag(rest) or _are_chunks(data, end, form.byte_order):
        is_joined = data[end + 8 : end + 12] == b"WAVE" or data[end + 9 : end + 13] == b"WAVE"
        return declared, "behind it lies another WAV file, which was not read" if is_joined else None
    if declared == 0:  # the length was not known
        return there, None
    second = form.rate * form.channels * form.bits / 8
    is_short = len(rest) < _NOTED_SECONDS * second or not bytes(rest).strip(b"\0")
    if is_short and len(rest) <= declared:
        return declared, None
    return there, (
        f"the header says {declared} bytes of samples, but no other chunk follows them: {there} were read"
    )


def _start_of_trailers(data: bytes, start: int, byte_order: str) -> int:
    """Where the chunks begin that end where the file ends; its end where there are none."""
    end = len(data)
    for _ in range(_MAX_TRAILERS):
        begin = max(start, end - _SEARCHED)
        places = [place for name in _TRAILERS if (place := data.rfind(name, begin, end - 4)) >= 0]
        fitting = [place for place in places if end - _end_of_chunk(data, place, byte_order) in (0, 1)]
        if not fitting:
            break
        end = min(fitting)
    return end


def _end_of_chunk(data: bytes, start: int, byte_order: str) -> int:
    return start + 8 + int(struct.unpack_from(f"{byte_order}I", data, start + 4)[0])


def _are_chunks(data: bytes, start: int, byte_order: str) -> bool:
    """Whether the file goes on with chunks, with or without padding before."""
    for begin in (start, start + 1):
        end = begin
        for name, first, size in _chunks(data, begin, byte_order):
            if name in _TRAILERS:
                return True
            end = first + size
        if end > begin and abs(end - len(data)) < 8:
            return True
    return False


def _to_floats(values: npt.NDArray[np.generic], form: Format) -> Float32Array:
    if form.code in (_A_LAW, _MU_LAW):
        return (_a_law() if form.code == _A_LAW else _mu_law())[values.astype(np.uint8)]
    if form.code == _FLOAT:
        with np.errstate(over="ignore"):  # what is too large is refused by whoever looks at the values
            return values.astype(np.float32)
    half_range = 2 ** (8 * form.width - 1)
    if form.width == 1:
        values = values.astype(np.float32) - np.float32(half_range)
    if form.width == 3:  # the upper bytes of 32 bits
        wide = np.zeros((values.size // 3, 4), np.uint8)
        in_order = values.reshape(-1, 3) if form.byte_order == "<" else values.reshape(-1, 3)[:, ::-1]
        wide[:, 1:] = in_order
        values, half_range = wide.view("<i4")[:, 0], 2**31
    samples: Float32Array = values.astype(np.float32) / np.float32(half_range)
    return samples


@functools.cache
def _mu_law() -> Float32Array:
    """The values of G.711's mu-law bytes."""
    bits = ~np.arange(256) & 0xFF
    size = (((bits & 15) << 3) + 0x84 << (bits >> 4 & 7)) - 0x84
    values: Float32Array = (np.where(bits & 0x80, -size, size) / 2**15).astype(np.float32)
    return values


@functools.cache
def _a_law() -> Float32Array:
    """The values of G.711's A-law bytes."""
    bits = np.arange(256) ^ 0x55
    exponent, steps = bits >> 4 & 7, ((bits & 15) << 4) + 8
    size = np.where(exponent == 0, steps, (steps + 0x100) << np.maximum(exponent - 1, 0))
    values: Float32Array = (np.where(bits & 0x80, size, -size) / 2**15).astype(np.float32)
    return values
