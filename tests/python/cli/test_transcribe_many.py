"""`executorch-mm transcribe` of folders and patterns, into a folder, and again after an interruption."""

from __future__ import annotations

import io
import json
import struct
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chunk_cases
from executorch_mm import InputError, cli
from executorch_mm.cli.audio_files import audio_files, replaced
from executorch_mm.cli.errors import UsageError
from executorch_mm.speech import Segment, SpeechModel, SpeechRunner, SpeechSession
from executorch_mm.speech.formats import write

MODEL = Path(__file__).resolve().parents[2] / "models" / "speech" / "kv.pte"
PLAIN = ("--model", str(MODEL), "--temperature", "0", "--language", "en", "--threads", "1")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> tuple[int, str, str]:
        code = cli.main(["transcribe", *map(str, arguments)])
        return (code, *capsys.readouterr())

    return call


@pytest.fixture
def talks(tmp_path: Path) -> Path:
    """Three short audio files in two folders, and what is none."""
    folder = tmp_path / "talks"
    (folder / "late").mkdir(parents=True)
    for number, name in enumerate(("b.wav", "a.WAV", "late/c.wav")):
        with wave.open(str(folder / name), "wb") as file:
            file.setparams((1, 2, 16000, 0, "NONE", ""))
            samples = np.random.default_rng(number).integers(-9000, 9000, 8000, np.int16)
            file.writeframes(samples.tobytes())
    (folder / "notes.txt").write_text("no audio")
    return folder


def names(files: Any) -> list[str]:
    return [file.name.as_posix() for file in files]


