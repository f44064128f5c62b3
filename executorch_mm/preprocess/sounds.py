"""Sounds of any kind as mono samples: files, bytes, URIs, arrays."""

from __future__ import annotations

import io
import wave
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from executorch_mm._tokenizers.extras import import_extra
from executorch_mm.arrays import AnyArray, to_numpy
from executorch_mm.errors import InputError
from executorch_mm.preprocess.sources import Fetch, Source, read_source

Samples: TypeAlias = "npt.NDArray[np.float32]"

_EXTRA = "audio"
_MAX_CHANNELS = 8


@dataclass(frozen=True, eq=False)
class Sound:
    """Mono samples.

    Attributes:
        samples: float32 (num_samples,), -1..1.
        sampling_rate: Samples per second.
    """

    samples: Samples
    sampling_rate: int

    def __repr__(self) -> str:
        return f"Sound(num_samples={len(self.samples)}, sampling_rate={self.sampling_rate})"

    def resampled(self, sampling_rate: int) -> Sound:
        """The sound at `sampling_rate` Hz; itself where that is its rate.

        Raises:
            MissingDependencyError: The rates differ and soxr is not installed; the extra is `audio`.
        """
        if sampling_rate == self.sampling_rate:
            return self
        soxr = import_extra("soxr", _EXTRA, f"resampling from {self.sampling_rate} to {sampling_rate} Hz")
        samples: Samples = soxr.resample(self.samples, self.sampling_rate, sampling_rate)
        return Sound(samples, sampling_rate)


def load_sound(source: Source, *, fetch: Fetch | None = None) -> Sound:
    """Reads a sound file; several channels are averaged.

    WAV files of integers are read without further packages; FLAC, OGG, MP3 and the rest need soundfile.

    Args:
        source: A path, a "data:" URI, an "http(s)://" URL, or the bytes of a sound file.
        fetch: Called with an http(s) URL, returns the bytes behind it. Nothing is downloaded without it.

    Raises:
        InputError: There is no such file, it is no sound, or it is a URL and there is no `fetch`.
        MissingDependencyError: soundfile is needed and not installed; the extra is `audio`.
    """
    data, what = read_source(source, "audio", fetch)
    try:
        return _read_wav(data)
    except (wave.Error, EOFError):
        return _read_with_soundfile(data, what)


def _read_wav(data: bytes) -> Sound:
    with wave.open(io.BytesIO(data)) as file:
        width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
        if width not in (1, 2, 4):
            raise wave.Error(f"{width} bytes a sample")
        frames = file.readframes(file.getnframes())
    frames = frames[: len(frames) // (width * channels) * width * channels]
    dtypes = {1: "u1", 2: "<i2", 4: "<i4"}
    return sound_of(
        np.frombuffer(frames, np.dtype(dtypes[width])).reshape(-1, channels), rate, is_samples_first=True
    )


def _read_with_soundfile(data: bytes, what: str) -> Sound:
    soundfile = import_extra("soundfile", _EXTRA, f"{what}: reading a file that is no integer WAV")
    try:
        samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    except soundfile.SoundFileError as error:
        raise InputError(f"{what}: not a sound that libsndfile reads ({error})") from error
    return sound_of(samples, int(rate), is_samples_first=True)


def sound_of(array: object, sampling_rate: int, *, is_samples_first: bool | None = None) -> Sound:
    """Samples of any kind as a mono sound; several channels are averaged.

    Args:
        array: A numpy array, or anything with `__dlpack__` or the buffer protocol on the CPU: (num_samples,),
            (channels, num_samples) or (num_samples, channels); floats in -1..1, int16, int32, or uint8 around
            128.
        sampling_rate: Samples per second.
        is_samples_first: Whether a 2-dimensional array is (num_samples, channels). None takes the shorter
            axis for the channels, the first where both are equal.

    Raises:
        InputError: Another rank, dtype or number of channels, no samples, NaN or infinite values, or a
            sampling rate that is no positive int.
    """
    samples = _to_unit_floats(to_numpy(array, "audio"))
    if samples.ndim == 2:
        if is_samples_first is None:
            is_samples_first = samples.shape[0] > samples.shape[1]
        axis = 1 if is_samples_first else 0
        if samples.shape[axis] > _MAX_CHANNELS:
            raise InputError(f"audio: expected at most {_MAX_CHANNELS} channels, got shape {samples.shape}")
        samples = np.mean(samples, axis, dtype=np.float32, keepdims=True).reshape(-1)
    if samples.ndim != 1 or samples.size == 0:
        raise InputError(
            "audio: expected shape (num_samples,), (channels, num_samples) or (num_samples, channels), with "
            f"samples, got {samples.shape}"
        )
    if not np.isfinite(samples).all():
        raise InputError("audio: expected finite values, got NaN or infinity")
    return Sound(samples, _checked_rate(sampling_rate))


def _checked_rate(rate: object) -> int:
    if isinstance(rate, bool) or not isinstance(rate, (int, np.integer)) or rate < 1:
        raise InputError(f"sampling_rate: expected a positive int, got {rate!r}")
    return int(rate)


def _to_unit_floats(array: AnyArray) -> Samples:
    if np.issubdtype(array.dtype, np.floating):
        return array.astype(np.float32)
    middle_and_range = {"uint8": (128, 128), "int16": (0, 2**15), "int32": (0, 2**31)}.get(array.dtype.name)
    if middle_and_range is None:
        raise InputError(f"audio: expected floats, int16, int32 or uint8, got {array.dtype}")
    middle, half_range = middle_and_range
    values: Samples = (array.astype(np.float32) - np.float32(middle)) / np.float32(half_range)
    return values
