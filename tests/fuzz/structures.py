"""Copies of good files with something that means something changed: shapes, places, names, parameters.

Case number i is the same bytes every time. Shapes are found without a schema: a count of 2 to 6 and as many
small sizes behind it.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mutations import MODELS, TINY_VLM

_DELEGATE_MARK = b"XH00"
_MAX_EDGE = 1 << 17
# Programs with XNNPACK's graphs of every kind, and a program with its weights beside it.
PROGRAMS = (
    MODELS / "speech" / "kv.pte",
    TINY_VLM,
    MODELS / "clip" / "clip.pte",
    MODELS / "multimodal" / "llava.pte",
    MODELS / "speech" / "optimum.pte",
    MODELS / "mel" / "mel_small.pte",
    MODELS / "transducer" / "tdt.pte",
    MODELS / "transducer_chunks" / "rnnt_caches.pte",
    MODELS / "optimum" / "llama.pte",
    MODELS / "multimodal" / "image_audio.pte",
    MODELS / "optimum" / "gemma3_window.pte",
    MODELS / "export_llm" / "llama_xnnpack_8da4w.pte",
)
WITH_DATA = (
    (MODELS / "external_weights" / "model.pte", MODELS / "external_weights" / "all.ptd"),
    (MODELS / "export_llm" / "llama_data_file.pte", MODELS / "export_llm" / "llama_weights.ptd"),
)


@dataclass(frozen=True)
class Case:
    """A changed copy of a program, or of the data beside it."""

    program: Path
    data: Path | None
    what: str
    program_bytes: bytes
    data_bytes: bytes | None


@dataclass(frozen=True)
class _Area:
    """Where graphs, or a file's structure, lie; `shapes` are places of counts."""

    shapes: tuple[int, ...]
    spans: tuple[range, ...]


@cache
def _graphs(path: Path) -> _Area:
    data = path.read_bytes()
    spans = []
    at = data.find(_DELEGATE_MARK)
    while at >= 0:
        start = at - 4
        offset, size = struct.unpack_from("<II", data, start + 10)
        if 0 < offset + size < len(data) - start:
            spans.append(range(start + offset, start + offset + size))
        at = data.find(_DELEGATE_MARK, at + 1)
    return _Area(tuple(place for span in spans for place in _shapes(data, span)), tuple(spans))


@cache
def _structure(path: Path) -> _Area:
    data = path.read_bytes()
    offset, size = struct.unpack_from("<QQ", data, 16)
    span = range(64, offset + size)
    return _Area(tuple(_shapes(data, span)), (span,))


