"""Spoken training clips: synthesised once, kept in a file, spoiled differently every time they are used."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy.signal import fftconvolve, lfilter
from torch import Tensor
from voices import LENGTH, LONGEST, RATE, Espeak, Samples, utterance, variants

from executorch_mm.preprocess.audio import mel_filters

CLIPS = 210_000
WINDOW, HOP, BINS = 400, 160, 64


@dataclass(frozen=True)
class Clips:
    """Samples of many clips, one after another.

    Attributes:
        samples: int16, all of them.
        starts: Where each clip starts, and the end.
        words: What each says.
    """

    samples: npt.NDArray[np.int16]
    starts: npt.NDArray[np.int64]
    words: list[str]

    def __len__(self) -> int:
        return len(self.words)

    def __getitem__(self, index: int) -> Samples:
        return self.samples[self.starts[index] : self.starts[index + 1]].astype(np.float32) / 32768


def _speak(span: tuple[int, int]) -> tuple[list[npt.NDArray[np.int16]], list[str]]:
    espeak, known = Espeak(), variants()
    clips, words = [], []
    for seed in range(*span):
        what = utterance(seed, known)
        samples = espeak.clip(what)
        if len(samples) <= LONGEST * RATE:
            clips.append((samples * 32767).astype(np.int16))
            words.append(what.words)
    return clips, words


def speak(first: int, count: int, cache: Path) -> Clips:
    """The clips of seeds `first` .. `first + count - 1` that are short enough, made in two processes."""
    files = [cache.with_suffix(end) for end in (".samples.npy", ".starts.npy", ".words.txt")]
    if not all(file.exists() for file in files):
        spans = [(s, min(s + 2000, first + count)) for s in range(first, first + count, 2000)]
        clips, words = [], []
        with ProcessPoolExecutor(2) as pool:
            for some, said in pool.map(_speak, spans):
                clips += some
                words += said
        np.save(files[0], np.concatenate(clips))
        np.save(files[1], np.cumsum([0, *map(len, clips)], dtype=np.int64))
        files[2].write_text("\n".join(words))
    return Clips(np.load(files[0], mmap_mode="r"), np.load(files[1]), files[2].read_text().split("\n"))


def features(samples: Tensor, change: Tensor | None = None) -> Tensor:
    """What `executorch_mm.preprocess.AudioProcessor` makes of audio of 4 s, for a whole batch.

    Args:
        samples: Float [B,64000].
        change: [B,64]; added to the powers of ten, before quiet values are cut off: an equaliser.

    Returns:
        Float [B,64,400].
    """
    filters = torch.from_numpy(mel_filters(BINS, WINDOW // 2 + 1, RATE).T).float()
    log_mel = torch.cat([_log_mel(part, filters) for part in samples.split(16)])
    if change is not None:
        log_mel = torch.where(log_mel > -9.99, log_mel + change[..., None], log_mel)
    return (torch.maximum(log_mel, log_mel.amax((1, 2), keepdim=True) - 8) + 4) / 4


def _log_mel(samples: Tensor, filters: Tensor) -> Tensor:
    window = torch.hann_window(WINDOW)
    spectrum = torch.stft(samples, WINDOW, HOP, window=window, return_complex=True)[..., :-1]
    return (filters @ (spectrum.real**2 + spectrum.imag**2)).clamp_min(1e-10).log10()


class Spoiler:
    """Places clips somewhere in 4 s and adds what recordings have: noise, other voices, echo, filters.

    Args:
        clips: All clips; some are mixed to a murmur.
        rng: Source of all choices.
    """

    _NOISE_LENGTH = 30 * RATE

    def __init__(self, clips: Clips, rng: np.random.Generator) -> None:
        self._clips, self.rng = clips, rng
        self._noises = [self._noise(slope) for slope in np.linspace(0, 0.99, 12)]
        self._noises += [self._murmur(count) for count in (2, 4, 8)]

    def __call__(self, indices: list[int]) -> Tensor:
        """Features [B,64,400] of the clips, spoiled."""
        samples = torch.from_numpy(np.stack([self._recording(self._clips[i]) for i in indices]))
        out = features(samples, torch.from_numpy(self._equaliser(len(indices))))
        for row in out:
            self._mask(row)
        return out

    def _noise(self, slope: float) -> Samples:
        """From white (0) to nearly brown (0.99)."""
        return _level(lfilter([1], [1, -slope], self.rng.standard_normal(self._NOISE_LENGTH)))

    def _murmur(self, voices: int) -> Samples:
        out = np.zeros(self._NOISE_LENGTH + LENGTH, np.float32)
        for _ in range(voices):
            start = 0
            while start < self._NOISE_LENGTH:
                clip = _level(self._clips[int(self.rng.integers(len(self._clips)))])
                out[start : start + len(clip)] += clip
                start += len(clip) + int(self.rng.integers(RATE))
        return _level(out[: self._NOISE_LENGTH])

    def _recording(self, clip: Samples) -> Samples:
        rng = self.rng
        if rng.random() < 0.2:
            clip = self._echo(clip)
        clip = _level(clip)
        out = np.zeros(LENGTH, np.float32)
        start = int(rng.integers(LENGTH - len(clip) + 1))
        if rng.random() < 0.3:
            start = min(start, int(rng.integers(RATE // 4)))
        out[start : start + len(clip)] = clip
        end = int(rng.integers(start + len(clip), LENGTH + 1)) if rng.random() < 0.7 else LENGTH
        if rng.random() < 0.8:
            noise = self._noises[int(rng.integers(len(self._noises)))]
            offset = int(rng.integers(len(noise) - LENGTH))
            out[:end] += noise[offset : offset + end] * 10 ** (-rng.uniform(8, 45) / 20)
        return out * np.float32(10 ** (-rng.uniform(10, 40) / 20))

    def _echo(self, clip: Samples) -> Samples:
        length = int(self.rng.uniform(0.05, 0.25) * RATE)
        room = self.rng.standard_normal(length) * np.exp(-6 * np.arange(length) / length)
        room *= self.rng.uniform(0.1, 0.5) / np.sqrt((room**2).sum())
        room[0] = 1
        return fftconvolve(clip, room)[: min(LENGTH, len(clip) + length // 2)].astype(np.float32)

    def _equaliser(self, count: int) -> Samples:
        """Smooth curves [count,64] within about 10 dB; one in eight has no high frequencies, like phones."""
        points = self.rng.normal(0, 0.25, (count, 5))
        where = np.linspace(0, 4, BINS)
        curves = np.stack([np.interp(where, np.arange(5), row) for row in points])
        for row in curves[self.rng.random(count) < 0.125]:
            row[int(self.rng.integers(44, BINS)) :] -= 3
        return curves.astype(np.float32)

    def _mask(self, row: Tensor) -> None:
        """Blots out a few frames and bins."""
        floor = row.amin()
        for _ in range(int(self.rng.integers(3))):
            start, width = int(self.rng.integers(390)), int(self.rng.integers(1, 11))
            row[:, start : start + width] = floor
        for _ in range(int(self.rng.integers(3))):
            start, width = int(self.rng.integers(BINS - 8)), int(self.rng.integers(1, 9))
            row[start : start + width] = row[start : start + width].mean()


def _level(samples: npt.NDArray[np.floating]) -> Samples:
    """Mean power 1."""
    return (samples / np.sqrt(np.square(samples).mean() + 1e-12)).astype(np.float32)
