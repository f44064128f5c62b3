"""Templates that are not trusted: the same texts from a process of their own, and its ends."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone, tzinfo
from pathlib import Path

import numpy as np
import pytest

from executorch_mm import ExecutionError, IsolatedProcessError, MultimodalRunner
from executorch_mm.chat import ChatOptions, ChatTemplate, chat, template_process
from executorch_mm.chat.template_process import TemplateProcess
from executorch_mm.errors import InputError

HELLO = [{"role": "user", "content": "hello"}]
SOURCE = "{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}"
SLOW = "{% for a in range(n) %}{% for b in range(999) %}{% endfor %}{% endfor %}{{ n }}"


def number_of(template: ChatTemplate) -> int:
    assert isinstance(template._rendering, TemplateProcess)
    assert template._rendering._running is not None
    return template._rendering._running.number


def is_there(number: int) -> bool:
    """Whether there is such a process, a zombie too."""
    return Path(f"/proc/{number}").exists() if sys.platform == "linux" else os.kill(number, 0) is None


class Zone(tzinfo):
    """One that no other process could be given."""

    def __init__(self, offset: float | None) -> None:
        self.offset = offset

    def utcoffset(self, _time: datetime | None) -> timedelta | None:
        if self.offset is None:
            raise OSError("no zone")
        return timedelta(hours=self.offset)

    def dst(self, _time: datetime | None) -> timedelta | None:
        return timedelta(hours=1)

    def tzname(self, _time: datetime | None) -> str | None:
        return "Mine"


@pytest.fixture(scope="module")
def echo() -> ChatTemplate:
    return ChatTemplate("{{ x }}|{{ strftime_now('%Y-%m-%d %H:%M:%S.%f %z %Z') }}", trusted=False)


@pytest.mark.parametrize(
    "value",
    [
        *("", "ü€😀", "\ud800", "\ud83d\ude00", "\0", "a" * 100_000),
        *(0, -(2**63), 1.5, float("nan"), float("-inf"), None, True),
        *([1, [2, (3, "x")]], {"a": {1: (), None: []}}, (), ("x",)),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_values_of_every_kind_arrive_as_they_are(echo: ChatTemplate, value: object) -> None:
    here = ChatTemplate(echo.source)
    now = datetime(2026, 2, 3, 4, 5, 6, 78)
    assert echo.render(HELLO, options={"x": value}, now=now) == here.render(
        HELLO, options={"x": value}, now=now
    )


@pytest.mark.parametrize("zone", [timezone.utc, timezone(timedelta(hours=-9, minutes=-30)), Zone(2.5)])
def test_a_time_keeps_its_zone(echo: ChatTemplate, zone: tzinfo) -> None:
    now = datetime(2026, 7, 8, 9, 10, 11, 12, tzinfo=zone)
    assert echo.render(HELLO, now=now) == "|" + now.strftime("%Y-%m-%d %H:%M:%S.%f %z %Z")


def test_a_zone_that_fails_is_an_error_and_changes_nothing(echo: ChatTemplate) -> None:
    process = number_of(echo)
    with pytest.raises(InputError, match="offset: no zone"):
        echo.render(HELLO, now=datetime(2026, 1, 1, tzinfo=Zone(None)))
    assert number_of(echo) == process


def test_without_a_time_it_is_now(echo: ChatTemplate) -> None:
    before = datetime.now().replace(microsecond=0)
    told = datetime.strptime(echo.render(HELLO).strip("| "), "%Y-%m-%d %H:%M:%S.%f")
    assert before <= told <= datetime.now()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ raise_exception('no system role') }}", "chat template: no system role"),
        ("{{ messages[5].role }}", "chat template: list object has no element 5"),
        ("{{ ''.__class__ }}{{ ''.encode() }}", "unsafe"),
        ("{{ (messages | length + 1) ** 2000 }}", "more than 64 bits"),
        ("{% for n in range(99999999) %}{% endfor %}", "chat template: "),
    ],
)
def test_errors_are_those_of_a_trusted_one(source: str, message: str) -> None:
    here, there = (ChatTemplate(source, trusted=trusted) for trusted in (True, False))
    with pytest.raises(InputError, match=message) as of_here:
        here.render(HELLO)
    with pytest.raises(InputError, match=message) as of_there:
        there.render(HELLO)
    assert (type(of_there.value), str(of_there.value)) == (type(of_here.value), str(of_here.value))
    assert is_there(number_of(there))  # it has ended nothing


@pytest.mark.parametrize("source", ["{% for %}", "a" * 256_001, "{{ " + "[" * 70 + "]" * 70 + " }}"])
def test_what_is_no_template_is_refused_there_too(source: str) -> None:
    with pytest.raises(InputError) as here:
        ChatTemplate(source)
    with pytest.raises(InputError) as there:
        ChatTemplate(source, trusted=False)
    assert (type(here.value), str(here.value)) == (type(there.value), str(there.value))


def test_facts_are_those_of_a_trusted_one() -> None:
    source = "<a>{% if messages[0].content is none %}{{ messages[0]['thinking'] }}{% endif %}ü"
    assert ChatTemplate(source, trusted=False).facts == ChatTemplate(source).facts


def test_a_process_is_kept_and_a_killed_one_is_an_error_once() -> None:
    template = ChatTemplate(SOURCE, trusted=False)
    assert template.render(HELLO) == "user: hello"
    first = number_of(template)
    assert template.render(HELLO) == "user: hello"
    assert number_of(template) == first
    os.kill(first, signal.SIGKILL)
    with pytest.raises(IsolatedProcessError, match=r"ended by signal 9 .*next call starts another"):
        template.render(HELLO)
    assert not is_there(first)
    assert template.render(HELLO) == "user: hello"
    assert number_of(template) != first


def test_processor_time_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_process, "PROCESSOR_SECONDS", 0.1)
    template = ChatTemplate(SLOW, trusted=False)
    assert template.render(HELLO, options={"n": 1}) == "1"
    process = number_of(template)
    with pytest.raises(InputError, match=r"stopped after 0\.1 s of processor time"):
        template.render(HELLO, options={"n": 499})  # what the sandbox itself lets pass
    assert not is_there(process)
    assert template.render(HELLO, options={"n": 1}) == "1"


def test_processor_time_is_that_of_one_rendering(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_process, "PROCESSOR_SECONDS", 0.3)
    template = ChatTemplate(SLOW, trusted=False)
    for _ in range(12):
        assert template.render(HELLO, options={"n": 40}) == "40"


def test_a_process_that_does_not_answer_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    template = ChatTemplate(SOURCE, trusted=False)
    template.render(HELLO)
    process = number_of(template)
    os.kill(process, signal.SIGSTOP)
    monkeypatch.setattr(template_process, "WALL_SECONDS", 0.2)
    with pytest.raises(InputError, match=r"stopped after 0\.2 s"):
        template.render(HELLO)
    assert not is_there(process)
    monkeypatch.undo()
    assert template.render(HELLO) == "user: hello"


def test_more_than_it_may_answer_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    template = ChatTemplate("{{ 'ab' * n }}", trusted=False)
    monkeypatch.setattr(template_process, "ANSWER_BYTES", 1000)
    with pytest.raises(InputError, match="a text of more than 1000 bytes"):
        template.render(HELLO, options={"n": 501})
    assert template.render(HELLO, options={"n": 500}) == "ab" * 500


def test_more_than_it_may_be_asked_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    template = ChatTemplate(SOURCE, trusted=False)
    template.render(HELLO)
    process = number_of(template)
    monkeypatch.setattr(template_process, "REQUEST_BYTES", 1000)
    with pytest.raises(InputError, match="at most 1000 bytes of messages"):
        template.render([{"role": "user", "content": "a" * 1000}])
    assert number_of(template) == process


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not keep to RLIMIT_AS")
def test_memory_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_process, "MEMORY_BYTES", 8 * 2**20)
    source = "{% set ns = namespace(x='a') %}{% for n in range(k) %}{% set ns.x = ns.x * 2 %}{% endfor %}"
    template = ChatTemplate(source + "{{ ns.x | length }}", trusted=False)
    with pytest.raises((InputError, IsolatedProcessError), match=r"MemoryError|its process"):
        template.render(HELLO, options={"k": 23})  # 8 MB beside 4 and what Python adds to them
    assert template.render(HELLO, options={"k": 10}) == "1024"


def test_the_process_opens_no_file_and_no_connection() -> None:
    program = (
        "import os, socket\n"
        "from executorch_mm.chat import template_server as server\n"
        "server.limit_process(server._prepare() + 2**30)\n"
        "refused = 0\n"
        "for attempt in (lambda: open('/dev/null'), socket.socket, os.pipe, lambda: os.listdir('/')):\n"
        "    try: attempt()\n"
        "    except OSError: refused += 1\n"
        "print(refused)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "4"


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_the_process_gets_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "secret-of-mine")
    template = ChatTemplate(SOURCE, trusted=False)
    template.render(HELLO)
    number = number_of(template)
    assert b"secret-of-mine" not in Path(f"/proc/{number}/environ").read_bytes()
    assert len(list(Path(f"/proc/{number}/fd").iterdir())) == 4


def test_it_ends_with_its_template() -> None:
    template = ChatTemplate(SOURCE, trusted=False)
    template.render(HELLO)
    number = number_of(template)
    del template
    gc.collect()
    assert not is_there(number)


def test_it_ends_with_the_program(tmp_path: Path) -> None:
    program = (
        "import os, sys\n"
        "from executorch_mm.chat import ChatTemplate\n"
        f"template = ChatTemplate({SOURCE!r}, trusted=False)\n"
        "print(template._rendering._running.number, flush=True)\n"
        "sys.argv[1] == 'kill' and os.kill(os.getpid(), 9)\n"
    )
    for how in ("exit", "kill"):
        done = subprocess.run(
            [sys.executable, "-c", program, how], capture_output=True, text=True, check=False, cwd=tmp_path
        )
        assert done.stderr == ""
        end = time.monotonic() + 10
        while is_running(int(done.stdout)):
            assert time.monotonic() < end
            time.sleep(0.02)


def is_running(number: int) -> bool:
    """Whether it runs: one whose parent is gone may stay a zombie where nobody waits for it."""
    try:
        return "Z" not in Path(f"/proc/{number}/stat").read_text().rpartition(")")[2][:3]
    except OSError:
        return False


def test_threads_take_turns() -> None:
    template = ChatTemplate("{{ x }}", trusted=False)
    wrong: list[object] = []

    def work(name: str) -> None:
        texts = [f"{name}{index}" for index in range(40)]
        wrong.extend(text for text in texts if template.render(HELLO, options={"x": text}) != text)

    threads = [threading.Thread(target=work, args=[name]) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not wrong


def test_the_child_of_a_fork_has_a_process_of_its_own() -> None:
    template = ChatTemplate(SOURCE, trusted=False)
    template.render(HELLO)
    parents = number_of(template)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if template.render(HELLO) == "user: hello" and number_of(template) != parents:
                del template
                gc.collect()
                code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert template.render(HELLO) == "user: hello"
    assert number_of(template) == parents


class Interrupted(BaseException):
    """What the timer's signal raises."""


