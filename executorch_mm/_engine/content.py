"""Names for what images, audio and embeddings hold: what is alike has the same, everything else another."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from executorch_mm.arrays import AnyArray
from executorch_mm.arrays import numpy as np
from executorch_mm.inputs import MultimodalInput

_BYTES = 16


def content_of(part: MultimodalInput, arrays: Iterable[AnyArray | None]) -> bytes:
    """A digest of 16 bytes: of the name that the caller vouches for, or else of what an encoder is given.

    Args:
        part: The input.
        arrays: What was made of it: pixels or features, and what goes with them.
    """
    kind = "audio" if part.is_audio() else part.kind
    if part.id is not None:
        return _digest(f"id of {kind} {part.id}").digest()
    digest = _digest(kind)
    for array in arrays:
        if array is None:
            continue
        digest.update(f" {array.dtype} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.digest()


def _digest(text: str) -> hashlib.blake2b:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_BYTES)