def _shapes(data: bytes, span: range) -> list[int]:
    found = []
    for place in range((span.start + 3) // 4 * 4, span.stop - 12, 4):
        (count,) = struct.unpack_from("<I", data, place)
        if not 2 <= count <= 6 or place + 4 + 4 * count > span.stop:
            continue
        sizes = struct.unpack_from(f"<{count}I", data, place + 4)
        if all(0 < size < _MAX_EDGE for size in sizes) and max(sizes) > 1:
            found.append(place)
    return found


def make_case(number: int) -> Case:
    """The changed copy of this number; every fourth is of a data file."""
    rng = random.Random(number)
    if number % 4 == 3:
        program, data_file = WITH_DATA[number // 4 % len(WITH_DATA)]
        data = bytearray(data_file.read_bytes())
        kind = rng.choice(_DATA_KINDS)
        what = kind(rng, data, _structure(data_file))
        return Case(program, data_file, f"{kind.__name__[1:]}: {what}", program.read_bytes(), bytes(data))
    program = PROGRAMS[number // 4 % len(PROGRAMS)]
    changed = bytearray(program.read_bytes())
    what = ", ".join(
        f"{kind.__name__[1:]}: {kind(rng, changed, _graphs(program))}"
        for kind in rng.choices(_GRAPH_KINDS, k=rng.choice((1, 1, 1, 2)))
    )
    return Case(program, None, what, bytes(changed), None)


def _read_shape(data: bytearray, place: int) -> tuple[int, ...]:
    (count,) = struct.unpack_from("<I", data, place)
    return struct.unpack_from(f"<{count}I", data, place + 4) if 0 < count <= 6 else ()


def _other(rng: random.Random, size: int) -> int:
    choices = (1, 0, size + 1, max(size - 1, 0), size * 2, size // 2, 7, 64, 4096, 1 << 20)
    return rng.choice([choice for choice in choices if choice != size])


def _shape(rng: random.Random, data: bytearray, area: _Area) -> str:
    """One size, in one place or wherever the same shape stands."""
    place = rng.choice(area.shapes)
    shape = _read_shape(data, place)
    if not shape:
        return "nothing"
    index = rng.randrange(len(shape))
    size = _other(rng, shape[index])
    places = [place]
    if rng.random() < 0.6:
        places = [other for other in area.shapes if _read_shape(data, other) == shape]
    for other in places:
        struct.pack_into("<I", data, other + 4 + 4 * index, size)
    return f"{shape}[{index}] became {size} in {len(places)} places"


def _same_size(rng: random.Random, data: bytearray, area: _Area) -> str:
    """A number wherever it is a size: layers still fit each other, and their weights do not."""
    shape = _read_shape(data, rng.choice(area.shapes))
    if not shape:
        return "nothing"
    old = rng.choice(shape)
    new = _other(rng, old)
    count = 0
    for place in area.shapes:
        for index, size in enumerate(_read_shape(data, place)):
            if size == old:
                struct.pack_into("<I", data, place + 4 + 4 * index, new)
                count += 1
    return f"{old} became {new} in {count} places"


def _copied_shape(rng: random.Random, data: bytearray, area: _Area) -> str:
    """One shape becomes another of the same rank."""
    to = rng.choice(area.shapes)
    shape = _read_shape(data, to)
    others = [place for place in area.shapes if len(_read_shape(data, place)) == len(shape)]
    new = _read_shape(data, rng.choice(others))
    if shape:
        struct.pack_into(f"<{len(shape)}I", data, to + 4, *new)
    return f"{shape} at {to} became {new}"


def _parameter(rng: random.Random, data: bytearray, area: _Area) -> str:
    """A small number: a stride, a flag, an axis, the number of a value, a type."""
    span = rng.choice(area.spans)
    for _ in range(200):
        place = rng.randrange((span.start + 3) // 4 * 4, span.stop - 4, 4)
        (old,) = struct.unpack_from("<I", data, place)
        if old < 64:
            new = rng.choice((0, 1, 2, 3, old + 1, max(old - 1, 0), rng.randrange(64), 255))
            struct.pack_into("<I", data, place, new)
            return f"{old} at {place} became {new}"
    return "nothing"


def _number(rng: random.Random, data: bytearray, area: _Area) -> str:
    span = rng.choice(area.spans)
    width, letter = rng.choice(((1, "B"), (2, "H"), (4, "I"), (8, "Q")))
    place = rng.randrange(span.start, span.stop - 8) // width * width
    (old,) = struct.unpack_from("<" + letter, data, place)
    new = rng.choice((0, 1, old + 1, old - 1, old * 2, rng.getrandbits(64), 1 << (8 * width - 1)))
    struct.pack_into("<" + letter, data, place, new % (1 << 8 * width))
    return f"{old} at {place} became {new}"


def _header(rng: random.Random, data: bytearray, area: _Area) -> str:
    place = rng.choice((16, 24, 32, 40))
    (old,) = struct.unpack_from("<Q", data, place)
    new = rng.choice((0, 8, old + 1, old - 1, old * 2, len(data), 1 << 63, (1 << 64) - 8))
    struct.pack_into("<Q", data, place, new % (1 << 64))
    return f"{old} at {place} became {new}"


def _segment(rng: random.Random, data: bytearray, area: _Area) -> str:
    """A place or a length, of those that the file's own sizes make likely."""
    (span,) = area.spans
    (most,) = struct.unpack_from("<Q", data, 40)
    places = [
        place
        for place in range(span.start, span.stop - 8, 8)
        if 0 < struct.unpack_from("<Q", data, place)[0] <= most
    ]
    if not places:
        return "nothing"
    place = rng.choice(places)
    (old,) = struct.unpack_from("<Q", data, place)
    new = rng.choice((0, 1, old - 1, old + 1, old * 2, most, most + 1, 1 << 40, (1 << 64) - 1))
    struct.pack_into("<Q", data, place, new)
    return f"{old} at {place} became {new}"


def _byte(rng: random.Random, data: bytearray, area: _Area) -> str:
    """In names, orders of dimensions, types."""
    place = rng.choice(area.spans[0])
    old, data[place] = data[place], rng.choice((0, 1, 2, 3, 6, 0xFF, data[place] ^ 1))
    return f"{old} at {place} became {data[place]}"


def _cut(rng: random.Random, data: bytearray, area: _Area) -> str:
    del data[rng.randrange(len(data)) :]
    return f"to {len(data)} bytes"


_GRAPH_KINDS = (_shape, _shape, _same_size, _copied_shape, _parameter, _parameter, _number)
_DATA_KINDS = (_shape, _copied_shape, _number, _number, _header, _segment, _segment, _byte, _cut)
