"""Ctrl-C at any moment of any call: inside `except KeyboardInterrupt:` the runner is free and in order.

The traceback keeps the frames of the call that was interrupted, so nothing may depend on their end.
"""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

# Interrupts calls at random moments by a timer, and uses the runner while the exception is handled.
PROGRAM = """
import random, signal, sys, time
from executorch_mm import MultimodalRunner

kind, tries = sys.argv[1], int(sys.argv[2])
runner = MultimodalRunner.demo(num_threads=1)
options = dict(max_new_tokens=4, ignore_eos=True)
def stream():
    for _ in runner.stream("red", **options): pass
def stream_chat():
    for _ in runner.stream_chat([{"role": "user", "content": "red"}], **options): pass
def failing():
    try:
        runner.generate_text("red", suppress_tokens=[10**6])
    except ValueError:
        pass
call = {
    "generate": lambda: runner.generate("red", token_callback=lambda _: None, **options),
    "generate_text": lambda: runner.generate_text("red", **options),
    "processors": lambda: runner.generate_text("red", logits_processors=[lambda *_: None], **options),
    "several": lambda: runner.generate_result("red", num_return_sequences=2, temperature=1.0, **options),
    "chat": lambda: runner.chat([{"role": "user", "content": "red"}], **options),
    "prefill": lambda: runner.prefill("red " * 20, progress=lambda *_: None),
    "reset": lambda: [runner.reset() for _ in range(5)],
    "save": lambda: runner.restore(runner.save()),
    "stream": stream, "stream_chat": stream_chat, "failing": failing,
}[kind]
class Interrupt(KeyboardInterrupt): pass
is_armed = False
def on_alarm(*_):
    if is_armed:
        raise Interrupt
signal.signal(signal.SIGALRM, on_alarm)
def seconds():
    runner.reset()
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun
length = min(seconds() for _ in range(9))
expected = runner.generate_text("blue", max_new_tokens=3, ignore_eos=True) if runner.reset() is None else ""
rng = random.Random(1)
interrupted = 0
for _ in range(tries):
    runner.reset()
    try:
        is_armed = True
        signal.setitimer(signal.ITIMER_REAL, max(1e-6, rng.random() * length))
        call()
        is_armed = False
    except Interrupt:
        is_armed = False
        interrupted += 1
        runner.reset()
        assert runner.generate_text("blue", max_new_tokens=3, ignore_eos=True) == expected
    signal.setitimer(signal.ITIMER_REAL, 0)
    is_armed = False
assert interrupted > tries / 10, interrupted
"""
KINDS = (
    *("generate", "generate_text", "processors", "several", "chat", "prefill", "reset", "save"),
    *("stream", "stream_chat", "failing"),
)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timers")
@pytest.mark.parametrize("kind", KINDS)
def test_the_runner_is_free_while_the_interrupt_is_handled(kind: str) -> None:
    command = [sys.executable, "-c", PROGRAM, kind, "250"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
