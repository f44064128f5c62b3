"""Tags of MP3's kind, which stand around audio of every kind."""

from __future__ import annotations


def end_of_id3(data: bytes, start: int = 0) -> int:
    """The byte behind the ID3v2 tags that begin here; `start` where there are none."""
    while data[start : start + 3] == b"ID3" and start + 10 <= len(data):
        size = 0
        for byte in data[start + 6 : start + 10]:
            size = size << 7 | byte & 0x7F
        has_footer = bool(data[start + 5] & 0x10)
        start += 10 + size + 10 * has_footer
    return start


def is_tag(rest: bytes | memoryview) -> bool:
    """Whether the end of a file is a tag."""
    return bytes(rest[:8]).startswith((b"ID3", b"APETAGEX")) or (len(rest) == 128 and rest[:3] == b"TAG")
