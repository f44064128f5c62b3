"""`executorch-mm chat`: line by line, and in a terminal."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from executorch_mm import GenerationResult, InputError, MultimodalRunner, cli
from executorch_mm.cli.chat.lines import Lines, _complete, _history_file
from executorch_mm.cli.chat.saved import read_messages
from executorch_mm.cli.chat.talk import Talk
from executorch_mm.cli.output import opened, shown_text
from executorch_mm.demo import make_scene, render
from executorch_mm.demo.audio import SPOKEN_FILE

COUNT = "how many shapes are there?"


class Result:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


Say = Callable[..., Result]


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Say:
    """A chat in this process with these lines on standard input."""

    def run(*lines: str, options: tuple[str, ...] = ()) -> Result:
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        return Result(cli.main(["chat", *options]), *capfd.readouterr())

    return run


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a scene.png"
    render(make_scene(900_000_001)).save(path)
    return path


def expected_answers(image: Path, *questions: str) -> list[str]:
    """What the runner says when it is asked directly, the image before the first question."""
    from PIL import Image

    content: object = [{"type": "image", "image": Image.open(image)}, {"type": "text", "text": questions[0]}]
    messages: list[dict[str, object]] = []
    answers = []
    with MultimodalRunner.demo() as runner:
        for question in questions:
            messages.append({"role": "user", "content": content if not messages else question})
            result = runner.chat(messages, max_new_tokens=256)
            messages.append(result.message)
            answers.append(result.text)
    return answers


def test_lines_of_a_pipe_are_messages_of_one_conversation(say: Say, image: Path) -> None:
    follow_up = "what color is the largest shape?"
    result = say(f"/image {image}", COUNT, "", follow_up)
    assert result.code == 0
    assert result.out.splitlines() == expected_answers(image, COUNT, follow_up)
    assert result.err == ""


@pytest.mark.parametrize("quoted", ["'{}'", '"{}"'])
def test_files_may_be_quoted_as_terminals_drop_them(quoted: str, say: Say, image: Path) -> None:
    assert say(f"/image {quoted.format(image)}", COUNT).out == say(f"/image {image}", COUNT).out != ""


def test_audio_is_heard(say: Say) -> None:
    assert say(f"/audio {SPOKEN_FILE}", "What do you hear?").out.split()[:1] == ["three"]


def test_undo_takes_back_the_last_message_and_its_answer(say: Say, image: Path) -> None:
    asked = say(f"/image {image}", COUNT, "describe the image.", "/undo", "is there a red shape?")
    plain = say(f"/image {image}", COUNT, "is there a red shape?")
    assert asked.out.splitlines()[-1] == plain.out.splitlines()[-1]
    assert say("/undo").err == "there is nothing to take back\n"


def test_a_conversation_goes_on_where_it_was_saved_without_its_image_file(
    say: Say, image: Path, tmp_path: Path
) -> None:
    file, follow_up = tmp_path / "chat.json", "describe the image."
    assert say(f"/image {image}", COUNT, f"/save {file}").code == 0
    whole = say(f"/image {image}", COUNT, follow_up).out.splitlines()
    image.unlink()

    loaded = say(follow_up, "/stats", options=("--load", str(file)))
    assert loaded.out.splitlines() == whole[1:]
    assert "encode 0 ms" in loaded.err  # the state beside it was read, not the image
    assert {path.stat().st_mode & 0o777 for path in (file, tmp_path / "chat.json.emm")} == {0o600}

    (tmp_path / "chat.json.emm").unlink()
    anew = say(f"/load {file}", follow_up)
    assert anew.out.splitlines() == whole[1:]
    assert "read anew" in anew.err


def test_a_saved_conversation_is_in_the_form_of_openai(say: Say, image: Path, tmp_path: Path) -> None:
    file = tmp_path / "chat.json"
    say("/system be brief", f"/image {image}", COUNT, f"/save {file}")
    system, user, assistant = json.loads(file.read_text())["messages"]
    assert system == {"role": "system", "content": "be brief"}
    assert [part["type"] for part in user["content"]] == ["image_url", "text"]
    assert assistant["role"] == "assistant"
    with MultimodalRunner.demo() as runner:
        assert runner.chat([system, user]).text == assistant["content"]


def part(text: str) -> str:
    return f'{{"messages": [{{"role": "user", "content": [{text}]}}]}}'


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("{", "expected a conversation in JSON"),
        ("[" * 100_000, "expected a conversation in JSON"),
        ("[]", "expected an object with a list of messages"),
        ('{"messages": [{"role": "root", "content": ""}]}', "messages[0]: expected an object with a role"),
        ('{"messages": [{"role": "user", "content": 3}]}', "messages[0].content: expected"),
        ('{"messages": [{"role": "user", "content": [{"type": "text"}]}]}', "content[0]: expected a text"),
        (part('{"type": "image_url", "image_url": {"url": "/etc/hostname"}}'), "content[0]: expected a text"),
        (
            part('{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}'),
            "messages[0].content[0]: ",
        ),
        (part('{"type": "input_audio", "input_audio": {"data": "?"}}'), "expected base64"),
    ],
)
def test_a_damaged_conversation_is_an_error_with_its_place(content: str, place: str, tmp_path: Path) -> None:
    file = tmp_path / "chat.json"
    file.write_text(content)
    with pytest.raises(InputError) as caught:
        read_messages(file)
    assert str(file) in str(caught.value)
    assert place in str(caught.value)


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("/foo", 2, "expected one of /image"),
        ("/image", 2, "/image needs a file"),
        ("/image /nowhere.png", 1, "/nowhere.png"),
        ("/load /nowhere.json", 1, "/nowhere.json"),
        ("word " * 400, 1, "positions"),
    ],
)
def test_from_a_pipe_the_first_failure_ends_the_program(line: str, code: int, words: str, say: Say) -> None:
    result = say(line, COUNT)
    assert (result.code, result.out) == (code, "")
    assert words in result.err
    assert result.err.count("\n") == 1


def test_a_line_goes_on_after_a_backslash_and_two_slashes_are_one(say: Say, tmp_path: Path) -> None:
    file = tmp_path / "chat.json"
    say("one \\", "two", "//help me", f"/save {file}")
    asked = [m["content"] for m in json.loads(file.read_text())["messages"] if m["role"] == "user"]
    assert asked == ["one \ntwo", "/help me"]


def test_an_answer_that_is_cut_says_so(say: Say) -> None:
    assert "cut after 1 tokens" in say(COUNT, options=("--max-new-tokens", "1")).err


def test_a_model_without_a_template_is_a_usage_error(say: Say, tmp_path: Path) -> None:
    from executorch_mm import __file__ as package

    models = Path(package).parent / "models" / "tiny_vlm"
    for name in ("model.pte", "tokenizer.json"):
        (tmp_path / name).symlink_to(models / name)
    result = say(COUNT, options=(str(tmp_path),))
    assert result.code == 2
    assert "chat template" in result.err


# What a terminal is shown.


def test_control_characters_are_shown_not_obeyed() -> None:
    text = "a\x1b[2J\x9b\r\x07\x7f\u202eb\u2066\n\tc é 漢 👩‍👩‍👧"
    assert shown_text(text) == r"a\x1b[2J\x9b\r\x07\x7f\u202eb\u2066" + "\n\tc é 漢 👩‍👩‍👧"


class Screen(io.StringIO):
    """Stands for a terminal."""

    def isatty(self) -> bool:
        return True


def test_only_a_terminal_is_protected(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream, expected in ((Screen(), "\\x1b[31m"), (io.StringIO(), "\x1b[31m")):
        monkeypatch.setattr(sys, "stdout", stream)
        with opened("-") as file:
            file.write("\x1b[31m")
            file.flush()
        assert stream.getvalue() == expected


class Thinker:
    """Stands for a runner whose answers have thinking in them."""

    capacity, position = 100, 0

    class _Stream:
        def __init__(self, pieces: Iterator[object]) -> None:
            self._pieces = pieces
            self.result: GenerationResult | None = None

        def __iter__(self) -> Iterator[object]:
            yield from self._pieces

        def close(self) -> None:
            pass

    def stream_chat(self, *_: object, **__: object) -> _Stream:
        from executorch_mm._engine.reply import Delta

        return self._Stream(iter([Delta(thinking="hm\x1b"), Delta(content="yes")]))


@pytest.mark.parametrize(
    ("thinking", "is_terminal", "expected"),
    [
        (None, True, "\x1b[2mhm\\x1b\x1b[0myes\n"),
        (None, False, "yes\n"),
        ("hide", True, "yes\n"),
        ("show", False, "hm\x1byes\n"),
    ],
)
def test_thinking_is_dimmed_or_hidden(
    thinking: object, is_terminal: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream: io.StringIO = Screen() if is_terminal else io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr("executorch_mm.cli.chat.talk.shows_colour", lambda _: is_terminal)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    Talk(Thinker(), None, thinking=thinking).ask("x")  # type: ignore[arg-type]
    assert stream.getvalue() == expected


# Ctrl-C.


class Interrupting(io.StringIO):
    """Sends a Ctrl-C to this process after so many pieces of an answer."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self._left = after

    def write(self, text: str) -> int:
        self._left -= 1
        if self._left == 0:
            signal.raise_signal(signal.SIGINT)
        return super().write(text)


