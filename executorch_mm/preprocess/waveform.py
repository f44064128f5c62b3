"""Audio of any kind as mono samples: files, bytes, URIs, arrays."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from executorch_mm import _core
from executorch_mm._files.extras import import_extra
from executorch_mm.arrays import AnyArray, to_numpy
from executorch_mm.errors import InputError, shown
from executorch_mm.preprocess.mixdown import Mixdown, Samples, check_length, check_rate, check_values, to_mono
from executorch_mm.preprocess.sources import Fetch, Source, read_source
from executorch_mm.preprocess.wav_files import WavFile, read_wav

EXTRA = "audio"
_MAX_CHANNELS = 8


class InputWarning(UserWarning):
    """An audio file was read, but not all of it may be there or right; the message says why.

    It is in `Waveform.notes` and `Stats.input_notes` too.
    """


@dataclass(frozen=True, eq=False)
class Waveform:
    """Mono samples.

    Attributes:
        samples: float32 (num_samples,), -1..1.
        sampling_rate: Samples per second.
        notes: What may be wrong with them, as `load_audio` has found it in the file.
    """

    samples: Samples
    sampling_rate: int
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Waveform(num_samples={len(self.samples)}, sampling_rate={self.sampling_rate})"

    def resampled(self, sampling_rate: int) -> Waveform:
        """The audio at `sampling_rate` Hz; itself where that is its rate.

        Raises:
            InputError: There are no samples, or none are left at this rate; it is outside of the limits (see
                `MediaLimits`), or the audio would be.
            MissingDependencyError: The rates differ and soxr is not installed; the extra is `audio`.
        """
        before = len(self.samples)
        if not before:
            raise InputError("audio: expected an audio clip with samples, got none")
        if sampling_rate == self.sampling_rate:
            return self
        check_rate("audio", self.sampling_rate)
        check_rate("audio", sampling_rate)
        check_length("audio", round(before * sampling_rate / self.sampling_rate), 1, sampling_rate)
        soxr = import_extra("soxr", EXTRA, f"resampling from {self.sampling_rate} to {sampling_rate} Hz")
        with _core.ForeignWork():
            samples: Samples = soxr.resample(self.samples, self.sampling_rate, sampling_rate)
        if not len(samples):
            raise InputError(
                f"audio: expected audio that lasts, got {before} samples at {self.sampling_rate} Hz, which "
                f"are none at {sampling_rate} Hz"
            )
        return Waveform(samples, sampling_rate, self.notes)


def load_audio(source: Source, *, fetch: Fetch | None = None) -> Waveform:
    """Reads an audio file; several channels are averaged.

    WAV files of plain samples are read without further packages: integers of 8, 16, 24 and 32 bits, floats,
    A-law and mu-law. Others, FLAC, OGG, MP3 and the rest need soundfile.

    What may be wrong with the audio, because the file is cut short or does not say what it holds, is in
    `Waveform.notes` and said in an `InputWarning`.

    Args:
        source: A path, a "file:", "data:" or "http(s):" URI, the bytes of an audio file, a file object that
            is opened for bytes, or an iterator of its bytes. A file object is rewound if it can be.
        fetch: Called with an http(s) URL, returns the bytes behind it. Nothing is downloaded without it.

    Raises:
        InputError: There is no such file, it is no audio, has no samples, floats that are no audio, or more
            than the limits allow (see `MediaLimits`); or it is a URL and there is no `fetch`.
        MissingDependencyError: soundfile is needed and not installed; the extra is `audio`.
    """
    data, what = read_source(source, "audio", fetch)
    wav = read_wav(data)
    if wav is not None and wav.can_be_read:
        waveform = _waveform_of_wav(wav, what)
    else:
        from executorch_mm.preprocess.soundfile_reader import read_with_soundfile

        waveform = read_with_soundfile(data, wav, what)
    for note in waveform.notes:
        warnings.warn(f"{what}: {note}", InputWarning, stacklevel=2)
    return waveform


def _waveform_of_wav(wav: WavFile, what: str) -> Waveform:
    mix = Mixdown(what, wav.format.channels, wav.format.rate, is_scaled=not wav.is_float)
    mix.expect(wav.num_frames)
    for block in wav.blocks():
        mix.add(block)
    return Waveform(mix.samples(), wav.format.rate, () if wav.note is None else (wav.note,))


def waveform_of(array: object, sampling_rate: int, *, is_samples_first: bool | None = None) -> Waveform:
    """Samples of any kind as a mono audio clip; several channels are averaged.

    Args:
        array: A numpy array, or anything with `__dlpack__` or the buffer protocol on the CPU: (num_samples,),
            (channels, num_samples) or (num_samples, channels); floats in -1..1, or integers of 8, 16 or 32
            bits, which are scaled by their type: int16 by 32768, uint8 by 128 around 128.
        sampling_rate: Samples per second.
        is_samples_first: Whether a 2-dimensional array is (num_samples, channels). None takes the shorter
            axis for the channels, the first where both are equal.

    Raises:
        InputError: Another rank, dtype or number of channels, no samples, NaN or infinite values, floats
            beyond -8..8, a sampling rate that is no positive int, or more than the limits allow (see
            `MediaLimits`).
    """
    rate = _checked_rate(sampling_rate)
    values = to_numpy(array, "audio")
    shape = values.shape
    if values.ndim == 1:
        values = values[:, np.newaxis]
    elif values.ndim == 2:
        if is_samples_first is None:
            is_samples_first = values.shape[0] > values.shape[1]
        if not is_samples_first:
            values = values.T
        if values.shape[1] > _MAX_CHANNELS:
            raise InputError(f"audio: expected at most {_MAX_CHANNELS} channels, got shape {shape}")
    if values.ndim != 2 or values.size == 0:
        raise InputError(
            "audio: expected shape (num_samples,), (channels, num_samples) or (num_samples, channels), with "
            f"samples, got {shape}"
        )
    check_length("audio", values.shape[0], values.shape[1], rate)
    return Waveform(np.ascontiguousarray(to_mono(_to_floats(values))), rate)


def audio_of_chunks(chunks: Iterator[object], sampling_rate: int | None, fetch: Fetch | None) -> Waveform:
    """An audio clip whose samples, or whose file's bytes, come in parts.

    Args:
        chunks: Arrays as `waveform_of` takes them, one after the other; or bytes of one audio file.
        sampling_rate: Samples per second of arrays.
        fetch: See `load_audio`.

    Raises:
        InputError: There are none, or see `load_audio` and `waveform_of`.
    """
    first = next(chunks, None)
    if first is None:
        raise InputError("audio: expected samples or the bytes of a file, got an iterator without any")
    every = itertools.chain([first], chunks)
    if isinstance(first, (bytes, bytearray, str)):
        return load_audio(cast("Iterator[bytes]", every), fetch=fetch)
    if sampling_rate is None:
        raise InputError("audio: arrays of samples need sampling_rate=, in samples per second")
    parts, length = [], 0
    for chunk in every:
        parts.append(waveform_of(chunk, sampling_rate).samples)
        length += len(parts[-1])
        check_length("audio", length, 1, sampling_rate)
    return Waveform(np.concatenate(parts), sampling_rate)


def _checked_rate(rate: object) -> int:
    if isinstance(rate, bool) or not isinstance(rate, (int, np.integer)) or rate < 1:
        raise InputError(f"sampling_rate: expected a positive int, got {shown(rate)}")
    check_rate("sampling_rate", int(rate))
    return int(rate)


def _to_floats(array: AnyArray) -> Samples:
    if np.issubdtype(array.dtype, np.floating):
        floats = cast("npt.NDArray[np.floating[Any]]", array)
        check_values("audio", floats, is_scaled=False)
        return floats.astype(np.float32)
    if (
        array.dtype.kind not in "iu" or array.dtype.itemsize > 4
    ):  # integers of 64 bits hold samples of any kind
        raise InputError(
            f"audio: expected floats, int8, int16, int32, uint16, uint32 or uint8, got {array.dtype}"
        )
    half_range = 2 ** (8 * array.dtype.itemsize - 1)
    middle = half_range if array.dtype.kind == "u" else 0
    values: Samples = (array.astype(np.float32) - np.float32(middle)) / np.float32(half_range)
    return values
