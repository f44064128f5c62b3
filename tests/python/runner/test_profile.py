"""ETDump profiles. `pytest -m torch` also reads them with ExecuTorch's Inspector."""

from __future__ import annotations

from pathlib import Path

import pytest

from executorch_mm import ExecutorchMMError, GenerationConfig, InputError, MultimodalRunner

NUM_TOKENS = 6
PROMPT = "<|user|>hello<|end|><|assistant|>"


def profile(demo_folder: Path, path: Path) -> str:
    with MultimodalRunner(demo_folder / "model.pte", profile_path=path) as runner:
        return runner.generate_text(PROMPT, GenerationConfig(max_new_tokens=NUM_TOKENS, ignore_eos=True))


def test_closing_writes_an_etdump_that_names_our_operators(
    demo_folder: Path, runner: MultimodalRunner, tmp_path: Path
) -> None:
    path = tmp_path / "run.etdump"
    text = profile(demo_folder, path)
    content = path.read_bytes()
    # A flatbuffer with its size in front and the identifier behind the offset of its root.
    assert int.from_bytes(content[:4], "little") == len(content) - 4
    assert content[8:12] == b"ED00"
    assert b"llama::update_cache" in content
    assert text == runner.generate_text(
        PROMPT, GenerationConfig(max_new_tokens=NUM_TOKENS, ignore_eos=True)
    ), "profiling has changed the answer"


def test_a_profile_grows_with_what_is_run(demo_folder: Path, tmp_path: Path) -> None:
    sizes = []
    for count in (2, 20):
        path = tmp_path / f"{count}.etdump"
        with MultimodalRunner(demo_folder / "model.pte", profile_path=path) as runner:
            runner.generate_text(PROMPT, GenerationConfig(max_new_tokens=count, ignore_eos=True))
        sizes.append(path.stat().st_size)
    assert sizes[1] > 3 * sizes[0]


def test_a_profile_is_empty_when_nothing_ran(demo_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.etdump"
    MultimodalRunner(demo_folder / "model.pte", profile_path=path).close()
    assert path.read_bytes() == b""


def test_a_runner_that_is_dropped_without_closing_writes_its_profile(
    demo_folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "run.etdump"
    runner = MultimodalRunner(demo_folder / "model.pte", profile_path=path)
    runner.generate_text(PROMPT, GenerationConfig(max_new_tokens=2))
    assert path.read_bytes() == b""
    del runner
    assert path.read_bytes()[8:12] == b"ED00"


def test_a_profile_that_cannot_be_written_is_refused_when_loading(demo_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"profile_path: cannot write .*absent.*: No such file"):
        MultimodalRunner(demo_folder / "model.pte", profile_path=tmp_path / "absent" / "run.etdump")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_profile_that_does_not_fit_is_reported_and_the_runner_closed(demo_folder: Path) -> None:
    runner = MultimodalRunner(demo_folder / "model.pte", profile_path="/dev/full")
    runner.generate_text(PROMPT, GenerationConfig(max_new_tokens=2))
    with pytest.raises(InputError, match="profile_path: cannot write /dev/full: No space left"):
        runner.close()
    with pytest.raises(ExecutorchMMError, match="the runner is closed"):
        runner.reset()
