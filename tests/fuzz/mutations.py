"""Damaged copies of good model files: case number i is the same bytes every time."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import executorch_mm

MODELS = Path(__file__).resolve().parents[1] / "models"
TINY_VLM = Path(executorch_mm.__file__).parent / "models" / "tiny_vlm" / "model.pte"
# Numbers that sizes and indices go wrong with.
INTERESTING = (0, 1, 2, 7, 8, 127, 128, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_DELEGATE_MARK = b"XH00"
_DELEGATE_STRUCTURE_BYTES = 1200  # header and graph of a small XNNPACK delegate


@dataclass(frozen=True)
class Source:
    """A good file: its bytes, and the places of what is structure and not weights."""

    path: Path
    data: bytes
    structure: range
    delegates: tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """A damaged copy."""

    source: Path
    what: str
    data: bytes


@cache
def sources() -> tuple[Source, ...]:
    """The small fixtures, and the model in the wheel as every fourth."""
    texts = [_read(path) for path in sorted((MODELS / "text").glob("*.pte"))]
    return (*texts[:3], _read(TINY_VLM), *texts[3:])


def _read(path: Path) -> Source:
    data = path.read_bytes()
    (program_bytes,) = struct.unpack_from("<Q", data, 16)
    marks = []
    at = data.find(_DELEGATE_MARK, program_bytes)
    while at >= 0:
        marks.append(at - 4)
        at = data.find(_DELEGATE_MARK, at + 1)
    return Source(path, data, range(program_bytes), tuple(marks))


def make_case(number: int) -> Case:
    """The damaged copy of this number."""
    rng = random.Random(number)
    source = sources()[number % len(sources())]
    kind = rng.choice(_KINDS)
    data = bytearray(source.data)
    what = kind(rng, source, data)
    return Case(source.path, f"{kind.__name__.strip('_')}: {what}", bytes(data))


def _place(rng: random.Random, source: Source, width: int) -> int:
    """Where a field of the structure may be: in the program, or in a delegate."""
    if source.delegates and rng.random() < 0.5:
        start = rng.choice(source.delegates)
        area = range(start, min(start + _DELEGATE_STRUCTURE_BYTES, len(source.data)))
    else:
        area = source.structure
    return rng.randrange(area.start, area.stop - 8) // width * width


def _bits(rng: random.Random, source: Source, data: bytearray) -> str:
    places = [_place(rng, source, 1) for _ in range(rng.choice((1, 1, 1, 2, 8)))]
    for place in places:
        data[place] ^= 1 << rng.randrange(8)
    return f"at {places}"


def _bits_anywhere(rng: random.Random, source: Source, data: bytearray) -> str:
    place = rng.randrange(len(data))
    data[place] ^= 1 << rng.randrange(8)
    return f"at {place}"


def _cut(rng: random.Random, source: Source, data: bytearray) -> str:
    del data[rng.randrange(len(data)) :]
    return f"to {len(data)} bytes"


def _number(rng: random.Random, source: Source, data: bytearray) -> str:
    width, letter = rng.choice(((1, "B"), (2, "H"), (4, "I"), (4, "I"), (4, "I"), (8, "Q")))
    place = _place(rng, source, width)
    (old,) = struct.unpack_from("<" + letter, data, place)
    new = rng.choice((*INTERESTING, old + 1, old - 1, old * 2, old // 2, rng.getrandbits(32)))
    struct.pack_into("<" + letter, data, place, new % (1 << 8 * width))
    return f"{old} at {place} became {new}"


def _header(rng: random.Random, source: Source, data: bytearray) -> str:
    place = rng.randrange(64)
    data[place] = rng.randrange(256)
    return f"byte {place} became {data[place]}"


def _moved(rng: random.Random, source: Source, data: bytearray) -> str:
    width = rng.choice((4, 8, 16, 64))
    here, there = _place(rng, source, 4), _place(rng, source, 4)
    data[there : there + width] = data[here : here + width]
    return f"{width} bytes from {here} to {there}"


_KINDS = (_bits, _bits, _bits, _number, _number, _number, _number, _moved, _bits_anywhere, _cut, _header)
