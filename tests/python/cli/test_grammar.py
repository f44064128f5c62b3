"""One grammar for all subcommands: what names a model, what is read and written, how it ends."""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import subprocess
import sys
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import executorch_mm
import tiny_hub
from executorch_mm import MultimodalInput, cli
from executorch_mm.cli.grammar import read_commands
from executorch_mm.demo import SPOKEN_FILE, SPOKEN_WORDS, make_scene, render
from executorch_mm.demo.questions import NUMBERS
from executorch_mm.speech._languages import CODES

MODEL = Path(executorch_mm.__file__).parent / "models" / "tiny_vlm"
SPEECH = Path(__file__).resolve().parents[2] / "models" / "speech"
COMMANDS = {command.name: command for command in read_commands(cli.build_parser())}
COUNT = "How many shapes are there?"
SCENE = make_scene(900_000_001)


class Result(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


Call = Callable[..., Result]


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Call:
    def run(*arguments: object) -> Result:
        code = cli.main([*map(str, arguments)])
        return Result(code, *capfd.readouterr())

    return run


def program(*arguments: object, **options: object) -> subprocess.CompletedProcess[bytes]:
    """The program in a process of its own."""
    command = [sys.executable, "-m", "executorch_mm", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, timeout=120, check=False, **options)  # type: ignore[call-overload]


def refused(result: Result, code: int, *words: str) -> None:
    assert (result.returncode, result.stdout) == (code, ""), result
    assert all(word in result.stderr for word in words), result.stderr


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "scene.png"
    render(SCENE).save(path)
    return path


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    path = tmp_path / "noise.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(np.random.default_rng(0).integers(-9000, 9000, 32000, np.int16).tobytes())
    return path


# One name for one thing.


def test_what_several_subcommands_take_is_the_same_in_all_of_them() -> None:
    seen: dict[str, tuple[str, object]] = {}
    for command in COMMANDS.values():
        for argument in command.arguments:
            for flag in argument.flags:
                about = (argument.value, argument.choices)
                assert seen.setdefault(flag, (command.name, about))[1] == about, (flag, command.name)
    for name in ("generate", "transcribe", "inspect", "doctor"):
        flags = {flag for argument in COMMANDS[name].arguments for flag in argument.flags}
        assert {"--json", "--output", "-o", "--model-file", "--revision", "--local-files-only"} <= flags, name
        assert "MODEL" in {argument.value for argument in COMMANDS[name].arguments}


def test_every_argument_says_what_it_is_for() -> None:
    for command in COMMANDS.values():
        assert command.description
        assert all(argument.help for argument in command.arguments), command.name


def test_options_are_written_out(call: Call) -> None:
    result = call("generate", "--max-new", "3", "hello")
    assert result.returncode == 2
    assert "--max-new" in result.stderr


@pytest.mark.parametrize("name", ["folder", "model.pte", "owner/tiny"])
def test_a_model_is_a_file_a_folder_or_a_name_of_the_hub_for_all(
    name: str, image: Path, noise: Path, demo_folder: Path, tmp_path: Path
) -> None:
    environment = {**os.environ, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_DISABLE_XET": "1"}
    speech = tmp_path / "speech"
    speech.mkdir()
    for path in SPEECH.iterdir():
        if path.name != "optimum.pte":
            (speech / path.name).symlink_to(path)

    def run(kind: str, *arguments: object, model: Path, file: str) -> bytes:
        named = {"folder": model, "model.pte": model / file, "owner/tiny": "owner/tiny"}[name]
        result = program(kind, *arguments, *(["-m"] if arguments else []), named, env=environment)
        assert result.returncode == 0, result.stderr
        return result.stdout

    if name == "owner/tiny":
        pytest.importorskip("huggingface_hub")
    with tiny_hub.serving(demo_folder) as environment["HF_ENDPOINT"]:
        answer = run("generate", "--image", image, COUNT, model=demo_folder, file="model.pte")
        assert answer.decode().strip() == NUMBERS[len(SCENE.shapes)]
        assert b"multimodal model" in run("inspect", model=demo_folder, file="model.pte")
        assert b"ok      image" in run("doctor", model=demo_folder, file="model.pte")
    environment["HF_HOME"] = str(tmp_path / "other cache")
    with tiny_hub.serving(speech) as environment["HF_ENDPOINT"]:
        run("transcribe", noise, "--temperature", "0", model=speech, file="kv.pte")


def test_a_hub_that_is_not_asked_is_one_line(call: Call) -> None:
    pytest.importorskip("huggingface_hub")
    for arguments in (["generate", "hello", "-m"], ["inspect"], ["transcribe", "a.wav", "-m"]):
        result = call(*arguments, "owner/nowhere-at-all", "--local-files-only")
        refused(result, 1, "owner/nowhere-at-all: no such folder", "local_files_only")
        assert result.stderr.count("\n") == 1
    found = call("doctor", "owner/nowhere-at-all", "--local-files-only")
    assert found.returncode == 1
    assert "FAILED  model: owner/nowhere-at-all" in found.stdout


def test_one_of_several_models_is_chosen(call: Call, tmp_path: Path) -> None:
    for name in ("a.pte", "b.pte"):
        (tmp_path / name).symlink_to(MODEL / "model.pte")
    refused(call("inspect", tmp_path), 1, "a.pte, b.pte; choose with model_file= or --model-file")
    assert "b.pte" in call("inspect", tmp_path, "--model-file", "b.pte").stdout


# What is read.


def test_generate_hears(call: Call) -> None:
    result = call("generate", "--audio", SPOKEN_FILE, "What do you hear?")
    assert result == (0, SPOKEN_WORDS + "\n", "")


def test_images_and_audio_keep_the_order_of_the_command_line(
    image: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    seen: list[list[str | MultimodalInput]] = []

    class Seeing:
        has_chat_template = False

        def __enter__(self) -> Seeing:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def stream(self, parts: list[str | MultimodalInput], *_: object, **_options: object) -> Iterator[str]:
            seen.append(parts)
            yield "done"

    monkeypatch.setattr("executorch_mm.cli.generate.load_runner", lambda _: Seeing())
    call("generate", "--audio", SPOKEN_FILE, "--image", image, "--audio", SPOKEN_FILE, "what?")
    call("generate", "--image", image, "--audio", SPOKEN_FILE, "this: <audio>")
    kinds = [[part if isinstance(part, str) else part.is_image() for part in parts] for parts in seen]
    assert kinds == [[False, True, False, "what?"], [True, "this: ", False]]


@pytest.mark.parametrize("option", ["--image", "--audio"])
def test_files_come_from_standard_input(option: str, image: Path) -> None:
    path, question, answer = {
        "--image": (image, COUNT, NUMBERS[len(SCENE.shapes)]),
        "--audio": (SPOKEN_FILE, "What do you hear?", SPOKEN_WORDS),
    }[option]
    with path.open("rb") as file:
        result = program("generate", option, "-", question, stdin=file)
    assert (result.returncode, result.stdout.decode(), result.stderr) == (0, answer + "\n", b"")


def test_transcribe_reads_standard_input(noise: Path) -> None:
    arguments = ("-m", SPEECH / "kv.pte", "--temperature", "0", "--language", "en")
    named = program("transcribe", noise, *arguments)
    with noise.open("rb") as file:
        piped = program("transcribe", "-", *arguments, stdin=file)
    assert piped.stdout == named.stdout
    assert (piped.returncode, piped.stderr) == (0, b"")


@pytest.mark.parametrize(
    "arguments", [["generate", "-", "--image", "-"], ["transcribe", "-", "-", "-m", "x"]]
)
def test_standard_input_is_read_once_only(arguments: list[str], call: Call) -> None:
    refused(call(*arguments), 2, "standard input can be read once only")


# What is written.


def test_generate_writes_json(call: Call, image: Path) -> None:
    result = call("generate", "--image", image, "--json", COUNT)
    answer = json.loads(result.stdout)
    assert answer["text"] == NUMBERS[len(SCENE.shapes)]
    assert answer["finish_reason"] == "stop"
    assert answer["stats"]["num_generated_tokens"] == len(answer["token_ids"])
    assert (result.stdout.count("\n"), result.stderr) == (1, "")


def test_output_takes_what_stdout_would_get(call: Call, image: Path, noise: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for arguments in (
        ["generate", "--image", image, COUNT],
        ["inspect", MODEL],
        ["inspect", MODEL, "--json"],
        ["transcribe", noise, "-m", SPEECH / "kv.pte", "--format", "srt", "--temperature", "0"],
    ):
        printed = call(*arguments, "-o", "-")
        assert printed.stdout
        assert call(*arguments, "--output", out) == (0, "", "")
        assert out.read_text(encoding="utf-8") == printed.stdout
    assert call("doctor", "--output", out).stdout == ""
    assert "compiled module" in out.read_text(encoding="utf-8")


def test_a_failure_leaves_an_earlier_output_alone(call: Call, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text("earlier", encoding="utf-8")
    refused(call("generate", "--raw", "red circle " * 2000, "-o", out), 1, "positions")
    refused(call("transcribe", "none.wav", "-m", SPEECH / "kv.pte", "-o", out), 1, "none.wav")
    refused(call("inspect", tmp_path / "none.pte", "-o", out), 1, "none.pte")
    assert out.read_text(encoding="utf-8") == "earlier"
    refused(call("generate", "hello", "-o", tmp_path / "no" / "folder"), 1, "No such file or directory")


# Several audio files.


def test_several_files_are_transcribed_one_after_the_other(call: Call, noise: Path, tmp_path: Path) -> None:
    model = ("-m", SPEECH / "kv.pte", "--temperature", "0", "--language", "German")
    other = tmp_path / "other.wav"
    other.write_bytes(noise.read_bytes()[:-32000])
    one, two = (call("transcribe", file, *model).stdout for file in (noise, other))
    both = call("transcribe", noise, other, *model)
    assert both == (0, f"==> {noise} <==\n{one}==> {other} <==\n{two}", "")

    lines = call("transcribe", noise, other, *model, "--json").stdout.splitlines()
    alone = call("transcribe", other, *model, "--json").stdout
    assert [json.loads(line)["file"] for line in lines] == [str(noise), str(other)]
    assert json.loads(lines[1])["segments"] == json.loads(alone)["segments"]
    assert "file" not in json.loads(alone)

    refused(call("transcribe", noise, other, *model, "--format", "vtt"), 2, "need a folder as --output")
    folder = tmp_path / "texts"
    assert call("transcribe", noise, other, *model, "-o", folder) == (0, "", "")
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"noise.txt": one, "other.txt": two}
    assert call("transcribe", noise, *model, "--format", "srt", "-o", folder).returncode == 0
    assert (folder / "noise.srt").is_file()


def test_a_file_that_fails_keeps_no_other_from_being_transcribed(
    call: Call, noise: Path, tmp_path: Path
) -> None:
    model = ("-m", SPEECH / "kv.pte", "--temperature", "0")
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF")
    folder = tmp_path / "texts"
    result = call("transcribe", tmp_path / "none.wav", noise, broken, *model, "-o", folder)
    assert (result.returncode, result.stdout) == (1, "")
    assert [
        bool(re.match(r"executorch-mm: .*(none|broken)\.wav", line)) for line in result.stderr.splitlines()
    ]
    assert result.stderr.count("\n") == 2
    assert [path.name for path in folder.iterdir()] == ["noise.txt"]


def test_files_that_would_be_written_over_each_other_are_refused(call: Call, tmp_path: Path) -> None:
    arguments = ("a/x.wav", "b/x.wav", "-m", SPEECH / "kv.pte", "-o")
    refused(call("transcribe", *arguments, tmp_path), 2, "2 files would be written to", "x.txt")
    file = tmp_path / "file"
    file.touch()
    refused(call("transcribe", *arguments, file), 2, "expected a folder for 2 files")


@pytest.mark.parametrize("language", ["de", "German", "german", "GERMAN"])
def test_languages_have_codes_and_names(language: str, call: Call, noise: Path) -> None:
    assert CODES["german"] == "de"  # ISO 639-1
    model = ("-m", SPEECH / "kv.pte", "--temperature", "0", "--json")
    assert json.loads(call("transcribe", noise, *model, "--language", language).stdout)["language"] == "de"


# How it ends.


def test_the_exit_codes_are_in_the_help(call: Call) -> None:
    text = " ".join(call("--help").stdout.split())
    assert [*cli.EXIT_CODES] == [0, 1, 2, 130, 141]  # 128 + SIGINT, 128 + SIGPIPE, as shells have them
    for code, meaning in cli.EXIT_CODES.items():
        assert f"{code} {meaning}" in text


@pytest.mark.parametrize("arguments", [["--help"], ["version"], ["inspect", str(MODEL), "--json"]])
def test_a_reader_that_has_gone_is_quiet(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "executorch_mm", *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = subprocess.run(
        command, stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False, env=environment
    )
    os.close(writer)
    assert (process.returncode, process.stderr) == (141, b"")


def test_closed_streams_are_holes(image: Path, tmp_path: Path) -> None:
    command = f'"{sys.executable}" -m executorch_mm generate --image {image} "{COUNT}"'
    done = subprocess.run(["sh", "-c", f"{command} >&-"], stderr=subprocess.PIPE, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    silent = subprocess.run(["sh", "-c", f"{command} <&- >&- 2>&-"], timeout=60, check=False)
    assert silent.returncode == 0
    read = subprocess.run(
        ["sh", "-c", f'"{sys.executable}" -m executorch_mm generate --raw - <&-'],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert read.returncode == 1  # an empty prompt
    assert read.stderr.count(b"\n") == 1


@pytest.mark.skipif(
    not Path("/dev/full").exists(), reason="this system has no /dev/full, the device that is always full"
)
def test_a_full_disk_is_one_line() -> None:
    for arguments in (["version"], ["inspect", str(MODEL)], ["generate", "hello", "-o", "/dev/full"]):
        with Path("/dev/full").open("wb") as full:
            command = [sys.executable, "-m", "executorch_mm", *arguments]
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=60, check=False)
        assert done.returncode == 1
        assert done.stderr.startswith(b"executorch-mm: ")
        assert b"No space left" in done.stderr
        assert done.stderr.count(b"\n") == 1


def test_streams_that_are_no_files_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Gone())
    assert cli.main(["version"]) == 141


def test_the_reader_of_parsers_knows_choices_and_exclusions() -> None:
    format_ = next(a for a in COMMANDS["transcribe"].arguments if "--format" in a.flags)
    assert (format_.choices, format_.exclusive) == (("txt", "srt", "vtt", "json", "verbose_json"), "--json")
    files = next(a for a in COMMANDS["transcribe"].arguments if not a.flags)
    assert (files.many, files.value, files.is_file, files.is_required) == ("+", "FILE", True, True)
    model = next(a for a in COMMANDS["doctor"].arguments if not a.flags)
    assert (model.many, model.is_required) == ("?", False)
    assert isinstance(cli.build_parser(), argparse.ArgumentParser)
