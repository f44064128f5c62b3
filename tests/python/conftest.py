"""Fixtures that several test files share."""

from __future__ import annotations

import importlib.util
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from executorch_mm import GenerationConfig, MultimodalRunner
from executorch_mm.demo import QA, Scene, ask, make_scene

ROOT = Path(__file__).resolve().parents[2]
GREEDY = GenerationConfig(max_new_tokens=40)


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
