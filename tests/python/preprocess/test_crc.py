"""Cyclic redundancy checks against the check values of "123456789" that catalogues of them publish."""

from __future__ import annotations

import pytest

from executorch_mm.preprocess.crc import crc


@pytest.mark.parametrize(
    ("bits", "polynomial", "start", "expected"),
    [
        (8, 0x07, 0, 0xF4),  # CRC-8/SMBUS, of FLAC's frame headers
        (16, 0x8005, 0, 0xFEE8),  # CRC-16/UMTS, of FLAC's frames
        (32, 0x04C11DB7, 0xFFFFFFFF, 0x0376E6E7),  # CRC-32/MPEG-2; Ogg's begins at 0
    ],
)
def test_the_check_is_the_published_one(bits: int, polynomial: int, start: int, expected: int) -> None:
    assert crc(b"123456789", bits, polynomial, start) == expected
    assert crc(b"6789", bits, polynomial, crc(b"12345", bits, polynomial, start)) == expected
