"""A program ends while threads are at work in the package: with its own exit code, soon, and in silence.

Until CPython 3.13 a thread that wants the GIL back from an interpreter that is ending is unwound by
pthread_exit, and std::terminate ends the process where C++ did not expect that (SIGABRT).
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

MODELS = Path(__file__).parents[2] / "models"
SOON = 2.0  # half a second is the package's, the rest the interpreter's on a busy machine
SMOLLM2 = "smollm2-135m-instruct-8da4w"

BEGIN = """
import asyncio, os, signal, sys, threading, time
import numpy as np
from executorch_mm import ClipModel, InputError, MultimodalRunner, SpeechRunner, _core
from executorch_mm.demo import make_scene, render
from executorch_mm.preprocess import Waveform
from executorch_mm.preprocess.resample import BILINEAR, resize
models = sys.argv[1]
options = dict(max_new_tokens=100, ignore_eos=True)
is_at_work = threading.Event()
def begin(*_):
    is_at_work.set()
"""
END = """
def work():
    while True:
        once()
        begin()
for _ in range(NUM_THREADS):
    threading.Thread(target=work, daemon=True).start()
assert is_at_work.wait(30)
time.sleep(float(sys.argv[2]))
"""

RUNNER = "runner = MultimodalRunner.demo(num_threads=1)\n"
WORK = {
    "stream": RUNNER
    + """
def once():
    runner.reset()
    for _ in runner.stream("how many", **options): begin()
""",
    "callback": RUNNER
    + """
def once():
    runner.reset()
    runner.generate("how many", token_callback=begin, **options)
""",
    "processor": RUNNER
    + """
def once():
    runner.reset()
    runner.generate_text("how many", logits_processors=[lambda tokens, logits: begin()], **options)
""",
    "sleeping processor": RUNNER
    + """
def process(tokens, logits):
    begin()
    time.sleep(0.05)
def once():
    runner.reset()
    runner.generate_text("how many", logits_processors=[process], **options)
""",
    "progress": RUNNER
    + """
def once():
    runner.reset()
    runner.prefill("how many " * 30, progress=begin)
""",
    "image": RUNNER
    + """
image = render(make_scene(seed=7)).resize((900, 700))
def once():
    runner.reset()
    runner.generate_text(["<|user|>", image, "how many<|end|><|assistant|>"], max_new_tokens=1)
""",
    "chat": RUNNER
    + """
def once():
    runner.chat([{"role": "user", "content": "how many"}], **options)
""",
    "task": RUNNER
    + """
async def ask():
    async for _ in runner.astream("how many", **options): begin()
def once():
    runner.reset()
    asyncio.run(ask())
""",
    "error": RUNNER
    + """
def once():
    try:
        runner.generate_text("how many", suppress_tokens=[10**6])
    except InputError:
        pass
""",
    "snapshot": RUNNER
    + """
runner.prefill("how many " * 30)
def once():
    runner.restore(runner.save())
""",
    "loading": """
def once():
    MultimodalRunner.demo(num_threads=1)
""",
    "loading from memory": """
from pathlib import Path
import executorch_mm
folder = Path(executorch_mm.__file__).parent / "models" / "tiny_vlm"
content = (folder / "model.pte").read_bytes()
def once():
    MultimodalRunner(content, folder, num_threads=1)
""",
    "clip": """
model = ClipModel(models + "/clip/clip.pte")
image = np.zeros((40, 60, 3), np.uint8)
def once():
    model.encode_image([image] * 3)
""",
    "speech": """
runner = SpeechRunner(models + "/speech/kv.pte")
audio = np.zeros(16000 * 3, np.float32)
def once():
    for _ in runner.stream_transcribe(audio, sampling_rate=16000): begin()
""",
    "transducer": """
runner = SpeechRunner(models + "/transducer/tdt.pte", models + "/transducer")
audio = np.zeros(16000, np.float32)
def once():
    runner.transcribe(audio, sampling_rate=16000)
""",
    "preprocessing": """
pixels = np.zeros((1500, 1500, 3), np.uint8)
def once():
    resize(pixels, 800, 800, BILINEAR)
""",
    "resampling": """
audio = Waveform(np.zeros(480_000, np.float32), 48000)
def once():
    audio.resampled(16000)
""",
    "response format": RUNNER
    + """
def once():
    runner.reset()
    runner.generate_text("how many", response_format={"type": "array", "items": {"type": "integer"}},
                         max_new_tokens=20)
