"""Several transducers' transcriptions over one load are each what a runner alone hears.

The references are what an eager search that keeps no state found (`tests/models/transducer`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from executorch_mm import (
    ExecutorchMMError,
    QueueFullError,
    SpeechConfig,
    SpeechModel,
    SpeechRunner,
    SpeechSession,
)

FOLDER = Path(__file__).resolve().parents[2] / "models" / "transducer"
EXPECTED: dict[str, dict[str, Any]] = {
    entry["name"]: entry["expected"] for entry in json.loads((FOLDER / "manifest.json").read_text())["models"]
}
RATE, BINS = 16_000, 12
NAMES = sorted(EXPECTED)


def clips(name: str) -> list[np.ndarray]:
    """Samples or features."""
    made = []
    for seed, size, *_ in EXPECTED[name]["clips"]:
        random = np.random.default_rng(seed)
        if EXPECTED[name]["has_preprocessor"]:
            made.append(random.normal(0, 0.1, size).astype(np.float32))
        else:
            made.append(random.normal(0, 1, (1, BINS, size)).astype(np.float32))
    return made


def options(name: str) -> dict[str, Any]:
    return {"sampling_rate": RATE} if EXPECTED[name]["has_preprocessor"] else {}


def tokens(runner: SpeechRunner | SpeechSession, name: str, clip: np.ndarray) -> list[tuple[Any, ...]]:
    made = runner.transcribe(clip, **options(name))
    return [(segment.tokens, segment.token_times) for segment in made.segments]


def alone(name: str) -> list[list[tuple[Any, ...]]]:
    with SpeechRunner(FOLDER / f"{name}.pte", num_threads=1) as runner:
        return [tokens(runner, name, clip) for clip in clips(name)]


def load(name: str, **options: Any) -> SpeechModel:
    return SpeechModel(FOLDER / f"{name}.pte", num_threads=1, **options)


@pytest.mark.parametrize("name", NAMES)
def test_symbols_of_sessions_that_take_turns_are_the_eager_models(name: str) -> None:
    given = clips(name)
    with load(name) as model, contextlib.ExitStack() as stack:
        cores = []
        for index, (clip, about) in enumerate(zip(given, EXPECTED[name]["clips"], strict=True)):
            core: Any = stack.enter_context(model.session())._requests.session
            core.begin_request()
            if EXPECTED[name]["has_preprocessor"]:
                core.begin_samples(clip)
            else:
                core.begin_features(clip, about[2])
            cores.append((index, core))
        found: list[list[list[int]]] = [[] for _ in given]
        while cores:
            for index, core in list(cores):
                symbol = core.next()
                if symbol is None:
                    cores.remove((index, core))
                else:
                    found[index].append([symbol.token, symbol.frame, symbol.duration])
        assert found == EXPECTED[name]["symbols"]


@pytest.mark.parametrize("name", ["tdt", "rnnt_features"])
def test_threads_and_tasks_hear_what_each_hears_alone(name: str) -> None:
    expected, given = alone(name), clips(name)
    assert len({repr(heard) for heard in expected}) > 1
    wrong: list[object] = []
    with load(name) as model:

        def hear(first: int) -> None:
            with model.session() as session:
                for turn in range(4):
                    index = (first + turn) % len(given)
                    if tokens(session, name, given[index]) != expected[index]:
                        wrong.append((first, turn))

        threads = [threading.Thread(target=hear, args=(first,)) for first in range(8)]

        async def hear_all() -> list[Any]:
            sessions = [model.session() for _ in given]
            made = await asyncio.gather(
                *(
                    session.atranscribe(clip, **options(name))
                    for session, clip in zip(sessions, given, strict=True)
                )
            )
            for session in sessions:
                session.close()
            return made

        for thread in threads:
            thread.start()
        try:
            made = asyncio.run(hear_all())
        finally:
            for thread in threads:
                thread.join()
        assert wrong == []
        found = [[(segment.tokens, segment.token_times) for segment in heard.segments] for heard in made]
        assert found == expected
        assert model.num_requests == 0


def test_streams_read_in_turns_and_one_that_is_left_change_nothing_for_others() -> None:
    name = "tdt"
    expected, given = alone(name), clips(name)
    with load(name) as model, model.session() as one, model.session() as other, model.session() as third:
        with contextlib.closing(other.stream_transcribe(given[1], **options(name))) as left:
            stream = one.stream_transcribe(given[0], **options(name))
            next(stream)
            next(left)
            assert tokens(third, name, given[1]) == expected[1]
            next(stream)
        for _ in stream:
            pass
        assert stream.result is not None
        heard = [(segment.tokens, segment.token_times) for segment in stream.result.segments]
        assert heard == expected[0]
        assert tokens(other, name, given[0]) == expected[0]


def test_stop_and_timeout_end_one_session_only() -> None:
    name = "tdt"
    expected, given = alone(name), clips(name)
    with load(name) as model, model.session() as one, model.session() as other:
        stream = one.stream_transcribe(given[0], **options(name))
        next(stream)
        one.stop()
        for _ in stream:
            pass
        assert one.stats.finish_reason == "cancelled"
        assert tokens(other, name, given[0]) == expected[0]
        made = one.transcribe(given[0], SpeechConfig(timeout=1e-9), **options(name))
        assert made.stats.finish_reason == "timeout"
        assert len(made.segments) == 0
        assert tokens(one, name, given[0]) == expected[0]


def test_limits_priorities_and_the_models_end() -> None:
    name = "tdt"
    given = clips(name)
    model = load(name, max_requests=1)
    one, other = model.session(priority=2), model.session()
    assert (one._requests.session.priority, other._requests.session.priority) == (2, 0)
    stream = one.stream_transcribe(given[0], **options(name))
    next(stream)
    with pytest.raises(QueueFullError):
        other.transcribe(given[1], **options(name))
    stream.close()
    assert tokens(other, name, given[1])
    model.close()
    with pytest.raises(ExecutorchMMError, match="closed"):
        other.transcribe(given[1], **options(name))
