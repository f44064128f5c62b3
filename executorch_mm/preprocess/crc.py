"""Cyclic redundancy checks as FLAC and Ogg compute them: most significant bit first, nothing inverted."""

from __future__ import annotations

import functools


@functools.cache
def _table(bits: int, polynomial: int) -> tuple[int, ...]:
    """The remainders of all bytes."""
    top, mask = 1 << bits - 1, (1 << bits) - 1
    table = []
    for byte in range(256):
        value = byte << bits - 8
        for _ in range(8):
            value = (value << 1 ^ polynomial if value & top else value << 1) & mask
        table.append(value)
    return tuple(table)


def crc(data: bytes | bytearray, bits: int, polynomial: int, value: int = 0) -> int:
    """The check of some bytes.

    Args:
        data: The bytes.
        bits: Of the check; at least 8.
        polynomial: Without its highest power.
        value: The check of the bytes before them.
    """
    table, kept, shift = _table(bits, polynomial), (1 << bits - 8) - 1, bits - 8
    for byte in data:
        value = (value & kept) << 8 ^ table[value >> shift ^ byte]
    return value
