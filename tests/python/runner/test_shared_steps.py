"""Sessions that share the calls of a model: each has what it has alone, bit for bit."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from executorch_mm import BusyError, GenerationResult, MultimodalModel, Session, make_token_input
from executorch_mm.response_format import Regex
from number_tokenizer import NumberTokenizer

FOLDER = Path(__file__).resolve().parents[2] / "models" / "kvcache"
# Made by tools/fixtures/kvcache/make_models.py with torch: prompts of 1 to 8 tokens, answers of 12.
EXPECTED = json.loads((FOLDER / "expected.json").read_text())
OTHERS = EXPECTED["flat"]["others"]
ResultT = TypeVar("ResultT")


class EndingTokenizer(NumberTokenizer):
    """The same with an end token, which structured output needs."""

    eos_ids = frozenset({63})

    def encode(self, text: str, **options: bool) -> list[int]:
        return super().encode(text.replace("\x02", " 62"), **options)

    def is_special(self, token_id: int) -> bool:
        return token_id == 63


def load(name: str = "flat", **options: Any) -> MultimodalModel:
    return MultimodalModel.load(FOLDER / f"{name}.pte", EndingTokenizer(), **options)


@pytest.fixture(scope="module")
def model() -> Iterator[MultimodalModel]:
    with load(prefix_cache_bytes=0) as loaded:
        yield loaded


def ask(session: Session, prompt: Sequence[int], count: int = 12, **options: Any) -> GenerationResult:
    options = {"temperature": 0.0, "ignore_eos": True, **options}
    return session.generate_result([make_token_input(list(prompt))], max_new_tokens=count, **options)


def at_once(works: Sequence[Callable[[], ResultT]]) -> list[ResultT | BaseException]:
    """What each gives or raises, in a thread of its own."""
    start = threading.Barrier(len(works))

    def run(work: Callable[[], ResultT]) -> ResultT:
        start.wait()
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        futures = [pool.submit(run, work) for work in works]
    return [future.exception() or future.result() for future in futures]


def until_shared(rounds: Callable[[], Sequence[GenerationResult]]) -> None:
    """Repeats it until threads have met in a call, which is the system's to decide."""
    for _ in range(200):
        if any(result.stats.num_shared_steps > 0 for result in rounds()):
            return
    pytest.fail("no call was shared")


@pytest.mark.parametrize("dtype", [None, "float16", "int8"])
def test_eight_threads_have_the_tokens_and_logprobs_of_one_at_a_time(dtype: str | None) -> None:
    with load(kv_cache_dtype=dtype, prefix_cache_bytes=0) as model:
        sessions = [model.session() for _ in OTHERS]

        def answers(session: Session, prompt: list[int]) -> GenerationResult:
            session.reset()
            return ask(session, prompt, logprobs=3)

        alone = [answers(*pair) for pair in zip(sessions, (prompt for prompt, _ in OTHERS), strict=True)]
        assert all(result.stats.num_shared_steps == 0 for result in alone)
        if dtype is None:
            assert [list(result.token_ids) for result in alone] == [answer for _, answer in OTHERS]

        def rounds() -> list[GenerationResult]:
            works = [
                lambda session=session, prompt=prompt: answers(session, prompt)
                for session, (prompt, _) in zip(sessions, OTHERS, strict=True)
            ]
            results = at_once(works)
            for one, other in zip(alone, results, strict=True):
                assert isinstance(other, GenerationResult)
                assert one.token_ids == other.token_ids
                assert one.logprobs == other.logprobs  # floats, bit for bit
            return results

        until_shared(rounds)


def test_tasks_share_calls_too(model: MultimodalModel) -> None:
    async def together() -> list[GenerationResult]:
        sessions = [model.session() for _ in OTHERS]
        asked = [
            session.agenerate_result(
                [make_token_input(prompt)], max_new_tokens=12, temperature=0.0, ignore_eos=True
            )
            for session, (prompt, _) in zip(sessions, OTHERS, strict=True)
        ]
        results = await asyncio.gather(*asked)
        for session in sessions:
            session.close()
        return results

    def rounds() -> list[GenerationResult]:
        results = asyncio.run(together())
        assert [list(result.token_ids) for result in results] == [answer for _, answer in OTHERS]
        return results

    until_shared(rounds)


