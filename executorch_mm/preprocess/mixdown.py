"""What every audio clip must be, wherever it comes from, and how its channels become one."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from executorch_mm.errors import InputError
from executorch_mm.preprocess.limits import check_limit, media_limits

Samples: TypeAlias = "npt.NDArray[np.float32]"

# Floats may be as loud as this: mixes of several clips are, what resampling makes of a loud one, and noise
# of unit variance. A recording in the range of 16 bits is louder, however faint it sounds.
_LOUDEST = 8.0
_LOUDEST_OF_16_BITS = 2.0**15


def check_rate(what: str, rate: int) -> None:
    """Refuses a sampling rate outside of the limits.

    Args:
        what: Starts the error message.
        rate: Samples per second.

    Raises:
        InputError: It is.
    """
    check_limit(what, "max_sampling_rate", rate, "samples per second")
    lowest = media_limits().min_sampling_rate
    if rate < lowest:
        raise InputError(
            f"{what}: expected at least {lowest} samples per second, got {rate}; "
            "set_media_limits(MediaLimits(min_sampling_rate=...)) allows less"
        )


def check_length(what: str, num_frames: int, channels: int, rate: int) -> None:
    """Refuses an audio clip that would be longer, or take more memory, than the limits allow.

    Args:
        what: Starts the error message.
        num_frames: Samples of each channel.
        channels: Number of channels.
        rate: Samples per second.

    Raises:
        InputError: It would.
    """
    check_limit(what, "audio_seconds", round(num_frames / rate, 3), "seconds")
    check_limit(what, "audio_samples", num_frames * channels, "samples")


def check_values(what: str, samples: npt.NDArray[np.floating[Any]], *, is_scaled: bool) -> None:
    """Refuses values that are no samples.

    Args:
        what: Starts the error message.
        samples: Of any shape.
        is_scaled: Whether a decoder has made them, so that loud ones are only loud.

    Raises:
        InputError: NaN, infinity, or values far outside of -1..1.
    """
    if not samples.size:
        return
    low, high = float(np.min(samples)), float(np.max(samples))  # both are NaN where one value is
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError(f"{what}: expected finite values, got NaN or infinity")
    loudest = max(-low, high)
    if loudest <= _LOUDEST or is_scaled:
        return
    cause = "16 bits that were not divided by 32768"
    if loudest > _LOUDEST_OF_16_BITS:
        cause = "24 or 32 bits that were not divided by 2**23 or 2**31"
    raise InputError(
        f"{what}: expected floats in -1..1, or up to {_LOUDEST:g} where an audio clip is too loud, got "
        f"{low:.4g}..{high:.4g}: likely samples of {cause}; arrays of integers are scaled by their type"
    )


class Mixdown:
    """An audio clip of any number of channels that comes in blocks, averaged to one.

    Args:
        what: Starts error messages.
        channels: Number of channels.
        rate: Samples per second.
        is_scaled: See `check_values`.

    Attributes:
        num_frames: Samples of each channel so far.

    Raises:
        InputError: The sampling rate is outside of the limits, or there is no channel.
    """

    def __init__(self, what: str, channels: int, rate: int, *, is_scaled: bool) -> None:
        check_rate(what, rate)
        if channels < 1:
            raise InputError(f"{what}: expected an audio clip with channels, got {channels}")
        self.num_frames: int = 0
        self._what = what
        self._channels = channels
        self._rate = rate
        self._is_scaled = is_scaled
        self._blocks: list[Samples] = []

    def expect(self, num_frames: int) -> None:
        """Refuses an audio clip of so many samples in each channel if the limits allow no such length.

        Raises:
            InputError: They do not.
        """
        check_length(self._what, num_frames, self._channels, self._rate)

    def add(self, block: Samples) -> None:
        """Adds (num_frames, channels).

        Raises:
            InputError: The audio gets longer than the limits allow, or has values that are no samples.
        """
        self.expect(self.num_frames + len(block))
        check_values(self._what, block, is_scaled=self._is_scaled)
        self.num_frames += len(block)
        self._blocks.append(to_mono(block))

    def samples(self) -> Samples:
        """The audio so far, (num_frames,).

        Raises:
            InputError: There is nothing.
        """
        if self.num_frames == 0:
            raise InputError(f"{self._what}: expected an audio clip with samples, got none")
        return self._blocks[0] if len(self._blocks) == 1 else np.concatenate(self._blocks)


def to_mono(block: Samples) -> Samples:
    """(num_frames, channels) averaged to (num_frames,); a view where there is one channel."""
    if block.shape[1] == 1:
        return block[:, 0]
    mean: Samples = np.mean(block, axis=1, dtype=np.float32)
    return mean
