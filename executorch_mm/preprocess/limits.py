"""How much one image or audio clip may ask for: every limit on media, and what raises it.

A file of a few kilobytes can claim to hold gigabytes. Readers ask before they take memory, and refuse with an
`InputError` that names the limit, its number and what came.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from executorch_mm.errors import InputError, MediaLimitError, shown


@dataclass(frozen=True)
class MediaLimits:
    """What one image or one audio clip may take at most.

    Attributes:
        file_bytes: Bytes of a file before it is decoded.
        image_edge: Length of an image's longer edge, as it is read and as it is resized.
        image_pixels: Pixels of an image, as it is read and as it is resized.
        image_bytes: Memory for one image: its decoder, its pixels, and what conversion and preparation
            make of them.
        image_tiles: Tiles that one image is cut into.
        audio_seconds: Length of an audio clip.
        min_sampling_rate: Lowest sampling rate of an audio clip, per second.
        max_sampling_rate: Highest sampling rate of an audio clip, per second.
        audio_samples: Samples of an audio clip in all its channels, as it is read and as it is resampled.

    Raises:
        InputError: A limit is no positive int.
    """

    file_bytes: int = 2**31
    image_edge: int = 2**16
    image_pixels: int = 2**29 // 3
    image_bytes: int = 2**30
    image_tiles: int = 1024
    audio_seconds: int = 6 * 3600
    min_sampling_rate: int = 1_000
    max_sampling_rate: int = 768_000
    audio_samples: int = 2**29

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{field.name}: expected a positive int, got {shown(value)}")


_in_force = MediaLimits()


def media_limits() -> MediaLimits:
    """The limits in force in this process."""
    return _in_force


def set_media_limits(limits: MediaLimits) -> MediaLimits:
    """Sets the limits for every image and audio clip that this process reads from now on, in all threads.

    Args:
        limits: The new ones. `MediaLimits(image_pixels=10**9)` raises one, the rest are the defaults.

    Returns:
        Those that were in force.

    Raises:
        InputError: It is no `MediaLimits`.
    """
    global _in_force
    if not isinstance(limits, MediaLimits):
        raise InputError(f"limits: expected MediaLimits, got {type(limits).__name__}")
    before, _in_force = _in_force, limits
    return before


def check_limit(what: str, name: str, got: float, unit: str, came: str = "") -> None:
    """Refuses what is more than a limit.

    Args:
        what: Starts the error message.
        name: The limit: a field of `MediaLimits`.
        got: What came.
        unit: What is counted, in the plural.
        came: What came, where the number alone does not say it.

    Raises:
        MediaLimitError: `got` is more.
    """
    limit: int = getattr(_in_force, name)
    if got > limit:
        raise MediaLimitError(
            f"{what}: expected at most {limit} {unit}, got {came or got}; "
            f"set_media_limits(MediaLimits({name}=...)) allows more"
        )
