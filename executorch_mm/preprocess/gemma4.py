"""Gemma 4: images as rows of patches with their places, audio as log-mel frames with a mask."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from executorch_mm._files.config_reader import ConfigReader, Json
from executorch_mm.errors import InputError
from executorch_mm.preprocess.image_size import check_prepared
from executorch_mm.preprocess.limits import media_limits
from executorch_mm.preprocess.resample import resize
from executorch_mm.preprocess.rgb_images import UInt8Array
from executorch_mm.preprocess.steps import COMMON_DEFAULTS, COMMON_KEYS, FloatArray, Normalize, PreparedImage

IMAGE_KEYS = COMMON_KEYS | {"patch_size", "max_soft_tokens", "pooling_kernel_size"}
IMAGE: Json = {
    **COMMON_DEFAULTS,
    "do_normalize": False,
    "image_mean": (0.0, 0.0, 0.0),
    "image_std": (1.0, 1.0, 1.0),
    "patch_size": 16,
    "max_soft_tokens": 280,
    "pooling_kernel_size": 3,
}
_SOFT_TOKENS = (70, 140, 280, 560, 1120)

AUDIO: Json = {
    "feature_size": 128,
    "sampling_rate": 16000,
    "padding_value": 0.0,
    "padding_side": "right",
    "frame_length_ms": 20.0,
    "hop_length_ms": 10.0,
    "min_frequency": 0.0,
    "max_frequency": 8000.0,
    "preemphasis": 0.0,
    "preemphasis_htk_flavor": True,
    "fft_overdrive": False,
    "dither": 0.0,
    "input_scale_factor": 1.0,
    "mel_floor": 1e-3,
}
# The lengths in samples follow from those in milliseconds, and the length of the transform from both.
AUDIO_KEYS = frozenset(AUDIO) | {
    "return_attention_mask", "frame_length", "hop_length", "fft_length", "per_bin_mean", "per_bin_stddev",
}  # fmt: skip
# What Hugging Face's extractor cuts off beyond.
_MAX_SECONDS = 30
# Numbers that the frames of a second may be made of.
_MAX_SECOND = 2**24


@dataclass(frozen=True)
class PlacedPatches:
    """An image of nearly its own aspect ratio as rows of patches, each with its column and row.

    Attributes:
        patch: Edge of a patch, in pixels.
        pool: Edge of the squares of patches that become one token.
        max_tokens: Most tokens that an image becomes.
        is_resized: Whether it is made as large as that many tokens allow.
        resample: Pillow's number of the filter.
        normalize: Bytes to values.
    """

    patch: int
    pool: int
    max_tokens: int
    is_resized: bool
    resample: int
    normalize: Normalize

    @classmethod
    def read(cls, reader: ConfigReader) -> PlacedPatches:
        """The steps of a file."""
        max_tokens = reader.length("max_soft_tokens")
        if max_tokens not in _SOFT_TOKENS:
            raise reader.wrong("max_soft_tokens", f"one of {', '.join(map(str, _SOFT_TOKENS))}")
        return cls(
            reader.length("patch_size"),
            reader.length("pooling_kernel_size"),
            max_tokens,
            reader.flag("do_resize"),
            reader.resample(),
            Normalize.read(reader),
        )

    def within(self, max_patches: int) -> PlacedPatches:
        """The same for an encoder that takes at most so many patches.

        Raises:
            InputError: It takes fewer than the smallest image has.
        """
        most = max_patches // self.pool**2
        if self.max_tokens <= most:
            return self
        fitting = [tokens for tokens in _SOFT_TOKENS if tokens <= most]
        if not fitting:
            raise InputError(
                f"image: the encoder takes {max_patches} patches, expected {_SOFT_TOKENS[0] * self.pool**2} "
                "or more"
            )
        return replace(self, max_tokens=fitting[-1])

    def prepare(self, pixels: UInt8Array) -> PreparedImage:
        """Prepares an image; patches row by row, without padding."""
        patches, positions = self.cut(pixels)
        columns, rows = map(int, positions.max(axis=0) + 1)
        return PreparedImage(patches, pixels.shape[:2], (1, rows, columns), positions)

    def cut(self, pixels: UInt8Array) -> tuple[FloatArray, npt.NDArray[np.int64]]:
        """Patches and their positions; see `prepare`."""
        height, width = self._resized(*pixels.shape[:2])
        check_prepared(1, height, width)
        [values] = self.normalize(resize(pixels, height, width, self.resample))
        rows, columns = height // self.patch, width // self.patch
        cut = values.reshape(3, rows, self.patch, columns, self.patch).transpose(1, 3, 2, 4, 0)
        y, x = np.divmod(np.arange(rows * columns, dtype=np.int64), columns)
        return np.ascontiguousarray(cut.reshape(rows * columns, -1)), np.stack([x, y], axis=-1)

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        step = self.patch * self.pool
        most = self.max_tokens * step**2
        if not self.is_resized:
            if height % step or width % step or height * width > most:
                raise InputError(
                    f"image: expected edges that {step} divides and at most {most} pixels, got "
                    f"{width} x {height}"
                )
            return height, width
        scale = math.sqrt(self.max_tokens * self.pool**2 * self.patch**2 / (height * width))
        rows, columns = math.floor(scale * height / step), math.floor(scale * width / step)
        if rows == 0 and columns == 0:
            raise InputError(f"image: expected room for at least {step} x {step} pixels, got none")
        if rows == 0:
            rows, columns = 1, min(width // height, self.max_tokens)
        elif columns == 0:
            rows, columns = min(height // width, self.max_tokens), 1
        return rows * step, columns * step


@dataclass(frozen=True)
class FrameConfig:
    """A log-mel spectrogram of as many frames as a clip has.

    Attributes:
        bins: Number of mel filters.
        sampling_rate: Samples per second that it is made from.
        window: Samples in a frame.
        hop: Samples from one frame to the next.
        transform: Length of the Fourier transform.
        range_hz: Lowest and highest frequency of the filters.
        floor: Added before the logarithm.
        scale: Multiplied with the samples.
        preemphasis: How much of the sample before is taken away.
        is_htk: Whether the first sample of a frame keeps 1 - preemphasis of itself.
        mean: Of each bin, taken away; empty to leave it out.
        deviation: Of each bin, divided by; empty to leave it out.
    """

    bins: int = 128
    sampling_rate: int = 16000
    window: int = 320
    hop: int = 160
    transform: int = 512
    range_hz: tuple[float, float] = (0.0, 8000.0)
    floor: float = 1e-3
    scale: float = 1.0
    preemphasis: float = 0.0
    is_htk: bool = True
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()

    @classmethod
    def read(cls, reader: ConfigReader) -> FrameConfig:
        """The steps of a file."""
        if reader.number("dither") != 0:
            raise reader.wrong("dither", "0: features without noise")
        if reader.get("padding_side") != "right" or reader.number("padding_value") != 0:
            raise reader.wrong("padding_side", "'right', with padding_value 0")
        rate = reader.length("sampling_rate")
        if rate > media_limits().max_sampling_rate:
            raise reader.wrong("sampling_rate", f"at most {media_limits().max_sampling_rate}")
        window, hop = (
            round(rate * reader.number(f"{key}_ms") / 1000) for key in ("frame_length", "hop_length")
        )
        if window < 2 or hop < 1 or rate // hop * max(window, reader.length("feature_size")) > _MAX_SECOND:
            raise reader.wrong("hop_length_ms", f"frames of at most {_MAX_SECOND} numbers a second")
        transform = 2 ** math.ceil(math.log2(window)) * (2 if reader.flag("fft_overdrive") else 1)
        bins = reader.length("feature_size")
        if bins * transform > _MAX_SECOND:
            raise reader.wrong("feature_size", f"filters of at most {_MAX_SECOND} numbers")
        low, high = reader.number("min_frequency"), reader.number("max_frequency")
        if not 0 <= low < high <= rate / 2:
            raise reader.wrong("max_frequency", f"more than min_frequency and at most {rate / 2:g}")
        if reader.number("mel_floor") <= 0:
            raise reader.wrong("mel_floor", "more than 0")
        deviation = _numbers(reader, "per_bin_stddev", bins)
        if 0 in deviation:
            raise reader.wrong("per_bin_stddev", "numbers other than 0")
        return cls(
            bins,
            rate,
            window,
            hop,
            transform,
            (low, high),
            reader.number("mel_floor"),
            reader.number("input_scale_factor"),
            reader.number("preemphasis"),
            reader.flag("preemphasis_htk_flavor"),
            _numbers(reader, "per_bin_mean", bins),
            deviation,
        )

    @property
    def min_samples(self) -> int:
        """Of the shortest clip that has a frame."""
        return self.window + 1 - self.window // 2

    def check_length(self, num_samples: int) -> None:
        """Refuses a clip without a frame, and one longer than those that encoders were trained on.

        Raises:
            InputError: It is one of these.
        """
        most = _MAX_SECONDS * self.sampling_rate
        if not self.min_samples <= num_samples <= most:
            raise InputError(
                f"audio: expected {self.min_samples} to {most} samples ({_MAX_SECONDS} s) at "
                f"{self.sampling_rate} Hz, got {num_samples} ({num_samples / self.sampling_rate:g} s)"
            )

    def frames(self, samples: npt.NDArray[np.float32]) -> FloatArray:
        """The frames that lie in a clip.

        Args:
            samples: (num_samples,), of `min_samples` or more.

        Returns:
            float32 (frames, bins).

        Raises:
            InputError: There are fewer, or more than the encoder was trained on.
        """
        self.check_length(len(samples))
        # Half a window of silence comes before the first sample; a frame reads one sample more than it uses.
        before = self.window // 2
        size = self.window + 1
        count = (len(samples) + before - size) // self.hop + 1
        padded = np.zeros(before + len(samples), np.float64)
        padded[before:] = samples
        cut = np.lib.stride_tricks.sliding_window_view(padded * self.scale, size)[:: self.hop][:count]
        spectrum = np.abs(np.fft.rfft(self._emphasised(cut) * _hann(self.window), n=self.transform))
        values = np.log(spectrum @ self._filters + self.floor)
        if self.mean:
            values -= np.array(self.mean)
        if self.deviation:
            values /= np.array(self.deviation)
        return values.astype(np.float32)

    def _emphasised(self, cut: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        part = self.preemphasis
        if part <= 0:
            return cut[:, :-1]
        if not self.is_htk:
            return cut[:, 1:] - part * cut[:, :-1]
        return np.concatenate([cut[:, :1] * (1 - part), cut[:, 1:-1] - part * cut[:, :-2]], axis=-1)

    @functools.cached_property
    def _filters(self) -> npt.NDArray[np.float64]:
        """Triangles on the mel scale of HTK, of height 1: (frequencies, bins)."""
        low, high = (2595 * math.log10(1 + hz / 700) for hz in self.range_hz)
        corners = 700 * (10 ** (np.linspace(low, high, self.bins + 2) / 2595) - 1)
        hz = np.linspace(0, self.sampling_rate // 2, self.transform // 2 + 1)[:, np.newaxis]
        left, centre, right = corners[:-2], corners[1:-1], corners[2:]
        return np.maximum(0, np.minimum((hz - left) / (centre - left), (right - hz) / (right - centre)))


def _hann(length: int) -> npt.NDArray[np.float64]:
    return np.hanning(length + 1)[:-1]


def _numbers(reader: ConfigReader, key: str, count: int) -> tuple[float, ...]:
    value = reader.get(key)
    if value is None:
        return ()
    flat = np.asarray(value, np.float64).ravel() if isinstance(value, Sequence) else np.empty(0)
    if len(flat) != count or not np.isfinite(flat).all():
        raise reader.wrong(key, f"{count} finite numbers")
    return tuple(map(float, flat))
