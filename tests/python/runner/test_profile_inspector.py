"""A profile is what ExecuTorch's Inspector reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from executorch_mm import GenerationConfig, MultimodalRunner

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]


def test_the_inspector_finds_every_call_of_the_decoder(demo_folder: Path, tmp_path: Path) -> None:
    devtools = pytest.importorskip("executorch.devtools")
    path = tmp_path / "run.etdump"
    with MultimodalRunner(demo_folder / "model.pte", profile_path=path) as runner:
        runner.generate_text(
            "<|user|>hello<|end|><|assistant|>", GenerationConfig(max_new_tokens=6, ignore_eos=True)
        )

    blocks = devtools.Inspector(etdump_path=str(path)).event_blocks

    updates = [e for block in blocks for e in block.events if e.name == "llama::update_cache"]
    # One call reads the prompt and one each of the tokens but the last, which nobody has asked to go on from.
    assert {len(event.perf_data.raw) for event in updates} == {1 + 5}
