"""What a microphone hears, in chunks for `SpeechRunner.live()`."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from executorch_mm._files.extras import import_extra
from executorch_mm.errors import InputError
from executorch_mm.speech.live import checked_seconds


def microphone(
    sampling_rate: int = 16_000, *, device: int | str | None = None, chunk_seconds: float = 0.1
) -> Generator[bytes, None, None]:
    """Chunks of PCM, 16 bits, one channel, until it is closed.

    Read it in a thread that does nothing else: what comes while nobody reads is lost.

    Args:
        sampling_rate: Samples per second.
        device: Its number or a part of its name; None for the usual one.
        chunk_seconds: Of each chunk, 0.01 to 10.

    Raises:
        MissingDependencyError: sounddevice is not installed; the extra `microphone` brings it.
        InputError: There is no such device, or it does not hear at this rate.
    """
    size = round(checked_seconds(chunk_seconds, "chunk_seconds", 0.01, 10) * sampling_rate)
    try:
        library: Any = import_extra("sounddevice", "microphone", "hearing a microphone")
    except OSError as error:  # it looks for PortAudio when it is imported
        raise InputError(f"microphone: sounddevice finds no sound library: {error}") from error
    return _chunks(library, sampling_rate, device, size)


def _chunks(
    library: Any, sampling_rate: int, device: int | str | None, size: int
) -> Generator[bytes, None, None]:
    try:
        with library.RawInputStream(
            samplerate=sampling_rate, device=device, channels=1, dtype="int16", blocksize=size
        ) as stream:
            while True:
                yield bytes(stream.read(size)[0])
    except (library.PortAudioError, ValueError) as error:
        raise InputError(f"microphone: expected a device that hears, got {error}") from error
