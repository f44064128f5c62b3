"""Audio that comes in chunks of any kind and size, as mono samples at a model's rate."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from executorch_mm._files.extras import import_extra
from executorch_mm.errors import InputError, shown
from executorch_mm.preprocess import Waveform
from executorch_mm.preprocess.limits import media_limits
from executorch_mm.preprocess.waveform import waveform_of

Samples = npt.NDArray[np.float32]
_SAMPLE_BYTES = 2
_MOST_CHANNELS = 8


class LiveAudio:
    """Turns chunks into samples; keeps what is no whole sample yet.

    Args:
        given_rate: Samples per second of the chunks.
        channels: Of chunks of bytes.
        rate: Samples per second that are wanted.

    Raises:
        InputError: A rate or number of channels is out of its range.
        MissingDependencyError: The rates differ and soxr is not installed.
    """

    def __init__(self, given_rate: int, channels: int, rate: int) -> None:
        limits = media_limits()
        low, high = limits.min_sampling_rate, limits.max_sampling_rate
        for name, value, least, most in (
            ("sampling_rate", given_rate, low, high),
            ("channels", channels, 1, _MOST_CHANNELS),
        ):
            number: object = value
            if isinstance(number, bool) or not isinstance(number, int) or not least <= number <= most:
                raise InputError(f"{name}: expected {least} to {most}, got {shown(number)}")
        self._given_rate, self._channels, self._rate = given_rate, channels, rate
        self._rest = b""
        self._resampler: Any = None
        if given_rate != rate:
            self._soxr = import_extra("soxr", "audio", f"resampling from {given_rate} to {rate} Hz")
            self._begin()

    def _begin(self) -> None:
        self._resampler = self._soxr.ResampleStream(self._given_rate, self._rate, 1, dtype="float32")

    def samples(self, chunk: object) -> Samples:
        """What a chunk adds.

        Args:
            chunk: An array as `waveform_of` takes it, empty ones too; a `Waveform` at the chunks' rate; or
                bytes of PCM, 16 bits little endian.

        Raises:
            InputError: It is none of these.
        """
        if isinstance(chunk, (bytes, bytearray, memoryview)):
            mono = self._of_bytes(bytes(chunk))
        elif isinstance(chunk, Waveform):
            if chunk.sampling_rate != self._given_rate:
                raise InputError(
                    f"chunk: expected {self._given_rate} samples per second, got {chunk.sampling_rate}"
                )
            mono = chunk.samples
        elif isinstance(chunk, np.ndarray) and chunk.ndim == 1 and not chunk.size:
            mono = np.zeros(0, np.float32)
        else:
            mono = waveform_of(chunk, self._given_rate).samples
        if self._resampler is None or not len(mono):
            return mono
        made: Samples = self._resampler.resample_chunk(np.ascontiguousarray(mono))
        return made

    def finish(self) -> Samples:
        """What is left at the end; chunks behind it are a new beginning."""
        self._rest = b""
        if self._resampler is None:
            return np.zeros(0, np.float32)
        made: Samples = self._resampler.resample_chunk(np.zeros(0, np.float32), last=True)
        self._begin()
        return made

    def _of_bytes(self, data: bytes) -> Samples:
        data = self._rest + data
        size = _SAMPLE_BYTES * self._channels
        whole = len(data) // size * size
        self._rest = data[whole:]
        values = np.frombuffer(data[:whole], "<i2").reshape(-1, self._channels)
        mean: Samples = (values.astype(np.float32) / 32768).mean(axis=1, dtype=np.float32)
        return mean
