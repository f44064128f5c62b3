"""The command line: its parts on their own, and the real thing in a subprocess."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

import executorch_mm
from executorch_mm import cli
from executorch_mm.cli import generate, report, terminal
from executorch_mm.cli.errors import UsageError
from executorch_mm.cli.media_arguments import Kind, place_media
from executorch_mm.demo import make_scene, render
from executorch_mm.demo.questions import NUMBERS
from executorch_mm.errors import InputError
from executorch_mm.inputs import MultimodalInput, make_audio_input, make_image_input
from executorch_mm.speech.formats import write
from executorch_mm.stats import Stats

MODEL = Path(executorch_mm.__file__).parent / "models" / "tiny_vlm"
ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


class Result(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


Call = Callable[..., Result]


def command(*arguments: str) -> Result:
    """The program in a process of its own."""
    result = subprocess.run(
        [sys.executable, "-m", "executorch_mm", *arguments],
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    return Result(result.returncode, result.stdout, result.stderr)


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Call:
    """The program in this process, with all that C++ might write to the two streams."""

    def run(*arguments: str) -> Result:
        code = cli.main(arguments)
        return Result(code, *capfd.readouterr())

    return run


def fails(result: Result, code: int, *words: str) -> None:
    """One line on stderr, nothing on stdout."""
    assert (result.returncode, result.stdout) == (code, ""), result
    assert result.stderr.startswith("executorch-mm: ")
    assert result.stderr.count("\n") == 1, result.stderr
    assert all(word in result.stderr for word in words), result.stderr


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "scene.png"
    render(make_scene(900_000_001)).save(path)
    return path


# Parts.


def an_image() -> MultimodalInput:
    return make_image_input(np.zeros((4, 4, 3), np.uint8))


def an_audio() -> MultimodalInput:
    return make_audio_input(np.zeros(400, np.float32), sampling_rate=16000)


def test_files_stand_before_the_prompt_in_their_order_or_at_the_marks_of_their_kind() -> None:
    one, two, heard = an_image(), an_image(), an_audio()
    images: list[tuple[Kind, MultimodalInput]] = [("image", one), ("image", two)]
    mixed: list[tuple[Kind, MultimodalInput]] = [("image", one), ("audio", heard), ("image", two)]
    assert place_media("what?", images) == [one, two, "what?"]
    assert place_media("what?", mixed) == [one, heard, two, "what?"]
    assert place_media("A: <image> B: <image>", images) == ["A: ", one, " B: ", two]
    assert place_media("A: <image> B: <image>", mixed) == [heard, "A: ", one, " B: ", two]
    assert place_media("<image><audio>, <image>?", mixed) == [one, heard, ", ", two, "?"]
    assert place_media("nothing, <image> is text", []) == ["nothing, <image> is text"]
    assert place_media("", []) == [""]
    with pytest.raises(UsageError, match="1 <image> in the prompt, but 2 --image"):
        place_media("<image>?", images)
    with pytest.raises(UsageError, match="2 <audio> in the prompt, but 1 --audio"):
        place_media("<audio> <audio>", mixed)


def test_half_blocks_show_two_pixels_a_character() -> None:
    pixels = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [10, 20, 30]]], np.uint8)
    (line,) = terminal.half_blocks(Image.fromarray(pixels), columns=2)
    assert line == ("\x1b[38;2;255;0;0;48;2;0;0;255m\u2580\x1b[38;2;0;255;0;48;2;10;20;30m\u2580\x1b[0m")


def test_a_photo_is_drawn_upright() -> None:
    pixels = np.zeros((40, 10, 3), np.uint8)
    pixels[:20] = 255  # the upper half, which orientation 6 turns to the right
    photo = Image.fromarray(pixels)
    photo.getexif()[0x0112] = 6
    lines = terminal.half_blocks(photo, columns=8)
    assert len(lines) == 1
    assert lines[0].startswith("\x1b[38;2;0;0;0;48;2;0;0;0m")
    assert "\x1b[38;2;255;255;255;48;2;255;255;255m\u2580\x1b[0m" in lines[0]


@pytest.mark.parametrize(("columns", "width"), [(80, 39), (200, 48), (10, 8)])
def test_images_side_by_side_fit_the_terminal(columns: int, width: int) -> None:
    wide, tall = Image.new("RGB", (40, 10)), Image.new("RGB", (10, 500))
    lines = ESCAPE.sub("", terminal.side_by_side([wide, tall], columns)).splitlines()
    assert {len(line) for line in lines} == {2 * width + 2}
    assert len(lines) == width  # the tall one is cut to twice its width in pixels


@pytest.mark.parametrize(
    ("environment", "wanted", "expected"),
    [
        ({"TERM": "xterm-256color"}, True, True),
        ({"TERM": "xterm-256color"}, False, False),
        ({"TERM": "xterm-256color", "NO_COLOR": "1"}, True, False),
        ({"TERM": "dumb"}, True, False),
        ({}, True, False),
    ],
)
def test_colour_is_for_terminals_that_have_it(
    environment: dict[str, str], wanted: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    class Terminal(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    assert terminal.shows_colour(Terminal(io.BytesIO(), encoding="utf-8"), wanted=wanted) is expected
    assert not terminal.shows_colour(Terminal(io.BytesIO(), encoding="latin-1"), wanted=wanted)
    assert not terminal.shows_colour(io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), wanted=wanted)


def test_the_report_sums_up_requests() -> None:
    stats = Stats(
        num_prompt_tokens=10,
        num_generated_tokens=5,
        load_ns=2_500_000_000,
        decode_ns=30_000_000,
        sample_ns=10_000_000,
        first_token_ns=1_230_000,
        num_decode_steps=4,
        finish_reason="stop",
    )
    assert report.summarise([stats, stats]) == (
        "load 2.5 s; 20 prompt tokens, first token after 1.23 ms (median); 10 answer tokens, 100 tokens/s"
    )
    assert "answer: 5 tokens, 100 tokens/s; finish reason: stop" in str(stats)


# In this process.


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (InputError("image 0: expected 3 channels,\n got 2"), 1, "image 0: expected 3 channels, got 2"),
        (FileNotFoundError(2, "No such file or directory", "x.pte"), 1, "No such file"),
        (MemoryError(), 1, "MemoryError"),
        (UsageError("no"), 2, "no"),
    ],
)
def test_failures_become_an_exit_code_and_one_line(
    error: BaseException,
    code: int,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Failing:
        def __enter__(self) -> Failing:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def stream(self, *_: object, **_options: object) -> Iterator[str]:
            yield "some"
            raise error

    monkeypatch.setattr(generate, "load_runner", lambda _: Failing())
    assert cli.main(["generate", "--raw", "hello"]) == code
    captured = capsys.readouterr()
    assert captured.out == "some"
    assert captured.err.startswith("executorch-mm: ")
    assert line in captured.err
    assert captured.err.count("\n") == 1


def test_main_returns_codes_where_argparse_would_exit(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["version"]) == 0
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"executorch-mm {executorch_mm.__version__}\n" * 2
    assert cli.main(["--help"]) == 0
    assert "demo" in capsys.readouterr().out
    assert cli.main([]) == 2
    assert cli.main(["sing"]) == 2
    assert cli.main(["demo", "--seed", "-1"]) == 2


# The real thing.


def test_the_module_and_the_script_are_the_same_program() -> None:
    assert command("version").stdout == f"executorch-mm {executorch_mm.__version__}\n"
    script = Path(sys.executable).with_name("executorch-mm")
    if script.exists():
        result = subprocess.run([script, "version"], capture_output=True, text=True, check=True)
        assert result.stdout == f"executorch-mm {executorch_mm.__version__}\n"


def test_help_imports_neither_pillow_nor_tokenizers_nor_jinja() -> None:
    code = (
        "import sys, executorch_mm.cli as cli; cli.main(['generate', '--help']);"
        "print([m for m in ('PIL', 'tokenizers', 'jinja2', 'torch') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


def test_generate_writes_the_answer_and_nothing_else_to_stdout(image: Path) -> None:
    result = command("generate", "--image", str(image), "Describe this picture.")
    assert (result.returncode, result.stderr) == (0, "")
    (line,) = result.stdout.splitlines()
    assert all(f"{shape.colour} {shape.shape}" in line for shape in make_scene(900_000_001).shapes)


def test_generate_takes_model_and_tokenizer_paths_and_reports_to_stderr(call: Call, image: Path) -> None:
    arguments = ["--model", str(MODEL / "model.pte"), "--tokenizer", str(MODEL / "tokenizer.json")]
    turn = "<|user|><image>How many shapes are there?<|end|><|assistant|>"
    result = call("generate", *arguments, "--raw", "--stats", "--image", str(image), turn)
    assert result.returncode == 0
    assert result.stdout == NUMBERS[len(make_scene(900_000_001).shapes)] + "\n"
    assert "tokens/s; finish reason: stop" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_draft_model_that_is_not_there_is_named(call: Call) -> None:
    model = Path(__file__).parents[2] / "models" / "behaviour" / "full_logits.pte"
    arguments = ["generate", "--model", str(model), "--tokenizer", str(MODEL), "--raw", "how many"]
    fails(call(*arguments, "--draft-model", str(model.with_name("none.pte"))), 1, "none.pte")


def test_a_model_that_cannot_check_drafts_says_so(call: Call) -> None:
    model = str(MODEL / "model.pte")
    result = call("generate", "--model", model, "--draft-model", model, "hello")
    fails(result, 1, "draft_model: expected with it a model that gives logits for each token")


def test_generate_reads_the_prompt_from_standard_input(
    call: Call, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = call("generate", "--image", str(image), "Describe this picture.")
    monkeypatch.setattr("sys.stdin", io.StringIO("Describe this picture."))
    piped = call("generate", "--image", str(image), "-")
    assert piped.returncode == 0
    assert piped.stdout == typed.stdout


def test_the_same_seed_gives_the_same_answer_and_limits_hold(call: Call, image: Path) -> None:
    def sample(*options: str) -> str:
        return call(
            "generate",
            "--image",
            str(image),
            "--temperature",
            "5",
            "--max-new-tokens",
            "6",
            *options,
            "hello",
        ).stdout

    assert sample("--seed", "3") == sample("--seed", "3")
    assert len({sample("--seed", str(seed)) for seed in range(4)}) > 1
    greedy = sample("--top-k", "1")
    assert greedy == sample("--top-p", "0.000001")
    assert len(greedy.split()) <= 6


def test_stop_strings_end_the_answer(call: Call, image: Path) -> None:
    whole = call("generate", "--image", str(image), "Describe this picture.").stdout
    word = whole.split()[2]
    cut = call("generate", "--image", str(image), "--stop", word, "Describe this picture.").stdout
    assert cut == whole[: whole.index(word)] + "\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--max-new-tokens", "-5"], ["generate: max_new_tokens", "-5"]),
        (["--temperature", "-1"], ["generate: temperature", "-1"]),
        (["--top-p", "0"], ["generate: top_p"]),
        (["--top-k", "-1"], ["generate: top_k"]),
        (["--stop", ""], ["generate: stop"]),
        (["--threads", "0"], ["--threads: expected 1 or more"]),
        (["--tokenizer", "t.json"], ["--tokenizer needs a model"]),
        (["--model-file", "m.pte"], ["--model-file needs a model"]),
        (["--local-files-only"], ["--local-files-only needs a model"]),
        (["--draft-model", "d.pte"], ["--draft-model needs a model"]),
        (["--audio", "-", "--image", "-"], ["standard input can be read once only"]),
    ],
)
def test_wrong_options_are_usage_errors(call: Call, arguments: list[str], words: list[str]) -> None:
    fails(call("generate", *arguments, "hello"), 2, *words)


def test_options_that_argparse_refuses_are_usage_errors(call: Call) -> None:
    for arguments in (
        ["generate"],
        ["generate", "--temperature", "warm", "x"],
        ["generate", "--chat", "--raw", "x"],
    ):
        result = call(*arguments)
        assert (result.returncode, result.stdout) == (2, "")
        assert "usage: executorch-mm generate" in result.stderr


def test_bad_files_are_one_line_each(call: Call, tmp_path: Path, image: Path) -> None:
    model, tokenizer = MODEL / "model.pte", MODEL / "tokenizer.json"
    text = tmp_path / "text.png"
    text.write_text("no image")
    cut = tmp_path / "cut.pte"
    cut.write_bytes(model.read_bytes()[:50_000])
    noise = tmp_path / "noise.pte"
    noise.write_bytes(bytes(range(256)) * 40)
    none = str(tmp_path / "none")
    fails(call("generate", "--image", none, "x"), 1, none, "No such file")
    fails(call("generate", "--image", str(text), "x"), 1, "text.png", "not an image")
    fails(call("demo", "--image", none), 1, none, "No such file")
    fails(call("generate", "--model", none, "--tokenizer", str(tokenizer), "x"), 1, none)
    fails(call("generate", "--model", str(cut), "--tokenizer", str(tokenizer), "x"), 1, "cut.pte")
    fails(call("generate", "--model", str(noise), "--tokenizer", str(tokenizer), "x"), 1, "noise.pte")
    fails(call("generate", "--model", str(model), "--tokenizer", none, "x"), 1, none, "No such file")
    fails(
        call("generate", "--model", str(model), "--tokenizer", str(model), "x"),
        1,
        "ExecuTorch program (.pte)",
    )
    fails(
        call("generate", "--model", str(tokenizer), "--tokenizer", str(tokenizer), "x"),
        1,
        "tokenizer.json",
    )


def test_a_prompt_that_does_not_fit_is_one_line(call: Call) -> None:
    fails(call("generate", "--raw", "red circle " * 2000), 1, "positions", "of 256 are free")


def test_an_empty_prompt_is_one_line(call: Call) -> None:
    fails(call("generate", "--raw", ""), 1)


def test_system_and_chat_need_a_template(call: Call, tmp_path: Path) -> None:
    for name in ("model.pte", "tokenizer.json"):
        (tmp_path / name).symlink_to(MODEL / name)
    model = ["--model", str(tmp_path / "model.pte")]
    fails(call("generate", *model, "--chat", "x"), 2, "--chat: no chat template")
    fails(call("generate", *model, "--system", "y", "x"), 2, "--system needs a chat template")


def test_a_reader_that_goes_away_is_no_traceback(image: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "executorch_mm", "demo", "--seed", "4"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert (process.wait(timeout=60), errors) == (141, b"")


def test_demo_asks_about_images_and_a_voice_and_is_right() -> None:
    result = command("demo", "--seed", "12")
    assert (result.returncode, result.stderr) == (0, "")
    assert "\x1b" not in result.stdout
    files = re.findall(r"^image \d: (.*)$", result.stdout, re.MULTILINE)
    assert len(files) == 3
    np.testing.assert_array_equal(
        np.asarray(Image.open(files[0])), np.asarray(render(make_scene(900_000_012)))
    )
    assert len(re.findall(r"^> ", result.stdout, re.MULTILINE)) == 6
    assert result.stdout.count("(right)") >= 5
    assert "> What do you hear?\n  three one four  (right)\n" in result.stdout
    assert re.search(r"load .* first token after .* tokens/s; .* s in all$", result.stdout.strip())


def test_demo_takes_images_and_questions(call: Call, image: Path) -> None:
    result = call("demo", "--image", str(image), "--question", "How many shapes are there?")
    assert result.returncode == 0
    assert f"image 1: {image}" in result.stdout
    number = NUMBERS[len(make_scene(900_000_001).shapes)]
    assert f"> How many shapes are there?\n  {number}\n" in result.stdout
    fails(call("demo", *["--image", str(image)] * 3), 2, "2 images at most, got 3")


def test_demo_compares_two_images_of_the_user(call: Call, image: Path) -> None:
    result = call("demo", "--image", str(image), "--image", str(image))
    assert result.stdout.startswith("Your images\n")
    assert len(re.findall(r"^> ", result.stdout, re.MULTILINE)) == 3


@pytest.fixture
def text_model() -> Path:
    """The folder of a published text model with a chat template."""
    root = Path(os.environ.get("EXECUTORCH_MM_TEST_MODELS", Path(__file__).parents[4] / "shared" / "models"))
    folder = root / "smollm2-135m-instruct-8da4w"
    if not (folder / "model.pte").is_file():
        pytest.skip(f"no model in {folder}")
    return folder


@pytest.mark.real_model
def test_generate_uses_the_chat_template_of_a_published_model(call: Call, text_model: Path) -> None:
    arguments = ["generate", "--model", str(text_model / "model.pte"), "--max-new-tokens", "12", "--stats"]
    chat, raw = (call(*arguments, *mode, "The sky is") for mode in (["--chat"], ["--raw"]))
    assert chat.returncode == raw.returncode == 0
    assert chat.stdout != raw.stdout
    num_chat, num_raw = (int(re.search(r"prompt: (\d+) tokens", run.stderr)[1]) for run in (chat, raw))
    assert num_chat > num_raw == 3
    assert call(*arguments, "The sky is").stdout == chat.stdout


@pytest.mark.real_model
def test_ctrl_c_ends_an_answer_with_one_line(text_model: Path) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "executorch_mm",
            "generate",
            "--model",
            str(text_model / "model.pte"),
            "--temperature",
            "3",
            "--max-new-tokens",
            "900",
            "Write a long story.",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A test run in the background of a shell inherits an ignored SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    assert process.stdout.read(20)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, b"executorch-mm: interrupted\n")


def in_a_terminal(*arguments: str) -> str:
    """What the command writes when its output is a terminal with colours."""
    leader, follower = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if k != "NO_COLOR"}
    environment |= {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8", "COLUMNS": "90"}
    process = subprocess.Popen(
        [sys.executable, "-m", "executorch_mm", *arguments], stdout=follower, env=environment, close_fds=True
    )
    os.close(follower)
    output = b""
    while select.select([leader], [], [], 60)[0]:
        try:
            data = os.read(leader, 65536)
        except OSError:  # Linux says so when the other end is closed
            break
        if not data:
            break
        output += data
    os.close(leader)
    assert process.wait(timeout=60) == 0
    return output.decode("utf-8")


def test_demo_draws_its_images_in_a_terminal() -> None:
    output = in_a_terminal("demo", "--seed", "12")
    assert "image 1:" not in output
    rows = [line for line in output.splitlines() if "\u2580" in line]
    assert [ESCAPE.sub("", row).count("\u2580") for row in rows] == [48] * 24 + [88] * 22
    assert output.count("(right)") >= 4
    plain = in_a_terminal("demo", "--seed", "12", "--no-color")
    assert "\u2580" not in plain
    assert "image 1:" in plain


SPEECH = Path(__file__).resolve().parents[2] / "models" / "speech"


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("audio") / "noise.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(np.random.default_rng(0).integers(-9000, 9000, 32000, np.int16).tobytes())
    return path


def test_transcribe_writes_each_format_and_nothing_else_to_stdout(call: Call, audio: Path) -> None:
    arguments = ("--model", str(SPEECH / "kv.pte"), "--language", "en", "--temperature", "0")
    with executorch_mm.SpeechRunner(SPEECH / "kv.pte") as runner:
        plain, timed = (
            runner.transcribe(audio, language="en", temperature=0.0, timestamps=times)
            for times in (False, True)
        )
    assert plain.text.strip()
    expected = {
        "txt": "".join(write("txt", plain.segments)),
        "srt": timed.to_srt(),
        "vtt": timed.to_vtt(),
    }
    for name, text in expected.items():
        result = call("transcribe", str(audio), *arguments, "--format", name)
        assert result == (0, text, "")
    result = call("transcribe", str(audio), *arguments, "--format", "json", "--stats")
    assert json.loads(result.stdout)["segments"] == json.loads(timed.to_json())["segments"]
    assert "finish reason: stop" in result.stderr


def test_transcribe_gives_times_of_words(call: Call, audio: Path) -> None:
    words = SPEECH.parent / "speech_words" / "words.pte"
    arguments = ("transcribe", str(audio), "--model", str(words), "--temperature", "0", "--language", "en")
    verbose = json.loads(call(*arguments, "--format", "verbose_json", "--words").stdout)
    assert verbose["words"]
    for name in ("srt", "vtt"):
        assert call(*arguments, "--format", name, "--words").stdout.count(" --> ") == len(verbose["words"])
        assert call(*arguments, "--format", name).stdout.count(" --> ") == len(verbose["segments"])
    refused = call(*arguments, "--words")
    fails(refused, 2, "--words needs --format srt, vtt, json, verbose_json, not txt")
    other = ("transcribe", str(audio), "--model", str(SPEECH / "kv.pte"), "--json", "--words")
    fails(call(*other), 1, "word_timestamps: the program does not tell")


def test_transcribe_leaves_silence_out(call: Call, audio: Path, tmp_path: Path) -> None:
    arguments = ("transcribe", str(audio), "--model", str(SPEECH / "kv.pte"), "--temperature", "0", "--json")
    silero = SPEECH.parent / "vad" / "vad.pte"
    for detector in (["--vad"], ["--vad-model", str(silero)]):
        result = json.loads(call(*arguments, *detector).stdout)
        assert 0 <= result["duration_after_vad"] <= result["duration"]
    assert json.loads(call(*arguments).stdout)["duration_after_vad"] is None
    fails(call(*arguments, "--vad-model", str(tmp_path / "none.pte")), 1, "none.pte")
    assert call(*arguments, "--vad", "--vad-model", str(silero)).returncode == 2


def test_transcribe_fails_with_one_line(call: Call, audio: Path, tmp_path: Path) -> None:
    model = str(SPEECH / "kv.pte")
    fails(call("transcribe", "none.wav", "--model", model), 1, "none.wav")
    fails(call("transcribe", str(audio), "--model", str(MODEL / "model.pte")), 1, "MultimodalRunner")
    fails(call("transcribe", str(audio), "--model", model, "--language", "xx"), 1, "language", "xx")
    fails(call("transcribe", str(audio), "--model", model, "--temperature", "-1"), 2, "temperature")
    fails(call("transcribe", str(audio), "--model", model, "--threads", "0"), 2, "--threads")
    fails(call("transcribe", str(audio), "--model", str(tmp_path)), 1, "no .pte file")
    assert call("transcribe", str(audio)).returncode == 2
    assert call("transcribe", str(audio), "--model", model, "--json", "--format", "srt").returncode == 2
