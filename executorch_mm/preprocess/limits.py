"""How much one picture or sound may ask for: every limit on media, and what raises it.

A file of a few kilobytes can claim to hold gigabytes. Readers ask before they take memory, and refuse with an
`InputError` that names the limit, its number and what came.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from executorch_mm.errors import InputError, shown


@dataclass(frozen=True)
class MediaLimits:
    """What one picture or one sound may take at most.

    Attributes:
        file_bytes: Bytes of a file before it is decoded.
        picture_edge: Length of a picture's longer edge, as it is read and as it is resized.
        picture_pixels: Pixels of a picture, as it is read and as it is resized.
        picture_bytes: Memory for one picture: its decoder, its pixels, and what conversion and preparation
            make of them.
        picture_tiles: Tiles that one picture is cut into.
        sound_seconds: Length of a sound.
        min_sampling_rate: Lowest sampling rate of a sound, per second.
        max_sampling_rate: Highest sampling rate of a sound, per second.
        sound_samples: Samples of a sound in all its channels, as it is read and as it is resampled.

    Raises:
        InputError: A limit is no positive int.
    """

    file_bytes: int = 2**31
    picture_edge: int = 2**16
    picture_pixels: int = 2**29 // 3
    picture_bytes: int = 2**30
    picture_tiles: int = 1024
    sound_seconds: int = 6 * 3600
    min_sampling_rate: int = 1_000
    max_sampling_rate: int = 768_000
    sound_samples: int = 2**29

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
    """Sets the limits for every picture and sound that this process reads from now on, in all threads.

    Args:
        limits: The new ones. `MediaLimits(picture_pixels=10**9)` raises one, the rest are the defaults.

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
        InputError: `got` is more.
    """
    limit: int = getattr(_in_force, name)
    if got > limit:
        raise InputError(
            f"{what}: expected at most {limit} {unit}, got {came or got}; "
            f"set_media_limits(MediaLimits({name}=...)) allows more"
        )
