"""What an encoder of chunks hears: columns of features, chunk by chunk, with those before and behind."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np

from executorch_mm import _core
from executorch_mm.speech._feature_stream import FeatureStream, Floats


class Chunks:
    """Columns in, chunks out.

    Args:
        contract: Of the model.
    """

    def __init__(self, contract: _core.TransducerContract) -> None:
        self._contract = contract
        # What the next chunk begins with is its history: zeros at the beginning.
        self._kept = np.zeros((1, contract.num_bins, contract.history), np.float32)

    @property
    def num_missing(self) -> int:
        """Columns that a whole chunk lacks."""
        return max(0, self._contract.max_columns - self._kept.shape[2])

    def push(self, columns: Floats) -> None:
        """Adds columns."""
        self._kept = np.concatenate([self._kept, columns.astype(np.float32, copy=False)], axis=2)

    def first(self, *, is_last: bool) -> tuple[Floats, int] | None:
        """The next chunk and how many of its columns are no padding; None where there is none.

        Args:
            is_last: Nothing follows: what is left is a chunk too, with zeros behind it.
        """
        size, length = self._contract.max_columns, self._kept.shape[2]
        if length >= size:
            return np.ascontiguousarray(self._kept[:, :, :size]), size
        if not is_last or length <= self._contract.history:
            return None
        padding = np.zeros((1, self._contract.num_bins, size - length), np.float32)
        return np.concatenate([self._kept, padding], axis=2), length

    def drop(self) -> None:
        """The first chunk has been heard."""
        self._kept = self._kept[:, :, self._contract.chunk_columns :].copy()


class ChunkStream:
    """One stream of audio or features, as far as it has been heard.

    Args:
        session: Any of the model, which is not kept.
        delay: Of the preprocessor, from `find_delay`; None where features are pushed.
    """

    def __init__(self, session: _core.TransducerDecoder, delay: int | None) -> None:
        contract = session.contract
        self._stream = session.new_stream()
        self._chunks = Chunks(contract)
        self._size = contract.chunk_columns
        self._features = None if delay is None else FeatureStream(samples_per_column(contract), delay)

    @property
    def num_frames(self) -> int:
        """Frames of the encoder so far."""
        return self._stream.num_frames

    @property
    def is_ready(self) -> bool:
        """Whether a whole chunk is there."""
        ready = 0 if self._features is None else self._features.num_ready
        return ready >= self._chunks.num_missing

    def push(self, audio: Floats) -> None:
        """Adds samples (n), or features (1, bins, columns)."""
        if self._features is None:
            self._chunks.push(audio)
        else:
            self._features.push(audio)

    def symbols(
        self, session: _core.TransducerDecoder, end_ns: int, *, is_last: bool = False
    ) -> Generator[_core.Symbol | None, None, None]:
        """Hears what was pushed, as far as there are whole chunks.

        Ends early after `cancel()` and at the deadline; what is left is heard the next time.

        Args:
            session: After `begin_request()`.
            end_ns: The deadline.
            is_last: Nothing follows: all that is left is heard.

        Yields:
            Symbols, and None behind those of each chunk.
        """
        session.resume(self._stream)
        has_heard = False
        while True:
            while (symbol := session.next(end_ns)) is not None:
                has_heard = True
                yield symbol
            if session.is_cancelled or _core.now_ns() >= end_ns:
                return
            if has_heard:
                yield None
            chunk = self._next(session, end_ns, is_last=is_last)
            if chunk is None or not session.hear(*chunk, end_ns):
                return
            self._chunks.drop()
            has_heard = True

    def _next(
        self, session: _core.TransducerDecoder, end_ns: int, *, is_last: bool
    ) -> tuple[Floats, int] | None:
        """The next chunk, once its features are made."""
        while self._features is not None and (missing := self._chunks.num_missing):
            # Always the same pieces, so that their rounding does not depend on how the audio came.
            count = min(missing, self._size)
            is_rest = count > self._features.num_ready
            if is_rest and not is_last:
                return None
            columns = self._features.take(
                lambda window: session.features(window, end_ns), None if is_rest else count
            )
            if columns is None or not columns.shape[2]:
                if session.is_cancelled or _core.now_ns() >= end_ns:
                    return None
                break
            self._chunks.push(columns)
        return self._chunks.first(is_last=is_last)


def samples_per_column(contract: _core.TransducerContract) -> int:
    """From one column of features to the next."""
    return round(contract.window_stride * contract.sample_rate)