@pytest.fixture
def talk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Talk]:
    from executorch_mm import GenerationConfig

    monkeypatch.setattr(sys, "stdin", Screen())
    with MultimodalRunner.demo() as runner:
        yield Talk(runner, GenerationConfig(max_new_tokens=30, ignore_eos=True))


def test_ctrl_c_stops_the_answer_which_stays_as_far_as_it_came(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", Interrupting(after=4))
    before = signal.getsignal(signal.SIGINT)
    talk.ask(COUNT)
    assert signal.getsignal(signal.SIGINT) is before

    shown = sys.stdout.getvalue()  # type: ignore[attr-defined]
    question, answer = talk._messages
    assert (question.text, answer.text) == (COUNT, shown.rstrip("\n"))
    assert len(shown.split()) < 20
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    talk.ask("describe the image.")
    assert len(talk._messages) == 4
    # what the context holds is the stopped answer too: only the new message was read
    assert talk._runner.stats.num_cached_tokens >= 10


def test_ctrl_c_before_the_first_word_takes_the_message_back(
    talk: Talk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr("executorch_mm.cli.chat.talk.PromptProgress.__call__", interrupted)
        talk.ask(COUNT)
    assert talk._messages == []
    assert "taken back" in capsys.readouterr().err
    talk.ask(COUNT)
    assert len(talk._messages) == 2


def test_a_second_ctrl_c_gets_through(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    class Twice(io.StringIO):
        def write(self, text: str) -> int:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            return super().write(text)

    monkeypatch.setattr(sys, "stdout", Twice())
    with pytest.raises(KeyboardInterrupt):
        talk.ask(COUNT)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    talk.ask(COUNT)
    assert len(talk._messages) == 2


def test_a_second_ctrl_c_leaves_the_program_running(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def impatient(_talk: Talk, _text: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Talk, "ask", impatient)
    monkeypatch.setattr(sys, "stdin", Screen(f"{COUNT}\n/undo\n"))
    assert cli.main(["chat", "--no-history"]) == 0
    assert "interrupted" in capsys.readouterr().err


# Lines.


def test_the_history_lies_where_the_xdg_directories_say(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    for state, expected in (
        ("/s", "/s"),
        ("", "/home/ada/.local/state"),
        ("no/path", "/home/ada/.local/state"),
    ):
        monkeypatch.setenv("XDG_STATE_HOME", state)
        assert _history_file() == f"{expected}/executorch-mm/chat_history"
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert Lines(keeps_history=True)._history is None


def test_commands_and_files_are_completed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    readline = pytest.importorskip("readline")
    (tmp_path / "picture.png").touch()
    typed = ""
    monkeypatch.setattr(readline, "get_line_buffer", lambda: typed)
    monkeypatch.setattr(readline, "get_begidx", lambda: typed.rfind(" ") + 1)
    assert [_complete("/s", n) for n in range(4)] == ["/system ", "/save ", "/stats ", None]
    assert _complete("s", 0) is None
    typed = f"/image {tmp_path}/pi"
    assert _complete(f"{tmp_path}/pi", 0) == f"{tmp_path}/picture.png"
    typed = "what is pi"
    assert _complete("pi", 0) is None


def test_in_a_terminal_it_goes_on_after_mistakes_and_ctrl_c_until_ctrl_d(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    environment = os.environ | {"XDG_STATE_HOME": str(tmp_path), "TERM": "xterm"}
    process = subprocess.Popen(
        [sys.executable, "-m", "executorch_mm", "chat"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
        start_new_session=True,
    )
    os.close(theirs)
    seen = ""

    def until(text: str) -> None:
        nonlocal seen
        deadline = time.monotonic() + 60
        while text not in seen:
            assert time.monotonic() < deadline, seen
            if select.select([ours], [], [], 1)[0]:
                seen += os.read(ours, 4096).decode(errors="replace")
        seen = seen.partition(text)[2]

    try:
        until("> ")
        os.write(ours, b"/foo\n")
        until("expected one of /image")
        until("> ")
        os.write(ours, b"half a li")
        until("half a li")
        # CPython looks for signals while it waits for a key: one that comes while it handles a key waits too.
        while not select.select([ours], [], [], 0.5)[0]:
            os.kill(process.pid, signal.SIGINT)
        until("> ")
        os.write(ours, COUNT.encode() + b"\n")
        until("three")
        until("> ")
        os.write(ours, b"\x04")
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    history = tmp_path / "executorch-mm" / "chat_history"
    if history.exists():  # where Python has readline
        assert COUNT in history.read_text()
        assert history.stat().st_mode & 0o777 == 0o600
