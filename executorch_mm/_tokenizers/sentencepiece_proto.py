"""The pieces of a SentencePiece model's file (protocol buffers) that its library has no accessor for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

_PIECES = 1  # of ModelProto; of a piece: its text (1), score (2) and type (3)
_TEXT, _TYPE = 1, 3
_USER_DEFINED = 4
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def user_defined_symbols(proto: bytes) -> dict[str, int]:
    """Pieces that are found in every text as they are written, by their text."""
    found = {}
    for token_id, piece in enumerate(_pieces(proto)):
        fields = {number: value for number, _, value in _fields(piece)}
        if fields.get(_TYPE) == _USER_DEFINED and isinstance(text := fields.get(_TEXT), bytes):
            found[text.decode("utf-8")] = token_id
    return found


def with_other_texts(proto: bytes, texts: Mapping[int, str]) -> bytes:
    """The model with other texts for some pieces; their ids are the same."""
    changed = bytearray()
    token_id = 0
    for number, raw, value in _fields(proto):
        if number != _PIECES or not isinstance(value, bytes):
            changed += raw
            continue
        if (text := texts.get(token_id)) is not None:
            encoded = text.encode("utf-8")
            # Of a field that is there twice, the later one counts.
            value += _key(_TEXT) + _varint(len(encoded)) + encoded
        changed += _key(_PIECES) + _varint(len(value)) + value
        token_id += 1
    return bytes(changed)


def _pieces(proto: bytes) -> Iterator[bytes]:
    for number, _, value in _fields(proto):
        if number == _PIECES and isinstance(value, bytes):
            yield value


def _fields(message: bytes) -> Iterator[tuple[int, bytes, int | bytes]]:
    """Number, all bytes, and value of each field; of a file that SentencePiece has read already."""
    at = 0
    while at < len(message):
        start = at
        key, at = _read_varint(message, at)
        value: int | bytes
        if key & 7 == _VARINT:
            value, at = _read_varint(message, at)
        else:
            size, at = (
                _read_varint(message, at) if key & 7 == _BYTES else ({_FIXED64: 8, _FIXED32: 4}[key & 7], at)
            )
            value, at = message[at : at + size], at + size
        yield key >> 3, message[start:at], value


def _key(number: int) -> bytes:
    return _varint(number << 3 | _BYTES)


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
