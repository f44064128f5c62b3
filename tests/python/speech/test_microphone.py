"""Chunks of a microphone, by a stand-in for sounddevice."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from executorch_mm import InputError, MissingDependencyError, Segment, SpeechRunner
from executorch_mm.speech.microphone import microphone
from speech_cases import FOLDER, clip


class PortAudioError(Exception):
    pass


class Stream:
    """Hears a clip."""

    def __init__(self, **options: Any) -> None:
        if options["device"] == "none":
            raise PortAudioError("no device")
        if options["device"] == "two":
            raise ValueError("No input device matching 'two'")
        assert options == {**options, "channels": 1, "dtype": "int16", "samplerate": 16_000}
        self._data = (clip("short") * 20_000).astype("<i2").tobytes()
        self.is_open = False

    def __enter__(self) -> Stream:
        self.is_open = True
        return self

    def __exit__(self, *_: object) -> None:
        self.is_open = False

    def read(self, size: int) -> tuple[memoryview, bool]:
        taken, self._data = self._data[: 2 * size], self._data[2 * size :]
        return memoryview(taken), False


@pytest.fixture
def sound(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = SimpleNamespace(RawInputStream=Stream, PortAudioError=PortAudioError)
    monkeypatch.setitem(sys.modules, "sounddevice", fake)  # type: ignore[arg-type]


def test_what_it_hears_is_transcribed(sound: None) -> None:
    chunks = microphone()
    with SpeechRunner(FOLDER / "kv.pte", num_threads=1) as runner:
        live = runner.live(sampling_rate=16_000, language="en", max_new_tokens=5)
        for _ in range(20):
            live.push(next(chunks))
        chunks.close()
        events = [*live.step(), *live.flush()]
    assert live.seconds == pytest.approx(2.0)
    assert all(isinstance(event, Segment) for event in events[-1:])


@pytest.mark.parametrize("device", ["none", "two"])
def test_a_device_that_is_not_there_is_said(sound: None, device: str) -> None:
    with pytest.raises(InputError, match="microphone: expected a device that hears, got"):
        next(microphone(device=device))


def test_chunks_have_a_length(sound: None) -> None:
    with pytest.raises(InputError, match=r"chunk_seconds: expected 0\.01 to 10 seconds, got 0"):
        microphone(chunk_seconds=0)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)  # type: ignore[arg-type]
    with pytest.raises(MissingDependencyError, match=r"executorch_mm\[microphone\]"):
        microphone()