def test_what_ends_one_of_them_leaves_the_others_alone(model: MultimodalModel) -> None:
    sessions = [model.session() for _ in OTHERS]

    def fail(ids: Sequence[int], logits: Any) -> None:
        if len(ids) > 10:
            raise ValueError("a fault of this one")

    def stop(ids: Sequence[int], logits: Any) -> None:
        if len(ids) > 9:
            sessions[1].stop()

    def close_stream() -> list[str]:
        pieces: list[str] = []
        stream = sessions[2].stream(make_token_input(OTHERS[2][0]), max_new_tokens=12, temperature=0.0)
        for piece in stream:
            pieces.append(piece)
            if len(pieces) == 3:
                stream.close()
        return pieces

    works: list[Callable[[], object]] = [
        lambda: ask(sessions[0], OTHERS[0][0], logits_processors=[fail]),
        lambda: ask(sessions[1], OTHERS[1][0], logits_processors=[stop]),
        close_stream,
        lambda: ask(sessions[3], OTHERS[3][0], timeout=1e-9),
        *(
            lambda session=session, prompt=prompt: ask(session, prompt)
            for session, (prompt, _) in zip(sessions[4:], OTHERS[4:], strict=True)
        ),
    ]
    failed, stopped, pieces, late, *whole = at_once(works)
    assert isinstance(failed, ValueError)
    assert isinstance(stopped, GenerationResult)
    assert stopped.stats.finish_reason == "cancelled"
    assert list(stopped.token_ids) == OTHERS[1][1][: len(stopped.token_ids)]
    assert pieces == [f" {token}" for token in OTHERS[2][1][:3]]
    assert isinstance(late, GenerationResult)
    assert late.stats.finish_reason == "timeout"
    for result, (_, answer) in zip(whole, OTHERS[4:], strict=True):
        assert isinstance(result, GenerationResult)
        assert list(result.token_ids) == answer
    # And those that were ended go on as if they had always been alone.
    for session, (prompt, answer) in zip(sessions, OTHERS, strict=True):
        session.reset()
        assert list(ask(session, prompt).token_ids) == answer
        session.close()


def test_a_session_that_is_closed_while_others_answer_touches_none(model: MultimodalModel) -> None:
    sessions = [model.session() for _ in OTHERS[:4]]

    def close_early() -> None:
        stream = sessions[0].stream(make_token_input(OTHERS[0][0]), max_new_tokens=12, temperature=0.0)
        next(stream)
        with pytest.raises(BusyError):
            sessions[0].close()
        stream.close()
        sessions[0].close()

    works: list[Callable[[], object]] = [close_early]
    works += [lambda i=i: list(ask(sessions[i], OTHERS[i][0]).token_ids) for i in (1, 2, 3)]
    assert at_once(works) == [None, *(OTHERS[i][1] for i in (1, 2, 3))]
    for session in sessions[1:]:
        session.close()


def test_sessions_with_other_methods_have_calls_of_their_own() -> None:
    names = ("base_forward", "lora_forward") * 2
    turns = {
        "base_forward": EXPECTED["flat"]["turns"][0],
        "lora_forward": EXPECTED["adapters"]["lora_forward"][0],
    }
    with load("adapters", prefix_cache_bytes=0) as model:
        sessions = [model.session(method=name) for name in names]

        def rounds() -> list[GenerationResult]:
            works = []
            for session, name in zip(sessions, names, strict=True):
                session.reset()
                prompt = turns[name][0]
                works.append(lambda session=session, prompt=prompt: ask(session, prompt, 6))
            results = at_once(works)
            for result, name in zip(results, names, strict=True):
                assert isinstance(result, GenerationResult)
                assert list(result.token_ids) == turns[name][1]
            return results

        until_shared(rounds)


OPTIONS = (
    {},
    {"temperature": 0.8, "seed": 5},
    {"temperature": 1.0, "top_k": 7, "seed": 9, "logprobs": 2},
    {"stop": [" 1", " 33"]},
    {"response_format": Regex("( [1-5]){3,9}"), "ignore_eos": False},
    {"repetition_penalty": 1.3},
    {"prompt_lookup_num_tokens": 3},
    {"num_return_sequences": 2, "temperature": 0.9, "seed": 2},
)
TURN = st.tuples(
    st.lists(st.integers(0, 63), min_size=1, max_size=12), st.integers(1, 6), st.sampled_from(OPTIONS)
)
# What a session does between two turns.
ACTS = st.sampled_from(("nothing", "rewind", "fork", "save", "reset"))


def play(session: Session, script: list[tuple[Any, str]]) -> list[object]:
    """What a session says to the turns of a script."""
    said: list[object] = []
    others: list[Session] = []
    for (prompt, count, options), act in script:
        result = ask(session, prompt, count, **options)
        answers = (result, *result.alternatives)
        said.append([(answer.token_ids, answer.text, answer.logprobs) for answer in answers])
        if act == "rewind":
            session.rewind(max(1, session.position // 2))
        elif act == "fork":
            others.append(session)
            session = session.fork()
        elif act == "save":
            saved = session.save()
            said.append(ask(session, [1, 2], 3).token_ids)
            session.restore(saved)
        elif act == "reset":
            session.reset()
    others.append(session)
    said.append([list(other.history) for other in others])
    for other in others[1:]:
        other.close()
    return said


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(scripts=st.lists(st.lists(st.tuples(TURN, ACTS), min_size=1, max_size=3), min_size=2, max_size=5))
def test_any_sessions_at_once_say_what_each_says_alone(
    model: MultimodalModel, scripts: list[list[tuple[Any, str]]]
) -> None:
    sessions = [model.session() for _ in scripts]
    alone = [play(session, script) for session, script in zip(sessions, scripts, strict=True)]
    for session in sessions:
        session.reset()
    together = at_once(
        [
            lambda session=session, script=script: play(session, script)
            for session, script in zip(sessions, scripts, strict=True)
        ]
    )
    for session in sessions:
        session.close()
    assert together == alone