""",
}
NEEDS = {"resampling": "soxr", "response format": "llguidance"}


def end_code(body: str, delay: float = 0.0, num_threads: int = 1) -> tuple[int, str, float]:
    """The exit code of a program, what it wrote to stderr, and how long it took from its last line on."""
    command = [sys.executable, "-c", (BEGIN + body).replace("NUM_THREADS", str(num_threads))]
    done = subprocess.run([*command, str(MODELS), str(delay)], capture_output=True, text=True, timeout=60)
    ended = time.perf_counter()
    return done.returncode, done.stderr, ended - float(done.stdout.split()[-1])


def with_end(work: str, end: str) -> str:
    return f"{work}{END}\nprint(time.perf_counter(), flush=True)\n{end}\n"


@pytest.mark.parametrize("kind", WORK)
def test_a_program_ends_as_it_says_whatever_its_threads_do(kind: str) -> None:
    if (package := NEEDS.get(kind)) and importlib.util.find_spec(package) is None:
        pytest.skip(f"could not import {package!r}")
    code, errors, seconds = end_code(with_end(WORK[kind], "sys.exit(3)"), delay=0.01)
    assert (code, errors) == (3, "")
    assert seconds < SOON


@pytest.mark.parametrize("kind", ["stream", "clip", "loading"])
@pytest.mark.parametrize(("end", "expected"), [("", 0), ("raise KeyboardInterrupt", -signal.SIGINT)])
def test_every_way_to_end(kind: str, end: str, expected: int) -> None:
    code, errors, seconds = end_code(with_end(WORK[kind], end))
    assert (code, errors.split("Traceback")[0]) == (expected, "")
    assert seconds < SOON


@pytest.mark.parametrize("kind", ["stream", "processor", "loading", "preprocessing"])
@pytest.mark.parametrize("delay", [0.0, 0.01])
def test_eight_threads_and_any_moment(kind: str, delay: float) -> None:
    each = WORK[kind].replace(RUNNER, "own = threading.local()\n").replace("runner.", "own_runner().")
    helper = """
def own_runner():
    own.runner = getattr(own, "runner", None) or MultimodalRunner.demo()
    return own.runner
"""
    code, errors, _ = end_code(with_end(helper + each, "sys.exit(3)"), delay, 8)
    assert (code, errors) == (3, "")


def test_ctrl_c_in_the_main_thread_ends_the_program() -> None:
    # A program that is started in the background of a shell inherits an ignored SIGINT.
    listen = "signal.signal(signal.SIGINT, signal.default_int_handler)"
    body = with_end(WORK["stream"], f"{listen}\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(5)")
    code, errors, seconds = end_code(body)
    assert code == -signal.SIGINT
    assert errors.strip().endswith("KeyboardInterrupt")
    assert seconds < SOON


def test_native_work_that_lasts_too_long_is_left_behind() -> None:
    """As a prompt chunk of a large model, or another library's work, may."""
    work = """
def once():
    with _core.ForeignWork():
        begin()
        time.sleep(20)
"""
    code, errors, seconds = end_code(with_end(RUNNER + work, "sys.exit(7)"))
    assert (code, errors) == (7, "")
    assert 0.3 < seconds < SOON


def test_a_long_chunk_of_a_prompt_is_left_behind(real_models: Path) -> None:
    folder = real_models / SMOLLM2
    if not folder.is_dir():
        pytest.skip(f"no model in {folder}")
    work = f"""
runner = MultimodalRunner({str(folder / "model.pte")!r})
def once():
    runner.reset()
    begin()
    runner.generate_text("how many " * 480, max_new_tokens=1)  # one call of 2.5 s
"""
    code, errors, seconds = end_code(with_end(work, "sys.exit(7)"), delay=0.3)
    assert (code, errors) == (7, "")
    assert seconds < 2


def test_a_thread_that_the_program_waits_for_finishes_its_answer() -> None:
    body = f"""{RUNNER}
def work():
    begin()
    result = runner.generate_result("how many", logits_processors=[lambda *_: time.sleep(0.01)], **options)
    print(len(result.token_ids), flush=True)
threading.Thread(target=work).start()
is_at_work.wait()
"""
    source = [sys.executable, "-c", BEGIN + body, str(MODELS)]
    done = subprocess.run(source, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "100\n", "")


def test_the_main_thread_may_use_its_runner_until_the_very_end() -> None:
    """A function registered before the package runs after the package's own."""
    body = """
import atexit
def last():
    print(repr(runner.generate_text("red", max_new_tokens=2, ignore_eos=True)))
    runner.close()
atexit.register(last)
""" + BEGIN.replace("sys.argv[1]", "''")
    body += f"{RUNNER}\nthreading.Thread(target=time.sleep, args=[30], daemon=True).start()\n"
    done = subprocess.run([sys.executable, "-c", body], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.strip()) > 2


def test_a_thread_that_the_last_function_waits_for_is_refused_and_not_kept() -> None:
    """It began too late; the program must not wait for it for ever."""
    body = f"""
import atexit
def last():
    go.set()
    thread.join()
    print(type(errors[0]).__name__, errors[0])
atexit.register(last)
{BEGIN.replace("sys.argv[1]", "''")}
{RUNNER}
go, errors = threading.Event(), []
def work():
    go.wait()
    try:
        runner.generate_text("red")
    except Exception as error:
        errors.append(error)
thread = threading.Thread(target=work, daemon=True)
thread.start()
"""
    done = subprocess.run([sys.executable, "-c", body], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("ExecutionError the interpreter is ending")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_does_not_wait_for_the_parents_threads() -> None:
    body = f"""
def once():
    with _core.ForeignWork():
        begin()
        time.sleep(20)
{END}
import warnings
warnings.simplefilter("ignore")  # of Python 3.12, which sees the thread
begun = time.perf_counter()
child = os.fork()
if child:
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 5
    assert time.perf_counter() - begun < 0.45
    print(time.perf_counter())
else:
    sys.exit(5)
"""
    code, errors, _ = end_code(body)
    assert (code, errors) == (0, "")
