"""How an image is to be turned, read so that whatever else its EXIF block holds costs nothing.

An EXIF block is a TIFF file without pixels. Pillow takes its entries all together, and one that is odd can
cost the image.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

_ORIENTATION = 0x0112
_UPRIGHT = 1
_PREFIX = b"Exif\0\0"
# By TIFF's number of the type: how a value is read. Two letters are a fraction.
_NUMBERS = {
    1: "B", 3: "H", 4: "I", 5: "II", 6: "b", 7: "B", 8: "h", 9: "i", 10: "ii", 11: "f", 12: "d", 16: "Q",
    17: "q",
}  # fmt: skip
_ORDERS = {b"II": "<", b"MM": ">"}
_CLASSIC, _BIG = 42, 43

# What TIFF needs to find pixels and to make colours of them; the rest is about the image.
_PIXEL_TAGS = {*range(254, 267), 273, *range(277, 282), 284, *range(290, 294), 317, *range(320, 326)}
_PIXEL_TAGS |= {*range(332, 342), 347, *range(512, 522), *range(529, 533), 50674}


@dataclass(frozen=True)
class _Entry:
    """One entry of a directory: its tag, and how many values of which type it has."""

    tag: int
    kind: int
    count: int
    place: int  # of the value, or of its offset


@dataclass(frozen=True)
class _Directory:
    """The first directory of a TIFF file.

    Attributes:
        order: "<" or ">".
        is_big: Whether offsets have 64 bits.
        start: Where the number of entries is.
        count: What that says.
    """

    data: bytes
    order: str
    is_big: bool
    start: int
    count: int

    @property
    def first_entry(self) -> int:
        return self.start + (8 if self.is_big else 2)

    @property
    def entry_bytes(self) -> int:
        return 20 if self.is_big else 12

    def entries(self) -> Iterator[_Entry]:
        """Those that are inside the data."""
        layout = self.order + ("HHQ" if self.is_big else "HHI")
        for index in range(self.count):
            place = self.first_entry + index * self.entry_bytes
            if place + self.entry_bytes > len(self.data):
                return
            tag, kind, count = struct.unpack_from(layout, self.data, place)
            yield _Entry(tag, kind, count, place + struct.calcsize(layout))

    def number(self, entry: _Entry) -> float | None:
        """The first value of an entry; None where it has none or no number."""
        letters = _NUMBERS.get(entry.kind)
        if letters is None or entry.count == 0:
            return None
        place, room = entry.place, 8 if self.is_big else 4
        try:
            if struct.calcsize("<" + letters) * entry.count > room:
                (place,) = struct.unpack_from(self.order + ("Q" if self.is_big else "I"), self.data, place)
            values = struct.unpack_from(self.order + letters, self.data, place)
            return float(values[0] / values[1] if len(values) == 2 else values[0])
        except (struct.error, ArithmeticError):
            return None


def _first_directory(data: bytes) -> _Directory | None:
    order = _ORDERS.get(data[:2])
    if order is None or len(data) < 8:
        return None
    # Pillow reads the version in either byte order.
    version = max(data[2:4])
    is_big = version == _BIG
    if version not in (_CLASSIC, _BIG) or min(data[2:4]):
        return None
    try:
        (start,) = struct.unpack_from(order + ("Q" if is_big else "I"), data, 8 if is_big else 4)
        (count,) = struct.unpack_from(order + ("Q" if is_big else "H"), data, start)
    except (struct.error, OverflowError):
        return None
    return _Directory(data, order, is_big, start, count)


def read_orientation(block: object) -> int | None:
    """The orientation that an EXIF block or a TIFF file names.

    Args:
        block: Its bytes; anything else names none.

    Returns:
        1 to 8, or None where it cannot be read.
    """
    if not isinstance(block, bytes):
        return None
    while block.startswith(_PREFIX):
        block = block[len(_PREFIX) :]
    directory = _first_directory(block)
    for entry in directory.entries() if directory is not None else ():
        if entry.tag == _ORIENTATION and directory is not None:
            return _valid(directory.number(entry))
    return None


def _valid(value: object) -> int | None:
    return int(value) if isinstance(value, (int, float)) and value in range(1, 9) else None


def orientation_block(orientation: int) -> bytes:
    """An EXIF block that says how an image is to be turned and nothing else."""
    entry = struct.pack("<HHIHH", _ORIENTATION, 3, 1, orientation, 0)
    return _PREFIX + b"II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)


def orientation_of(image: Image.Image) -> int:
    """How an image is to be turned, 1 to 8; 1 where that cannot be read.

    Pillow is asked first: it knows what the caller has changed, and XMP. Where it gives up, the block is read
    here. A TIFF file that Pillow has opened was turned when it was read.
    """
    if hasattr(image, "tag_v2"):
        return read_orientation(image.info.get("exif")) or _UPRIGHT
    try:
        value = image.getexif().get(_ORIENTATION, _UPRIGHT)
        number = _valid(value if isinstance(value, int) else None)
    except Exception:  # noqa: BLE001  # anything, for an entry that is odd
        number = None
    return number or read_orientation(image.info.get("exif")) or _UPRIGHT


def with_pixel_tags_only(tiff: bytes) -> bytes:
    """A TIFF file with one image and without what is said about it, which may be odd.

    Args:
        tiff: The file; where it has no directory it comes back as it is.
    """
    directory = _first_directory(tiff)
    if directory is None:
        return tiff
    size = directory.entry_bytes
    kept = [entry for entry in directory.entries() if entry.tag in _PIXEL_TAGS]
    head = struct.calcsize("<HHQ" if directory.is_big else "<HHI")
    entries = b"".join(tiff[entry.place - head : entry.place - head + size] for entry in kept)
    length = struct.pack(directory.order + ("Q" if directory.is_big else "H"), len(kept))
    # Behind the last entry stands where the next image is: nowhere.
    changed = length + entries + bytes(8 if directory.is_big else 4)
    return b"".join((tiff[: directory.start], changed, tiff[directory.start + len(changed) :]))
