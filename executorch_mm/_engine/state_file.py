"""Conversations in files.

The body of such a file: history and pending tokens (int64), the logits (float32), and the state, buffer by
buffer as `Contract.state_layout` says, all little-endian.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from executorch_mm import _core
from executorch_mm._files.paths import checked_path
from executorch_mm._files.sealed_file import SealedFile, write_sealed
from executorch_mm._loading.identity import ModelIdentity
from executorch_mm.errors import InputError, StateFileError, shown

StateDType = Literal["float32", "float16", "int8"]
"""How caches of float32 are written: as they are, or rounded to take less room."""

_Bytes: TypeAlias = "npt.NDArray[np.uint8]"
_Layout: TypeAlias = list[tuple[str, str, int]]

VERSION = 1
_GROUP = 32  # values that have a scale in common, in int8


def save_state(
    path: Path,
    saved: _core.Snapshot,
    media: Sequence[bytes],
    contract: _core.Contract,
    identity: ModelIdentity,
    dtype: StateDType,
) -> None:
    """Writes a conversation.

    Args:
        path: Of the file.
        saved: The conversation.
        media: Digests of the runs of images and audio in it.
        contract: Of the model.
        identity: Of model and tokenizer.
        dtype: How float32 caches are written.

    Raises:
        InputError: There is no such dtype, or it does not hold the numbers.
        StateFileError: The file cannot be written.
    """
    check_dtype(dtype)
    state = list(saved.state)
    if dtype != "float32":
        content = np.concatenate([*state, np.empty(0, np.uint8)])
        state = [_packed(piece, kind, dtype) for piece, kind in _split(content, saved.position, contract)]
    logits = np.empty(0, np.float32) if saved.logits is None else saved.logits
    history, pending = (np.asarray(ids, "<i8") for ids in (saved.history, saved.pending_tokens))
    header = {
        "model": identity.model,
        "tokenizer": identity.tokenizer,
        "method": contract.decoder,
        "is_state_shared": contract.is_state_shared,
        "position": saved.position,
        "written": saved.written,
        "num_pending": len(pending),
        "num_logits": len(logits),
        "dtype": dtype,
        "media": [digest.hex() for digest in media],
    }
    body = [history, pending, np.asarray(logits, "<f4"), *state]
    write_sealed(path, VERSION, header, [piece.view(np.uint8).data for piece in body if piece.size])


def load_state(path: str | os.PathLike[str], session: _core.Session, identity: ModelIdentity) -> list[bytes]:
    """Goes on with the conversation in a file.

    Args:
        path: Of the file.
        session: Is as it was if anything is wrong with the file.
        identity: Of its model and tokenizer.

    Returns:
        Digests of the runs of images and audio in the conversation.

    Raises:
        StateFileError: The file is missing, damaged, or of another model or tokenizer.
        InputError: It is no path.
    """
    path = checked_path(path, "snapshot")
    with SealedFile(path, VERSION) as file:
        head = _Header(file, session.contract, identity)
        if file.body_bytes != head.body_bytes:
            raise file.damaged(f"its content has {file.body_bytes} bytes, expected {head.body_bytes}")
        history, pending, logits, state = np.split(file.body(), head.cuts)
        if head.dtype != "float32":
            state = _unpacked(state, session.contract.state_layout(head.position), head.dtype)
        try:
            session.load_conversation(
                head.position,
                head.written,
                history.view("<i8").tolist(),
                pending.view("<i8").tolist(),
                state,
                logits.view("<f4") if logits.size else None,
            )
        except InputError as error:
            raise StateFileError(f"{path}: {error}") from error
    return head.media


def check_dtype(dtype: object) -> None:
    """Refuses what is no `StateDType`.

    Raises:
        InputError: It says which there are.
    """
    if not isinstance(dtype, str) or dtype not in get_args(StateDType):
        raise InputError(f"dtype: expected one of {', '.join(get_args(StateDType))}, got {shown(dtype)}")


class _Header:
    """The header of a file, every number in it checked before anything is done with it."""

    def __init__(self, file: SealedFile, contract: _core.Contract, identity: ModelIdentity) -> None:
        self._file = file
        self._expect_model(contract, identity)
        most = 1 << 48 if contract.is_unbounded else contract.capacity
        self.position = self._number("position", most)
        self.written = self._number("written", most)
        num_pending = self._number("num_pending", contract.max_chunk)
        num_logits = self._number("num_logits", contract.vocab_size)
        if num_logits not in (0, contract.vocab_size):
            raise file.damaged(f"num_logits: expected 0 or {contract.vocab_size}, got {num_logits}")
        self.dtype = self._text("dtype")
        if self.dtype not in get_args(StateDType):
            raise file.damaged(f"dtype: expected one of {', '.join(get_args(StateDType))}")
        sizes = [8 * self.position, 8 * num_pending, 4 * num_logits]
        self.cuts = np.cumsum(sizes).tolist()
        layout = contract.state_layout(self.position)
        self.body_bytes = sum(sizes) + sum(_packed_bytes(piece, self.dtype) for piece in layout)
        self.media = self._media()

    def _expect_model(self, contract: _core.Contract, identity: ModelIdentity) -> None:
        path = self._file.path
        for name, own in (("model", identity.model), ("tokenizer", identity.tokenizer)):
            if self._text(name) != own:
                raise StateFileError(f"{path}: the conversation is one with another {name}")
        method, is_shared = self._text("method"), self._file.header.get("is_state_shared") is True
        if method != contract.decoder and not (is_shared and contract.is_state_shared):
            raise StateFileError(
                f"{path}: the conversation is one with the method {method}, which has a cache of its own: "
                "use_method() first"
            )

    def _number(self, name: str, most: int) -> int:
        value = self._file.header.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self._file.damaged(f"{name}: expected a number of 0 or more")
        if value > most:
            raise StateFileError(
                f"{self._file.path}: {name}: the model has room for {most}, the conversation has {value}"
            )
        return value

    def _text(self, name: str) -> str:
        value = self._file.header.get(name)
        if not isinstance(value, str):
            raise self._file.damaged(f"{name}: expected a text")
        return value

    def _media(self) -> list[bytes]:
        digests = self._file.header.get("media")
        if not isinstance(digests, list) or len(digests) > self.position:
            raise self._file.damaged("media: expected a list")
        try:
            return [bytes.fromhex(digest) for digest in digests]
        except (TypeError, ValueError) as error:
            raise self._file.damaged(f"media: {error}") from error


def _is_packed(piece: tuple[str, str, int], dtype: str) -> bool:
    """Caches of float32; recurrences carry an error on for ever, and other numbers are exact already."""
    kind, own, _ = piece
    return dtype != "float32" and kind != "whole" and own == "float32"


def _packed_bytes(piece: tuple[str, str, int], dtype: str) -> int:
    nbytes = piece[2]
    if not _is_packed(piece, dtype):
        return nbytes
    count = nbytes // 4
    return 2 * count if dtype == "float16" else count + 4 * -(-count // _GROUP)


def _split(
    content: _Bytes, num_positions: int, contract: _core.Contract
) -> list[tuple[_Bytes, tuple[str, str, int]]]:
    layout = contract.state_layout(num_positions)
    ends = np.cumsum([nbytes for _, _, nbytes in layout]).tolist()
    return list(zip(np.split(content, ends[:-1]), layout, strict=True)) if layout else []


def _packed(content: _Bytes, piece: tuple[str, str, int], dtype: str) -> _Bytes:
    if not _is_packed(piece, dtype) or not content.size:
        return content
    values = content.view("<f4")
    if not np.isfinite(values).all() or (dtype == "float16" and np.abs(values).max() > 65504):
        raise InputError(f"dtype: {dtype} does not hold the numbers in the cache: expected dtype='float32'")
    if dtype == "float16":
        return values.astype("<f2").view(np.uint8)
    groups = np.zeros((-(-values.size // _GROUP), _GROUP), np.float32)
    groups.reshape(-1)[: values.size] = values
    scales = (np.abs(groups).max(axis=1) / np.float32(127)).astype("<f4")
    steps = np.where(scales > 0, scales, np.float32(1))[:, np.newaxis]
    rounded = np.rint(groups / steps).astype(np.int8).reshape(-1)[: values.size]
    return np.concatenate([scales.view(np.uint8), rounded.view(np.uint8)])


def _unpacked(content: _Bytes, layout: _Layout, dtype: str) -> _Bytes:
    result = np.empty(sum(nbytes for _, _, nbytes in layout), np.uint8)
    read = written = 0
    for piece in layout:
        stored = content[read : read + _packed_bytes(piece, dtype)]
        place = result[written : written + piece[2]]
        read += stored.size
        written += place.size
        if not _is_packed(piece, dtype):
            place[:] = stored
        elif dtype == "float16":
            place.view("<f4")[:] = stored.view("<f2")
        else:
            values = place.view("<f4")
            num_whole, num_left = divmod(values.size, _GROUP)
            num_scales = num_whole + (num_left > 0)
            scales = stored[: 4 * num_scales].view("<f4")
            steps = stored[4 * num_scales :].view(np.int8)
            whole = num_whole * _GROUP
            with np.errstate(all="ignore"):  # whatever a stranger has written there
                groups = values[:whole].reshape(-1, _GROUP)
                np.multiply(steps[:whole].reshape(-1, _GROUP), scales[:num_whole, np.newaxis], out=groups)
                if num_left:
                    np.multiply(steps[whole:], scales[-1], out=values[whole:])
    return result
