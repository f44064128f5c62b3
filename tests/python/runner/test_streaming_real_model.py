"""Streams of SmolLM2: text beyond Latin letters, stop strings over token borders, eight tasks at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from executorch_mm import GenerationConfig, MultimodalRunner

pytestmark = pytest.mark.real_model


def test_pieces_are_whole_stops_straddle_and_tasks_take_turns(real_models: Path) -> None:
    folder = real_models / "smollm2-135m-instruct-8da4w"
    if not folder.is_dir():
        pytest.skip(f"{folder} does not exist")
    with MultimodalRunner(folder / "model.pte", folder, num_threads=1) as runner:
        text = "🦊 狐狸 日本語 🎉"
        ids = runner.tokenizer.encode(text)
        assert len(ids) > len(text)  # characters of several tokens
        forced = GenerationConfig(forced_tokens=ids, max_new_tokens=len(ids))
        pieces = list(runner.stream("Say: ", forced))
        assert "".join(pieces) == text
        assert "\ufffd" not in "".join(pieces)
        runner.reset()
        stopped = runner.generate_result("Say: ", forced, stop=["狸 日"])
        assert (stopped.text, stopped.stopped_by) == ("🦊 狐", "狸 日")
        options = GenerationConfig(max_new_tokens=4, ignore_eos=True)
        runner.reset()
        expected = [runner.generate_result(f"{i} and", options).token_ids for i in range(8)]

        async def fan_out() -> list[tuple[int, ...]]:
            calls = (runner.agenerate_result(f"{i} and", options) for i in range(8))
            return [result.token_ids for result in await asyncio.gather(*calls)]

        runner.reset()
        assert asyncio.run(fan_out()) == expected
