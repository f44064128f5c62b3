"""Fixtures that several test files share."""

from __future__ import annotations

import importlib.util
import os
import random
import re
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from executorch_mm import GenerationConfig, MultimodalRunner
from executorch_mm.demo import QA, Scene, ask, make_scene

ROOT = Path(__file__).resolve().parents[2]
GREEDY = GenerationConfig(max_new_tokens=40)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as shells start what runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


# What skipped tests stand for, by words of their reasons, and the session that runs them.
SKIP_GROUPS = {
    "operators": (r"libemm_ops_testlib", "nox -s cpp"),
    "torch": (r"nox -s torch|could not import '(torch|executorch)", "nox -s torch"),
    "OpenVINO": (r"openvino", "nox -s openvino"),
    "real models": (
        r"EXECUTORCH_MM_TEST_\w+ names another|no model in|does not exist|is not the file of the record",
        "nox -s real_model; real_models.yml makes the files",
    ),
    "Ray": (r"could not import '(ray|daft|pyspark)'|executorch_mm\[ray", "nox -s ray"),
    "browser": (r"selenium|chromium", "nox -s browser"),
    "lm-evaluation-harness": (r"lm_eval", "nox -s lm_eval"),
    "extras": (r"could not import|the extra executorch_mm\[|is not read here|reads no AVIF", "nox -s tests"),
    "other machines": (
        r"this (machine|system)|Linux|one core|reads /proc|binutils|ELF|always full",
        "tests.yml",
    ),
}


def pytest_configure(config: pytest.Config) -> None:
    """EXECUTORCH_MM_TEST_TODAY=2031-02-03 runs the tests with the clock at that day; needs time-machine."""
    if day := os.environ.get("EXECUTORCH_MM_TEST_TODAY"):
        import time_machine  # what only this needs

        moved = time_machine.travel(f"{day}T12:00:00+00:00", tick=True)
        moved.start()
        config.add_cleanup(moved.stop)


def skipped_groups(config: pytest.Config) -> Counter[str]:
    """How many tests were skipped, by group; a reason that belongs to none stands for itself."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    counts: Counter[str] = Counter()
    for report in reporter.getreports("skipped") if reporter is not None else ():
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        counts[next((name for name in SKIP_GROUPS if re.search(SKIP_GROUPS[name][0], reason)), reason)] += 1
    return counts


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A test that no session runs is a failure."""
    if any(group not in SKIP_GROUPS for group in skipped_groups(session.config)):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """One line on what the skipped tests stand for."""
    parts = [
        f"{count} {group} ({SKIP_GROUPS[group][1] if group in SKIP_GROUPS else 'NO SESSION RUNS THIS'})"
        for group, count in skipped_groups(config).most_common()
    ]
    if parts:
        terminalreporter.write_line(f"skipped: {', '.join(parts)}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if importlib.util.find_spec("torch") is None:
        for item in items:
            if item.get_closest_marker("torch"):
                item.add_marker(pytest.mark.skip(reason="torch is not installed (`nox -s torch` runs this)"))


@pytest.fixture(autouse=True)
def away_from_the_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that a test starts find the installed package, not the source folder, which has no module."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def demo_runner() -> Iterator[MultimodalRunner]:
    with MultimodalRunner.demo() as runner:
        yield runner


@pytest.fixture
def runner(demo_runner: MultimodalRunner) -> MultimodalRunner:
    """The shipped model at the start of a conversation."""
    demo_runner.reset()
    return demo_runner


@pytest.fixture(scope="session")
def demo_folder() -> Path:
    import executorch_mm

    return Path(executorch_mm.__file__).parent / "models" / "tiny_vlm"


@pytest.fixture(scope="session")
def real_models() -> Path:
    """The folder with exported models, see the README there."""
    folder = Path(os.environ.get("EXECUTORCH_MM_TEST_MODELS") or ROOT.parent / "shared" / "models")
    if not folder.is_dir():
        pytest.skip(f"{folder} does not exist; EXECUTORCH_MM_TEST_MODELS names another folder")
    return folder


@pytest.fixture(scope="session")
def questions() -> list[tuple[Scene, QA]]:
    """One question about each of 60 scenes that training has not seen."""
    rng = random.Random(60)
    scenes = [make_scene(seed) for seed in range(950_000_000, 950_000_060)]
    return [(scene, ask(scene, rng)) for scene in scenes]
