"""Voice activity detection: where in an audio clip somebody speaks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from executorch_mm import _core
from executorch_mm._loading.handle import Handle
from executorch_mm._loading.loaded_model import LoadedModel, name_source
from executorch_mm._loading.methods import load_methods
from executorch_mm._loading.options import PathLike
from executorch_mm.config import is_finite
from executorch_mm.errors import ContractError, InputError, shown
from executorch_mm.preprocess import Waveform
from executorch_mm.speech._regions import RegionRules, frames_of

VoiceActivityDetector: TypeAlias = Callable[[Waveform], Sequence[tuple[float, float]]]
"""Gets an audio clip, returns beginnings and ends of what is spoken, in seconds, in order."""

_FRAME = 0.03  # seconds
_BAND = 200.0, 4000.0  # Hz, where most of speech is
_NEAR = 3.0  # seconds before and behind, in which the quietest moment is the noise
_QUIETEST = -60.0  # dB of full scale; below it nobody speaks
_FFT_BLOCK = 4096  # frames at a time


@dataclass(frozen=True)
class EnergyVad:
    """Finds speech as what is louder than the noise around it; it needs no model.

    It hears no difference between speech and music, or other sounds that come and go. Noise that stays as it
    is, hum and hiss, is silence.

    Attributes:
        threshold: Decibels above the quietest moment within 3 s, between 200 and 4000 Hz.
        min_speech_duration_ms: Sounds that are shorter are none.
        min_silence_duration_ms: Pauses that are shorter are a part of what is said.
        speech_pad_ms: Kept before and behind what is said.

    Raises:
        InputError: A value is out of its range; the message names the field.

    Examples:
        >>> import numpy as np
        >>> from executorch_mm.preprocess import Waveform
        >>> samples = np.zeros(16000 * 10, np.float32)
        >>> samples[64000:96000] = np.sin(np.arange(32000) * 0.3)
        >>> EnergyVad()(Waveform(samples, 16000))
        [(3.59, 6.43)]
    """

    threshold: float = 9.0
    min_speech_duration_ms: int = 90
    min_silence_duration_ms: int = 2000
    speech_pad_ms: int = 400

    def __post_init__(self) -> None:
        if not is_finite(self.threshold) or self.threshold <= 0:
            raise InputError(f"threshold: expected decibels above 0, got {shown(self.threshold)}")
        _rules(self.min_speech_duration_ms, self.min_silence_duration_ms, self.speech_pad_ms)

    def __call__(self, waveform: Waveform) -> list[tuple[float, float]]:
        """Where somebody speaks.

        Args:
            waveform: The audio clip.

        Returns:
            Beginnings and ends in seconds, in order.

        Raises:
            InputError: It is no `Waveform`.
        """
        samples, rate = _samples(waveform)
        size = max(1, round(_FRAME * rate))
        levels = band_levels(samples, rate, size)
        frame = size / rate
        if not len(levels):
            return []
        floor = np.maximum(_quietest_around(levels, frames_of(_NEAR, frame)), _QUIETEST)
        is_speech = levels > floor + self.threshold
        rules = _rules(self.min_speech_duration_ms, self.min_silence_duration_ms, self.speech_pad_ms)
        return [(round(a, 3), round(b, 3)) for a, b in rules.regions(is_speech, frame, len(samples) / rate)]


class SileroVad(LoadedModel):
    """Finds speech with a small .pte, as ExecuTorch's example of Silero VAD exports it.

    Its method `forward` takes samples (1, context + window) and a state, and gives the probability of speech
    in the window and the next state. `window_size` (512), `context_size` (64) and `sample_rate` (16,000) are
    read from the program where they are there. Several threads may use it, whose calls take turns.

    Args:
        model_path: The .pte file.
        threshold: Probability above which speech begins. It ends where it is 0.15 below.
        min_speech_duration_ms: As in `EnergyVad`, like the next ones.
        min_silence_duration_ms: The same.
        speech_pad_ms: The same.

    Raises:
        ModelLoadError: The file cannot be read, verified or initialised.
        ContractError: It has no such method.
        InputError: A value is out of its range; the message names it.
    """

    def __init__(
        self,
        model_path: PathLike,
        *,
        threshold: float = 0.5,
        min_speech_duration_ms: int = 250,
        min_silence_duration_ms: int = 2000,
        speech_pad_ms: int = 400,
    ) -> None:
        if not is_finite(threshold) or not 0 < threshold < 1:
            raise InputError(f"threshold: expected a probability between 0 and 1, got {shown(threshold)}")
        self._threshold = threshold
        self._rules = _rules(min_speech_duration_ms, min_silence_duration_ms, speech_pad_ms)
        methods, _ = load_methods(model_path, num_threads=1)
        self._window = _number(methods, "window_size", 512)
        self._context = _number(methods, "context_size", 64)
        self._rate = _number(methods, "sample_rate", 16_000)
        forward = methods.methods.get("forward")
        wanted = (1, self._context + self._window)
        fits = forward is not None and len(forward.inputs) == len(forward.outputs) == 2
        if not fits or forward is None or forward.inputs[0].shape != wanted:
            raise ContractError(
                f"forward: expected samples {wanted} and a state, and a probability and the next state, got "
                + ("no such method" if forward is None else f"{forward.inputs} and {forward.outputs}")
            )
        probability, after = forward.outputs
        if _size(probability.shape) != 1 or after.shape != forward.inputs[1].shape:
            raise ContractError(
                f"forward: expected one probability and a state {forward.inputs[1].shape}, got "
                f"{forward.outputs}"
            )
        self._state_shape = after.shape
        self._source = name_source(model_path)
        self._handle = Handle(methods, "detector")

    def close(self) -> None:
        """Frees the program. Later calls raise `ExecutorchMMError`."""
        self._handle.close()

    def __call__(self, waveform: Waveform) -> list[tuple[float, float]]:
        """Where somebody speaks.

        Args:
            waveform: The audio clip.

        Returns:
            Beginnings and ends in seconds, in order.

        Raises:
            InputError: It is no `Waveform`.
            MissingDependencyError: It has another sampling rate and the extra `audio` is not installed.
            ExecutionError: The program failed.
        """
        samples, rate = _samples(waveform)
        if not len(samples):
            return []
        probabilities = self.probabilities(waveform)
        is_speech = np.zeros(len(probabilities), bool)
        speaks = False
        for index, probability in enumerate(probabilities.tolist()):
            speaks = probability >= self._threshold - (0.15 if speaks else 0.0)
            is_speech[index] = speaks
        return self._rules.regions(is_speech, self._window / self._rate, len(samples) / rate)

    def probabilities(self, waveform: Waveform) -> npt.NDArray[np.float32]:
        """The probability of speech in each window.

        Args:
            waveform: The audio clip.

        Returns:
            float32 (windows); the last window is filled up with zeros.

        Raises:
            InputError, MissingDependencyError, ExecutionError: As when called.
        """
        _samples(waveform)
        samples = waveform.resampled(self._rate).samples
        count = -(-len(samples) // self._window)
        padded = np.zeros(self._context + count * self._window, np.float32)
        padded[self._context : self._context + len(samples)] = samples
        found = np.empty(count, np.float32)
        methods = self._handle.get()
        state = np.zeros(self._state_shape, np.float32)
        for index in range(count):
            first = index * self._window
            window = padded[np.newaxis, first : first + self._context + self._window]
            probability, state = methods.run_all("forward", [window, state])
            found[index] = probability.reshape(-1)[0]
        return found


def band_levels(samples: npt.NDArray[np.float32], rate: int, size: int) -> npt.NDArray[np.float64]:
    """Decibels of full scale of each whole frame in the band of speech; the last one is filled up with zeros.

    Args:
        samples: Mono.
        rate: Samples per second.
        size: Samples of a frame.
    """
    window = np.hanning(size + 2)[1:-1]
    hz = np.fft.rfftfreq(size, 1 / rate)
    is_in = (hz >= _BAND[0]) & (hz <= _BAND[1])
    # A full sine has 0 dB.
    scale = 4.0 / np.square(window.sum()) if size > 1 else 1.0
    count = -(-len(samples) // size)
    levels = np.empty(count)
    for first in range(0, count, _FFT_BLOCK):
        block = samples[first * size : (first + _FFT_BLOCK) * size]
        whole = np.zeros(-(-len(block) // size) * size, np.float32)
        whole[: len(block)] = block
        spectrum = np.fft.rfft(whole.reshape(-1, size) * window)[:, is_in]
        power = np.square(spectrum.real).sum(axis=1) + np.square(spectrum.imag).sum(axis=1)
        levels[first : first + _FFT_BLOCK] = 10 * np.log10(np.maximum(power * scale, 1e-12))
    return levels


def _quietest_around(levels: npt.NDArray[np.float64], reach: int) -> npt.NDArray[np.float64]:
    """The lowest level of so many frames before and behind each; of three frames each the mean counts."""
    smooth = np.convolve(np.pad(levels, 1, mode="edge"), np.full(3, 1 / 3), mode="valid")
    padded = np.pad(smooth, reach, mode="edge")
    around = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    quietest: npt.NDArray[np.float64] = np.min(around, axis=1)
    return quietest


def _samples(waveform: Waveform) -> tuple[npt.NDArray[np.float32], int]:
    given: object = waveform
    if not isinstance(given, Waveform):
        raise InputError(f"waveform: expected a Waveform, got {shown(given)}")
    return waveform.samples, waveform.sampling_rate


def _rules(min_speech_duration_ms: int, min_silence_duration_ms: int, speech_pad_ms: int) -> RegionRules:
    named = {
        "min_speech_duration_ms": min_speech_duration_ms,
        "min_silence_duration_ms": min_silence_duration_ms,
        "speech_pad_ms": speech_pad_ms,
    }
    for name, value in named.items():
        given: object = value
        if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given < 2**31:
            raise InputError(f"{name}: expected milliseconds, 0 or more, got {shown(given)}")
    return RegionRules(*(value / 1000 for value in named.values()))


def _number(methods: _core.MethodRunner, name: str, default: int) -> int:
    number: object = methods.metadata.get(name, default)
    if not isinstance(number, int) or not 1 <= number < 2**20:
        raise ContractError(f"{name}: expected a positive int, got {shown(number)}")
    return number


def _size(shape: Sequence[int]) -> int:
    return int(np.prod(shape))