def test_an_interruption_leaves_a_template_that_answers() -> None:
    def interrupt(*_: object) -> None:
        raise Interrupted

    template = ChatTemplate(SLOW, trusted=False)
    before = signal.signal(signal.SIGALRM, interrupt)

    def render_for(seconds: float) -> None:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        while True:
            template.render(HELLO, options={"n": 20})

    try:
        for number in range(3):
            with pytest.raises(Interrupted):
                render_for(0.004 * (number + 1))
            assert template.render(HELLO, options={"n": 2}) == "2"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_where_no_process_can_be_started_it_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    template = ChatTemplate(SOURCE, trusted=False)
    template.render(HELLO)
    os.kill(number_of(template), signal.SIGKILL)
    with pytest.raises(IsolatedProcessError):
        template.render(HELLO)

    def refuse(*_: object, **__: object) -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_spawn", refuse)
        with pytest.raises(ExecutionError, match="no process can be started: Resource temporarily"):
            template.render(HELLO)
    assert template.render(HELLO) == "user: hello"
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(InputError, match="trusted_template: there is no Python here"):
        ChatTemplate(SOURCE, trusted=False)


@pytest.mark.parametrize(
    "answer", [b"?" + b"\0" * 8, b"t" + b"\2" + b"\0" * 7 + b"\xff\xfe", b"f" + b"\0" * 8]
)
def test_another_answer_than_a_text_is_an_error(monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    template = ChatTemplate(SOURCE, trusted=False)
    template.render(HELLO)
    replies = [bytes([byte]) for byte in answer]

    def take(_self: object, size: int) -> bytes:
        taken = b"".join(replies[:size])
        del replies[:size]
        return taken

    with monkeypatch.context() as patch:
        patch.setattr(template_process._Running, "_take", take)
        with pytest.raises(IsolatedProcessError, match="something else than a text"):
            template.render(HELLO)
    assert template.render(HELLO) == "user: hello"


@pytest.mark.parametrize("facts", ["{}", "[1]", "[[1], [], true]", "[" * 5000, "[[], [], true"])
def test_other_facts_than_texts_are_an_error(monkeypatch: pytest.MonkeyPatch, facts: str) -> None:
    monkeypatch.setattr(TemplateProcess, "_ask", lambda *_: facts)
    monkeypatch.setattr(TemplateProcess, "_start", lambda _: None)
    with pytest.raises(IsolatedProcessError, match="something else than a text"):
        TemplateProcess(SOURCE).facts()


def test_chats_choose_by_option_and_follow_the_model(
    monkeypatch: pytest.MonkeyPatch, runner: MultimodalRunner, demo_folder: Path
) -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    parts = [{"type": "image", "image": image}, {"type": "text", "text": "how many?"}]
    messages: list[dict[str, object]] = [{"role": "user", "content": parts}]
    expected = runner.chat(messages, max_new_tokens=4).token_ids
    started: list[str] = []
    init: Callable[[TemplateProcess, str], None] = TemplateProcess.__init__
    monkeypatch.setattr(
        TemplateProcess, "__init__", lambda self, source: started.append(source) or init(self, source)
    )
    wary = ChatOptions(trusted_template=False)
    for _ in range(2):
        assert runner.chat(messages, max_new_tokens=4, chat_options=wary).token_ids == expected
    assert len(started) == 1
    runner._chat._templates.clear()
    if sys.platform != "linux":
        return
    with MultimodalRunner(demo_folder / "model.pte", demo_folder, isolate=True, num_threads=1) as isolated:
        trusting = ChatOptions(trusted_template=True)
        assert isolated.chat(messages, max_new_tokens=4, chat_options=trusting).token_ids == expected
        assert len(started) == 1
        assert isolated.chat(messages, max_new_tokens=4).token_ids == expected
        assert len(started) == 2


def test_it_ends_with_its_runner(demo_folder: Path) -> None:
    runner = MultimodalRunner(demo_folder / "model.pte", demo_folder, num_threads=1)
    runner.chat(HELLO, max_new_tokens=1, chat_options=ChatOptions(trusted_template=False))
    (template,) = runner._chat._templates.values()
    number = number_of(template)
    del template
    runner.close()
    assert not is_there(number)


def test_a_runner_keeps_few_processes(runner: MultimodalRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "_MOST_PROCESSES", 1)
    for number in range(3):
        options = ChatOptions(template=f"{{# {number} #}}{SOURCE}", trusted_template=False)
        runner._chat.prompt(HELLO, None, options, 0)
    assert sum(not trusted for _, trusted in runner._chat._templates) == 1
    runner._chat._templates.clear()


@pytest.mark.parametrize("value", [1, "no", [], 0.0])
def test_other_values_are_refused(value: object) -> None:
    with pytest.raises(InputError, match="trusted_template: expected a bool or None"):
        ChatOptions(trusted_template=value)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="trusted: expected True or False"):
        ChatTemplate(SOURCE, trusted=value)  # type: ignore[arg-type]
