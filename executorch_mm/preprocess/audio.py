"""Audio to the log-mel spectrograms that encoders were trained on: Whisper's and Voxtral's, Gemma 4's."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from executorch_mm._files.config_reader import ConfigReader, Family, Json, read_family
from executorch_mm._files.paths import checked_path
from executorch_mm._files.processor_configs import require_config
from executorch_mm.errors import InputError, shown
from executorch_mm.preprocess import gemma4
from executorch_mm.preprocess.gemma4 import FrameConfig
from executorch_mm.preprocess.limits import media_limits
from executorch_mm.preprocess.mixdown import Samples
from executorch_mm.preprocess.sources import Fetch, is_source
from executorch_mm.preprocess.steps import FloatArray
from executorch_mm.preprocess.waveform import Waveform, audio_of_chunks, load_audio, waveform_of

Float64Array = npt.NDArray[np.float64]

_WHISPER: Json = {
    "feature_size": 80,
    "sampling_rate": 16000,
    "hop_length": 160,
    "chunk_length": 30,
    "n_fft": 400,
    "padding_value": 0.0,
    "padding_side": "right",
    "dither": 0.0,
}
# The last row follows from the others; the filters of old files are computed all the same.
_WHISPER_KEYS = frozenset(_WHISPER) | {
    "return_attention_mask", "n_samples", "nb_max_frames", "mel_filters", "max_length",
}  # fmt: skip

_TOP_HZ = 8000.0
_FLOOR = 1e-10
# Numbers that a chunk may be made of, half a GiB; Whisper's has 1.2 million.
_MAX_CHUNK = 2**26
# What lies further below the loudest value, in powers of ten, is cut off.
_RANGE = 8.0
_MOST_PRODUCTS = 1 << 18  # of a matrix product that OpenBLAS does with one thread


@dataclass(frozen=True)
class LogMelConfig:
    """A log-mel spectrogram.

    Attributes:
        bins: Number of mel filters.
        sampling_rate: Samples per second that it is made from.
        window: Samples in a frame.
        hop: Samples from one frame to the next.
        chunk_seconds: Length of a chunk; audio clips are filled up to whole chunks.
        padding: Value of the samples that fill up.
    """

    bins: int = 80
    sampling_rate: int = 16000
    window: int = 400
    hop: int = 160
    chunk_seconds: int = 30
    padding: float = 0.0


class AudioProcessor:
    """Makes features of audio; thread-safe, since it holds nothing but its configuration.

    Args:
        config: What to do, usually from `AudioProcessor.from_pretrained`.
    """

    def __init__(self, config: LogMelConfig | FrameConfig) -> None:
        self.config = config
        self._steps = config if isinstance(config, FrameConfig) else _LogMel(config)

    def __repr__(self) -> str:
        return f"AudioProcessor({self.config!r})"

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike[str]) -> AudioProcessor:
        """Reads what describes the feature extractor.

        Args:
            path: The file, or a folder with processor_config.json or preprocessor_config.json in it.

        Raises:
            InputError: The file is missing or damaged, its class is not supported, or it has keys that
                are not understood; the message names them.
        """
        return cls(parse_audio_config(*require_config(checked_path(path, "path"), "feature_extractor")))

    def __call__(
        self, audio: object, sampling_rate: int | None = None, *, fetch: Fetch | None = None
    ) -> FloatArray:
        """Makes features of an audio clip.

        The range that is kept hangs on the loudest moment of the whole audio clip, not of its chunk.

        Args:
            audio: A `Waveform`, what `load_audio` takes, or what `waveform_of` takes.
            sampling_rate: Of an array; files and `Waveform` have their own.
            fetch: See `load_audio`.

        Returns:
            float32 (chunks, bins, frames), C-contiguous: the input of the audio encoder. Of a `FrameConfig`
            (1, frames, bins), the frames that lie in the audio.

        Raises:
            InputError: See `load_audio` and `waveform_of`; an array comes without its sampling rate; or the
                audio is shorter or longer than a `FrameConfig` takes.
            MissingDependencyError: See `load_audio` and `Waveform.resampled`.
        """
        return self.features(to_waveform(audio, sampling_rate, fetch=fetch))

    def features(self, waveform: Waveform) -> FloatArray:
        """Makes features of an audio clip; see `__call__`.

        Raises:
            InputError: It is no `Waveform`, or shorter or longer than a `FrameConfig` takes.
            MissingDependencyError: See `Waveform.resampled`.
        """
        given: object = waveform
        if not isinstance(given, Waveform):
            raise InputError(f"waveform: expected a Waveform, got {shown(given)}")
        samples = waveform.resampled(self.config.sampling_rate).samples
        if isinstance(self._steps, FrameConfig):
            return self._steps.frames(samples)[np.newaxis]
        return self._steps.of(samples)


class _LogMel:
    """Makes whole chunks of features; filters and window are made once."""

    def __init__(self, config: LogMelConfig) -> None:
        self.config = config

    def of(self, samples: Samples) -> FloatArray:
        """(chunks, bins, frames) of an audio clip."""
        config = self.config
        chunk = config.chunk_seconds * config.sampling_rate
        chunks = math.ceil(len(samples) / chunk)
        frames = chunk // config.hop
        log_mel = np.full((chunks, config.bins, frames), np.log10(_FLOOR))
        for index in range(chunks):
            heard = frames
            if config.padding == 0:  # frames of zeros alone are at the floor
                heard = min(frames, -(-(len(samples) - index * chunk + config.window // 2) // config.hop))
            self._log_mel(self._around(samples, index, chunks), heard, log_mel[index, :, :heard])
        np.maximum(log_mel, np.max(log_mel) - _RANGE, out=log_mel)
        log_mel += 4
        log_mel /= 4
        return log_mel.astype(np.float32)

    def _around(self, samples: Samples, index: int, chunks: int) -> Float64Array:
        """A chunk and half a window on both sides of it.

        The audio is filled up to whole chunks and mirrored at its ends.
        """
        config = self.config
        chunk, half = config.chunk_seconds * config.sampling_rate, config.window // 2
        last = chunks * chunk - 1
        places = np.abs(np.arange(index * chunk - half, (index + 1) * chunk + half))
        places = np.where(places > last, 2 * last - places, places)
        is_there = places < len(samples)
        around = np.full(len(places), config.padding, np.float64)
        around[is_there] = samples[places[is_there]]
        return around

    def _log_mel(self, samples: Float64Array, frames: int, out: Float64Array) -> None:
        windows = np.lib.stride_tricks.sliding_window_view(samples, self.config.window)
        spectrum = np.fft.rfft(windows[:: self.config.hop][:frames] * self._window)
        power = spectrum.real**2 + spectrum.imag**2
        pieces = power.reshape(-1, self._rows_at_once(frames), power.shape[1])
        mel = (pieces @ self._filters).reshape(frames, -1)
        np.log10(np.maximum(mel.T, _FLOOR), out=out)

    def _rows_at_once(self, frames: int) -> int:
        """A divisor of `frames`: so few that OpenBLAS calls no threads.

        Its threads go on looking for work after a product, on the cores that the model needs next.
        """
        most = _MOST_PRODUCTS // self._filters.size
        return max((rows for rows in range(1, most + 1) if frames % rows == 0), default=1)

    @functools.cached_property
    def _window(self) -> Float64Array:
        """Hann's window, periodic."""
        return np.hanning(self.config.window + 1)[:-1]

    @functools.cached_property
    def _filters(self) -> Float64Array:
        config = self.config
        return mel_filters(config.bins, config.window // 2 + 1, config.sampling_rate)


def to_waveform(audio: object, sampling_rate: int | None = None, *, fetch: Fetch | None = None) -> Waveform:
    """Anything that `AudioProcessor.__call__` takes, as an audio clip."""
    if isinstance(audio, Waveform):
        return audio
    if hasattr(audio, "__next__") and not hasattr(audio, "read"):
        return audio_of_chunks(cast("Iterator[object]", audio), sampling_rate, fetch)
    if is_source(audio):
        return load_audio(audio, fetch=fetch)
    if sampling_rate is None:
        raise InputError("audio: an array of samples needs sampling_rate=, in samples per second")
    return waveform_of(audio, sampling_rate)


def mel_filters(bins: int, frequencies: int, sampling_rate: int) -> Float64Array:
    """Slaney's triangular filters up to 8000 Hz, each of unit area.

    Args:
        bins: Number of filters.
        frequencies: Number of frequencies of the spectrum, from 0 to half the sampling rate.
        sampling_rate: Samples per second.

    Returns:
        float64 (frequencies, bins).
    """
    corners = _mel_to_hz(np.linspace(0, _hz_to_mel(_TOP_HZ), bins + 2))
    hz = np.linspace(0, sampling_rate // 2, frequencies)[:, np.newaxis]
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    rising, falling = (hz - left) / (centre - left), (right - hz) / (right - centre)
    return np.maximum(0, np.minimum(rising, falling)) * 2 / (right - left)


# Slaney's mel scale: three for every 200 Hz up to 1000 Hz, 27 for every factor of 6.4 above.
_LINEAR_HZ, _LINEAR_MELS, _MELS_PER_NAT = 1000.0, 15.0, 27 / math.log(6.4)


def _hz_to_mel(hz: float) -> float:
    if hz < _LINEAR_HZ:
        return hz * 3 / 200
    return _LINEAR_MELS + math.log(hz / _LINEAR_HZ) * _MELS_PER_NAT


def _mel_to_hz(mels: Float64Array) -> Float64Array:
    above = _LINEAR_HZ * np.exp((mels - _LINEAR_MELS) / _MELS_PER_NAT)
    return np.where(mels < _LINEAR_MELS, mels * 200 / 3, above)


def parse_audio_config(content: Json, where: str) -> LogMelConfig | FrameConfig:
    """Turns the keys of a feature extractor into a spectrogram.

    Args:
        content: The JSON object.
        where: Starts the error messages.

    Raises:
        InputError: See `AudioProcessor.from_pretrained`.
    """
    name = content.get("feature_extractor_type")
    return read_family(content, name, _FAMILIES, "feature_extractor_type", where)


def _read_whisper(reader: ConfigReader) -> LogMelConfig:
    if reader.get("padding_side") != "right":
        raise reader.wrong("padding_side", "'right'")
    if reader.number("dither") != 0:
        raise reader.wrong("dither", "0: features without noise")
    config = LogMelConfig(
        reader.length("feature_size"),
        reader.length("sampling_rate", smallest=int(2 * _TOP_HZ)),
        reader.length("n_fft", smallest=2),
        reader.length("hop_length"),
        reader.length("chunk_length"),
        reader.number("padding_value"),
    )
    chunk = config.chunk_seconds * config.sampling_rate
    for key, size, most in (
        ("sampling_rate", config.sampling_rate, media_limits().max_sampling_rate),
        ("chunk_length", chunk, _MAX_CHUNK),
        ("n_fft", config.window, chunk),
        ("feature_size", config.bins * config.window, _MAX_CHUNK),
        ("hop_length", chunk // config.hop * max(config.window, config.bins), _MAX_CHUNK),
    ):
        if size > most:
            raise reader.wrong(key, f"a value that asks for at most {most} numbers, not {size}")
    if chunk % config.hop:
        raise reader.wrong("hop_length", "a length that divides a chunk")
    return config


_FAMILIES: dict[str, Family[LogMelConfig | FrameConfig]] = {
    "WhisperFeatureExtractor": Family(_read_whisper, _WHISPER, _WHISPER_KEYS),
    "Gemma4AudioFeatureExtractor": Family(FrameConfig.read, gemma4.AUDIO, gemma4.AUDIO_KEYS),
}
