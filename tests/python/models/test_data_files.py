"""Files of weights (.ptd): what does not fit the program, or itself, is refused with its place.

The layout of the format: ExecuTorch 1.5.1, extension/flat_tensor/serialize/flat_tensor.fbs and
flat_tensor_header.h.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from executorch_mm import ModelLoadError, MultimodalRunner
from number_tokenizer import NumberTokenizer

FOLDER = Path(__file__).resolve().parents[2] / "models" / "external_weights"
GOOD = (FOLDER / "all.ptd").read_bytes()
# Header: marks, its length, then where the structure and the segments lie.
STRUCTURE_BYTES, SEGMENT_BASE, SEGMENT_BYTES = 24, 32, 40


def load(data: bytes, folder: Path) -> None:
    path = folder / "weights.ptd"
    path.write_bytes(data)
    with MultimodalRunner(FOLDER / "model.pte", NumberTokenizer(), data_path=path):
        pass


def put(place: int, value: int) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        return data[:place] + struct.pack("<Q", value % (1 << 64)) + data[place + 8 :]

    return change


def replace(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    assert old in GOOD
    return lambda data: data.replace(old, new, 1)


def shape(*sizes: int) -> bytes:
    """As a vector of sizes is written."""
    return struct.pack(f"<{len(sizes) + 1}I", len(sizes), *sizes)


def largest_segment() -> int:
    """Where the size of a segment is written, 8 bytes that are no other number of the structure."""
    (base,) = struct.unpack_from("<Q", GOOD, SEGMENT_BASE)
    sizes = range(64, base - 8, 8)
    return max(sizes, key=lambda place: _size_at(place))


def _size_at(place: int) -> int:
    (value,) = struct.unpack_from("<Q", GOOD, place)
    (most,) = struct.unpack_from("<Q", GOOD, SEGMENT_BYTES)
    return value if value < most else 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:30], "expected the marks FT01 and FH01"),
        (lambda data: data[:4] + b"FT99" + data[8:], "expected the marks FT01 and FH01"),
        (lambda data: data[: len(data) // 2], "header: it says .* the file has"),
        (put(STRUCTURE_BYTES, 1 << 63), "header: it says"),
        (put(STRUCTURE_BYTES, 16), "the data ends at 64"),
        (put(SEGMENT_BASE, len(GOOD) + 1), "header: it says"),
        (put(SEGMENT_BYTES, (1 << 64) - 8), "header: it says"),
        (put(SEGMENT_BYTES, 64), r"segments\[\d+\]: \d+ bytes at \d+ of 64"),
        (put(largest_segment(), 1 << 40), r"segments\[\d+\]: \d+ bytes at \d+ of"),
        (put(64, 0xFFFFFFFFFFFFFFF0), "weights.ptd"),
    ],
    ids=[
        "cut in the header",
        "another mark",
        "cut in the data",
        "long structure",
        "short structure",
        "base behind the end",
        "more data than there is",
        "less data than its segments",
        "a long segment",
        "noise in the structure",
    ],
)
def test_a_damaged_file_of_weights_is_refused(
    tmp_path: Path, change: Callable[[bytes], bytes], message: str
) -> None:
    with pytest.raises(ModelLoadError, match=message):
        load(change(GOOD), tmp_path)


def first_shape() -> tuple[int, int]:
    """The shape of a matrix in the file: two sizes of which the second is a multiple of 8."""
    for place in range(64, len(GOOD) - 12, 4):
        count, rows, columns = struct.unpack_from("<III", GOOD, place)
        if count == 2 and 8 <= rows < 4096 and 8 <= columns < 4096 and columns % 8 == 0:
            return rows, columns
    raise AssertionError("no matrix")


def test_a_tensor_larger_than_its_data_is_refused(tmp_path: Path) -> None:
    rows, columns = first_shape()
    with pytest.raises(ModelLoadError, match=r"tensor_layout: a tensor of \d+ bytes, its data has \d+"):
        load(replace(shape(rows, columns), shape(2 * rows, columns))(GOOD), tmp_path)


def test_a_tensor_of_another_shape_than_the_program_says_is_refused(tmp_path: Path) -> None:
    """As large, so that the file alone is right."""
    rows, columns = first_shape()
    with pytest.raises(ModelLoadError, match=r"is another tensor in the \.ptd file: expected"):
        load(replace(shape(rows, columns), shape(2 * rows, columns // 2))(GOOD), tmp_path)


def test_names_that_are_in_two_files_are_refused() -> None:
    data = [FOLDER / "all.ptd", FOLDER / "ends.ptd"]
    with pytest.raises(ModelLoadError, match="is there twice"):
        MultimodalRunner(FOLDER / "model.pte", NumberTokenizer(), data_path=data)


def test_a_program_is_no_file_of_weights() -> None:
    with pytest.raises(ModelLoadError, match=r"model\.pte: header: expected the marks FT01 and FH01"):
        MultimodalRunner(FOLDER / "model.pte", NumberTokenizer(), data_path=FOLDER / "model.pte")
