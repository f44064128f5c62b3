"""Log lines of ExecuTorch on their way to Python's `logging`."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from executorch_mm import GenerationConfig, ModelLoadError, MultimodalRunner, XnnpackOptions


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level("DEBUG", "executorch_mm")
    return caplog


def test_what_a_load_logs_arrives_with_level_and_place(
    demo_folder: Path, log: pytest.LogCaptureFixture
) -> None:
    xnnpack = XnnpackOptions(linear="reference")
    MultimodalRunner(demo_folder / "model.pte", xnnpack=xnnpack).close()
    (opened,) = (r for r in log.records if "are linear layers of ours" in r.getMessage())
    assert (opened.name, opened.levelname) == ("executorch_mm", "INFO")
    assert opened.filename == "et_program.cpp"
    assert opened.lineno > 0


def test_an_error_is_both_logged_and_raised(demo_folder: Path, log: pytest.LogCaptureFixture) -> None:
    content = (demo_folder / "model.pte").read_bytes()
    content = content.replace(b"llama::custom_sdpa", b"llama::costum_sdpa")
    with pytest.raises(ModelLoadError) as caught:
        MultimodalRunner(content, demo_folder)
    errors = [record.getMessage() for record in log.records if record.levelno == logging.ERROR]
    assert errors
    assert all(message in str(caught.value) for message in errors)


def test_an_ordinary_load_and_answer_logs_no_warning(
    demo_folder: Path, log: pytest.LogCaptureFixture
) -> None:
    with MultimodalRunner(demo_folder / "model.pte") as runner:
        runner.generate_text("hello", GenerationConfig(max_new_tokens=2))
    assert [record.getMessage() for record in log.records if record.levelno >= logging.WARNING] == []


def test_lines_below_the_loggers_level_make_no_record(
    demo_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("ERROR", "executorch_mm")
    xnnpack = XnnpackOptions(linear="reference")
    MultimodalRunner(demo_folder / "model.pte", xnnpack=xnnpack).close()
    assert caplog.records == []


def test_without_a_handler_nothing_is_printed_even_when_loading_fails(demo_folder: Path) -> None:
    program = (
        "import sys\nfrom executorch_mm import *\n"
        "content = open(sys.argv[1], 'rb').read()\n"
        "try: MultimodalRunner(content[:4096], sys.argv[2])\n"
        "except ModelLoadError: pass\n"
        "MultimodalRunner(sys.argv[1], num_threads=2).generate_text('red')\n"
    )
    command = [sys.executable, "-c", program, str(demo_folder / "model.pte"), str(demo_folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_handler_that_uses_the_runner_does_not_lock_up(demo_folder: Path) -> None:
    runner = MultimodalRunner(demo_folder / "model.pte")
    positions: list[int] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            runner.reset()
            positions.append(runner.position)

    logger = logging.getLogger("executorch_mm")
    handler = Handler()
    logger.addHandler(handler)
    logger.setLevel("INFO")
    try:
        xnnpack = XnnpackOptions(linear="reference")
        MultimodalRunner(demo_folder / "model.pte", xnnpack=xnnpack).close()
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    assert positions
    assert set(positions) == {0}


def test_loads_in_many_threads_lose_no_line(demo_folder: Path, log: pytest.LogCaptureFixture) -> None:
    def load() -> None:
        xnnpack = XnnpackOptions(linear="reference")
        MultimodalRunner(demo_folder / "model.pte", xnnpack=xnnpack).close()

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum("are linear layers of ours" in record.getMessage() for record in log.records) == 4