def test_folders_and_patterns_name_files_once_in_order(talks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert names(audio_files([str(talks)])) == ["a", "b", "late/c"]
    monkeypatch.chdir(talks)
    assert names(audio_files(["**/*.wav"])) == ["b", "c"]
    assert names(audio_files(["b.wav", "*.wav", "-", "none.wav"])) == ["b", "stdin", "none"]
    odd = talks / "[1].wav"
    odd.touch()
    assert [file.path for file in audio_files([str(odd)])] == [str(odd)]
    for wrong in (["*.mp3"], ["late/*/"], ["-", "-"]):
        with pytest.raises(UsageError):
            audio_files(wrong)
    (talks / "empty").mkdir()
    with pytest.raises(UsageError, match="a folder with audio files"):
        audio_files([str(talks / "empty")])


def test_a_folder_is_written_as_it_lies_and_what_is_there_is_skipped(
    talks: Path, tmp_path: Path, run: Run
) -> None:
    out = tmp_path / "out"
    assert run(talks, *PLAIN, "--format", "srt", "--output-dir", out) == (0, "", "")
    written = {path.relative_to(out).as_posix(): path.read_text() for path in out.rglob("*.*")}
    assert sorted(written) == ["a.srt", "b.srt", "late/c.srt"]
    with SpeechRunner(MODEL, num_threads=1) as runner:
        result = runner.transcribe(talks / "late" / "c.wav", language="en", temperature=0.0, timestamps=True)
    assert written["late/c.srt"] == result.to_srt()

    (out / "a.srt").write_text("by hand")
    (out / "b.srt").unlink()
    code, _, said = run(talks, *PLAIN, "--format", "srt", "--output-dir", out)
    assert (code, "2 of 3 files are there already" in said) == (0, True)
    assert (out / "a.srt").read_text() == "by hand"
    assert (out / "b.srt").read_text() == written["b.srt"]

    # another format is another file, and words need no text file beside them
    assert run(talks / "late", *PLAIN, "--format", "verbose_json", "--output-dir", out)[0] == 0
    assert json.loads((out / "c.json").read_text())["text"] == result.text


def test_a_model_of_one_conversation_hears_files_one_after_the_other(
    talks: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def session(_model: SpeechModel) -> SpeechSession:
        raise InputError("its state lies in a delegate")

    assert run(talks, *PLAIN, "--output-dir", tmp_path / "with")[0] == 0
    monkeypatch.setattr(SpeechModel, "session", session)
    assert run(talks, *PLAIN, "--output-dir", tmp_path / "without") == (0, "", "")
    for path in (tmp_path / "with").rglob("*.txt"):
        alone = tmp_path / "without" / path.relative_to(tmp_path / "with")
        assert alone.read_text() == path.read_text()


def test_a_file_that_fails_is_not_there_and_tried_again(talks: Path, tmp_path: Path, run: Run) -> None:
    (talks / "broken.wav").write_bytes(b"RIFF")
    out = tmp_path / "out"
    for _ in range(2):
        code, _, said = run(talks / "broken.wav", talks / "b.wav", *PLAIN, "--output-dir", out)
        assert (code, "broken.wav" in said) == (1, True)
        assert [path.name for path in out.iterdir()] == ["b.txt"]


def test_places_are_chosen_once(talks: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "out"
    assert run(talks, *PLAIN, "--output-dir", out, "-o", out)[0] == 2
    code, _, said = run(talks / "b.wav", talks / "late" / "b.wav", *PLAIN, "--output-dir", out)
    assert (code, "2 files would be written to" in said) == (2, True)
    assert not out.exists()
    assert run(talks, *PLAIN, "-o", out) == (0, "", "")
    assert (out / "late" / "c.txt").is_file()


class Typed:
    """Standard input that gives a few bytes at a time."""

    def __init__(self, data: bytes) -> None:
        self.buffer = self
        self._data = io.BytesIO(data)

    def read1(self, size: int) -> bytes:
        return self._data.read(min(size, 333))


def speech() -> bytes:
    t = np.arange(3 * 16_000) / 16_000
    voice = 9000 * np.sin(2 * np.pi * 600 * t) * (0.5 - 0.5 * np.cos(8 * np.pi * t))
    return voice.astype("<i2").tobytes() + bytes(40_000)


@pytest.mark.parametrize("kind", ["pcm", "wav", "wav of a pipe"])
def test_standard_input_is_heard_while_it_comes(kind: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    data = speech()
    with SpeechRunner(MODEL, num_threads=1) as runner:
        events = runner.live(sampling_rate=16_000, language="en", temperature=0.0, timestamps=True)
        expected = "".join(
            write("srt", (event for event in events.stream([data]) if isinstance(event, Segment)))
        )
    assert expected
    if kind != "pcm":
        file = io.BytesIO()
        with wave.open(file, "wb") as writer:
            writer.setparams((1, 2, 16000, 0, "NONE", ""))
            writer.writeframes(data)
        data = file.getvalue()
    if kind == "wav of a pipe":  # whose length nobody knew
        data = data[:4] + b"\xff" * 4 + data[8:40] + b"\xff" * 4 + data[44:]
    monkeypatch.setattr("sys.stdin", Typed(data))
    assert run("-", *PLAIN, "--live", "--format", "srt") == (0, expected, "")


def test_a_model_that_hears_chunks_writes_what_it_says_of_a_file(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name = "tdt_buffers"
    data = (chunk_cases.clip(name, 1) * 32767).astype("<i2").tobytes()
    file = tmp_path / "clip.wav"
    with wave.open(str(file), "wb") as writer:
        writer.setparams((1, 2, 16000, 0, "NONE", ""))
        writer.writeframes(data)
    model = str(chunk_cases.FOLDER / f"{name}.pte")
    options = ("--model", model, "--tokenizer", str(chunk_cases.TOKENIZER), "--threads", "1")
    of_file = run(str(file), *options)
    assert of_file[0] == 0
    assert of_file[1].strip()
    monkeypatch.setattr("sys.stdin", Typed(data))
    live = run("-", *options, "--live")
    assert (live[0], "".join(live[1].split())) == (0, "".join(of_file[1].split()))


def test_what_cannot_be_heard_live_is_said(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    header = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0" + struct.pack("<HHIIHH", 3, 1, 16000, 64000, 4, 32)
    for data, said in (
        (header + b"data\0\0\0\0", "16 bits, got 32"),
        (b"RIFF\0\0\0\0WAVE", "header without"),
    ):
        monkeypatch.setattr("sys.stdin", Typed(data))
        code, _, error = run("-", *PLAIN, "--live")
        assert (code, said in error) == (2, True)
    for arguments, said in (
        (["a.wav", "--live"], "expected - as the only FILE"),
        (["-", "--live", "--json"], "--live writes txt"),
        (["-", "--rate", "8000"], "--rate needs --live"),
    ):
        code, _, error = run(*arguments, *PLAIN)
        assert (code, said in error) == (2, True)
    monkeypatch.setattr("sys.stdin", Typed(b""))
    assert run("-", *PLAIN, "--live") == (0, "", "")
    assert run("-", *PLAIN, "--live", "--rate", "5")[0] == 1


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    place = tmp_path / "new" / "text.txt"
    with pytest.raises(TypeError), replaced(place) as file:
        file.write(b"half")  # type: ignore[arg-type]
    assert [*place.parent.iterdir()] == []
    with replaced(place) as file:
        file.write("whole")
        file.flush()
        assert not place.exists()
    assert [(path.name, path.read_text()) for path in place.parent.iterdir()] == [("text.txt", "whole")]
