"""One load, many conversations: each session answers as a runner of its own does, whatever the others do."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from executorch_mm import (
    BusyError,
    DraftModel,
    ExecutorchMMError,
    InputError,
    IsolatedProcessError,
    MultimodalModel,
    MultimodalRunner,
    QueueFullError,
    Session,
    make_token_input,
)
from executorch_mm._engine import prefix_store
from executorch_mm._loading import options
from number_tokenizer import NumberTokenizer

MODELS = Path(__file__).parents[2] / "models"
# A model for each kind of cache: flat, quantised, ring beside flat, rings with a sink, recurrent beside flat,
# rows that an operator of torch's writes, the state of several methods, and a cache that is ours.
PROGRAMS = [
    "export_llm/llama.pte",
    "export_llm/llama_quantized_kv_cache.pte",
    "export_llm/gemma3_narrow.pte",
    "export_llm/llama_attention_sink.pte",
    "export_llm/lfm2.pte",
    "optimum/llama.pte",
    "exports/shared_prefill.pte",
    "kvcache/flat.pte",
]
EXAMPLES = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
GREEDY: dict[str, Any] = {"temperature": 0.0, "ignore_eos": True}


def load(name: str, *, is_copied: bool = False, **given: Any) -> MultimodalModel:
    with pytest.MonkeyPatch.context() as patch:
        if is_copied:
            core = options._core
            make = core.LoadOptions
            patch.setattr(core, "LoadOptions", lambda **options: make(**options, copies_state=True))
        return MultimodalModel(MODELS / name, NumberTokenizer(), num_threads=1, **given)


def read(conversation: Session | MultimodalRunner, tokens: list[int]) -> None:
    conversation.prefill(make_token_input(tokens))


def answer(conversation: Session | MultimodalRunner, count: int) -> tuple[int, ...]:
    return conversation.generate_result([], max_new_tokens=count, **GREEDY).token_ids


class Twin:
    """A session, and what has been done with it, for a runner that does the same alone."""

    def __init__(self, session: Session, done: list[tuple[str, Any]]) -> None:
        self.session = session
        self.done = done

    def do(self, what: str, given: Any) -> tuple[int, ...] | None:
        self.done.append((what, given))
        return step(self.session, what, given)


def step(conversation: Any, what: str, given: Any) -> tuple[int, ...] | None:
    """Does something with a conversation; the same refusals for all."""
    try:
        return STEPS[what](conversation, given)
    except IsolatedProcessError:
        raise
    except (ExecutorchMMError, KeyboardInterrupt):
        return None


def rewind(conversation: Any, quarters: int) -> None:
    conversation.rewind(conversation.position * quarters // 4)


def answer_again(conversation: Any, count: int) -> None:
    saved = conversation.save()
    with contextlib.suppress(ExecutorchMMError):
        answer(conversation, count)
    conversation.restore(saved)


def abandon(conversation: Any, tokens: list[int]) -> None:
    """A prompt that is taken back before it has been read."""

    def interrupt(done: int, total: int, phase: str) -> None:
        raise KeyboardInterrupt

    conversation.prefill(make_token_input(tokens), progress=interrupt)


def leave(conversation: Any, count: int) -> None:
    with contextlib.closing(conversation.stream([], max_new_tokens=6, **GREEDY)) as pieces:
        for _ in range(count):
            next(pieces, None)


def stop(conversation: Any, count: int) -> tuple[int, ...]:
    """An answer that is cancelled before the token behind its first `count`."""
    calls: list[None] = []

    def stop_then(*_: object) -> None:
        calls.append(None)
        if len(calls) == count:
            conversation.stop()

    result = conversation.generate_result([], max_new_tokens=6, logits_processors=[stop_then], **GREEDY)
    assert len(result.token_ids) <= count
    return tuple(result.token_ids)


STEPS: dict[str, Callable[[Any, Any], tuple[int, ...] | None]] = {
    "read": read,
    "answer": answer,
    "rewind": rewind,
    "again": answer_again,
    "abandon": abandon,
    "leave": leave,
    "stop": stop,
    "reset": lambda conversation, _: conversation.reset(),
}
KNOWN = [3 + (number * number) % 17 for number in range(12)]  # what prompts often begin with
ACTIONS = st.one_of(
    st.tuples(st.just("read"), st.lists(st.integers(3, 20), min_size=1, max_size=6)),
    st.tuples(
        st.just("read"),
        st.builds(
            lambda count, more: KNOWN[:count] + more,
            st.integers(4, 12),
            st.lists(st.integers(3, 20), max_size=2),
        ),
    ),
    st.tuples(st.just("answer"), st.integers(1, 7)),
    st.tuples(st.just("rewind"), st.integers(0, 4)),
    st.tuples(st.just("again"), st.integers(1, 3)),
    st.tuples(st.just("leave"), st.integers(0, 2)),
    st.tuples(st.just("stop"), st.integers(1, 3)),
    # Of other tokens: one that is known to its end is there before anybody can abandon it.
    st.tuples(st.just("abandon"), st.lists(st.integers(40, 60), min_size=4, max_size=6)),
    st.tuples(st.sampled_from(["reset", "fork", "new", "close", "move", "move in a file"]), st.just(0)),
)


# Export folders: whose cache is ours, grows, and stays in the decoder's memory.
FOLDERS = ["export_folders/llama", "export_folders/gpt2", "export_folders/llava"]
# Programs and what else is said of how they are loaded.
LOADED: list[tuple[str, str]] = [
    *((name, "") for name in [*PROGRAMS, *FOLDERS]),
    ("export_llm/lfm2.pte", "copied"),
    *((name, "isolated") for name in PROGRAMS[1:5]),
    *((name, "drafted") for name in ["export_llm/llama_full_logits.pte", "kvcache/flat.pte", FOLDERS[0]]),
    ("export_llm/llama_full_logits.pte", "drafted and isolated"),
]


@pytest.fixture(scope="module", params=LOADED, ids=lambda pair: f"{pair[1]} {pair[0]}".strip())
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[MultimodalModel, MultimodalRunner]]:
    name, how = request.param
    given: dict[str, Any] = {"is_copied": how == "copied", "isolate": "isolated" in how}
    if "drafted" in how:
        given["draft_model"] = DraftModel(MODELS / "export_llm/llama.pte", cost=0.05)
    with (
        pytest.MonkeyPatch.context() as patch,
        load(name, **given) as model,
        MultimodalRunner(MODELS / name, NumberTokenizer(), num_threads=1) as runner,
    ):
        assert model.contract.is_state_copied == (how == "copied" or name == FOLDERS[2])
        patch.setattr(prefix_store, "_WORTH", 1)  # short prompts are taken over too
        yield model, runner
        assert model.cache_info().prefix_hits > 0


def moved(model: MultimodalModel, session: Session, path: Path | None) -> Session:
    """The same conversation in another session; it was kept in memory or in a file."""
    saved = session.save(path)
    other = model.session()
    other.restore(saved if path is None else path)
    session.close()
    return other


# Another session's prompt is taken over.
@example([(0, ("read", KNOWN)), (0, ("new", 0)), (1, ("read", [*KNOWN, 3, 5])), (1, ("answer", 3))])
@EXAMPLES
@given(st.lists(st.tuples(st.integers(0, 5), ACTIONS), min_size=4, max_size=24))
def test_any_interleaving_answers_as_separate_runners_do(
    pair: tuple[MultimodalModel, MultimodalRunner],
    tmp_path: Path,
    actions: list[tuple[int, tuple[str, Any]]],
) -> None:
    model, runner = pair
    twins = [Twin(model.session(), [])]
    answers: list[tuple[list[tuple[str, Any]], Any, Any]] = []
    try:
        for index, (what, given_value) in actions:
            twin = twins[index % len(twins)]
            if what == "new" and len(twins) < 6:
                twins.append(Twin(model.session(), []))
            elif what == "fork" and len(twins) < 6:
                twins.append(Twin(twin.session.fork(), [*twin.done]))
            elif what == "close" and len(twins) > 1:
                twins.remove(twin)
                twin.session.close()
            elif what.startswith("move"):
                path = tmp_path / "talk.emm" if what == "move in a file" else None
                twin.session = moved(model, twin.session, path)
            elif what not in ("new", "fork", "close"):
                found = twin.do(what, given_value)
                answers.append(([*twin.done], found, twin.session.history))
    finally:
        for twin in twins:
            twin.session.close()
    for done, found, history in answers[-6:]:
        runner.reset()
        expected = None
        for what, given_value in done:
            expected = step(runner, what, given_value)
        assert found == expected
        assert history == runner.history


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_core_goes_on_from_an_earlier_position_of_another_session(name: str) -> None:
    tokens = [3 + (number * number) % 17 for number in range(24)]
    with load(name) as model, model.session() as one, model.session() as other, model.session() as fresh:
        read(one, tokens)
        read(other, [9, 9])
        positions = []
        for position in (1, 7, 16, 23, 24):
            try:
                other._session.go_on_from(one._session, position)
            except InputError:  # a ring that has gone over it, or a recurrence
                continue
            positions.append(position)
            fresh.reset()
            read(fresh, tokens[:position])
            for session in (fresh, other):
                read(session, [4, 8])
            assert answer(other, 4) == answer(fresh, 4)
            assert other.history == fresh.history
        assert positions[-1] == 24
        is_flat = not (model.contract.ring_rows or model.contract.is_recurrent)
        assert not is_flat or positions == [1, 7, 16, 23, 24]
        fresh.reset()
        read(fresh, tokens)
        assert answer(one, 4) == answer(fresh, 4)
        place, size = fresh._session.memory[0]
        assert place
        assert size > 0


def test_threads_and_tasks_are_answered_as_alone() -> None:
    prompts = [[3 + number, 5, 7 + number] for number in range(8)]
    with load("export_llm/lfm2.pte") as model:
        with model.session() as alone:
            expected = []
            for prompt in prompts:
                alone.reset()
                read(alone, prompt)
                expected.append(answer(alone, 8))
        found: list[Any] = [None] * 8

        def serve(number: int) -> None:
            with model.session() as session:
                for _ in range(4):
                    session.reset()
                    read(session, prompts[number])
                    with session.fork() as fork:
                        found[number] = {answer(session, 8), answer(fork, 8)}

        threads = [threading.Thread(target=serve, args=[number]) for number in range(8)]
        for thread in threads:
            thread.start()

        async def task(number: int) -> tuple[int, ...]:
            with model.session() as session:
                read(session, prompts[number])
                result = await session.agenerate_result([], max_new_tokens=8, **GREEDY)
                return result.token_ids

        async def tasks() -> list[tuple[int, ...]]:
            return await asyncio.gather(*(task(number) for number in range(8)))

        assert asyncio.run(tasks()) == expected
        for thread in threads:
            thread.join()
        assert found == [{tokens} for tokens in expected]


def test_one_session_is_refused_twice_and_two_never() -> None:
    with load("export_llm/llama.pte") as model, model.session() as one, model.session() as other:
        stream = one.stream(make_token_input([3, 4]), max_new_tokens=5, **GREEDY)
        next(stream)
        with pytest.raises(BusyError, match="session is in use"):
            answer(one, 1)
        read(other, [5])
        assert len(answer(other, 3)) == 3
        stream.close()


def test_a_request_beyond_the_bound_is_refused_and_the_next_one_served() -> None:
    model = MultimodalModel(MODELS / "export_llm/llama.pte", NumberTokenizer(), max_requests=1)
    with model, model.session() as one, model.session() as other:
        stream = one.stream(make_token_input([3, 4]), max_new_tokens=5, **GREEDY)
        next(stream)
        assert model.num_requests == 1
        with pytest.raises(QueueFullError, match="max_requests: 1"):
            read(other, [5])
        stream.close()
        read(other, [5])
        assert model.num_requests == 0


def test_stopping_one_session_leaves_the_others_alone() -> None:
    with load("export_llm/llama.pte") as model, model.session() as one, model.session() as other:
        read(one, [3, 4])
        read(other, [3, 4])
        ended = one.stream([], max_new_tokens=20, **GREEDY)
        next(ended)
        one.stop()
        assert list(ended) == []
        assert ended.result is not None
        assert ended.result.finish_reason == "cancelled"
        assert len(answer(other, 6)) == 6


@contextlib.contextmanager
def kept_waiting(model: MultimodalModel) -> Iterator[None]:
    """Others of a lower priority have requests, of which one always waits or has its turn."""
    is_over = threading.Event()

    def work() -> None:
        with model.session() as session:
            while not is_over.is_set():
                session.reset()
                read(session, [3, 4])
                answer(session, 20)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


def test_who_waits_for_a_turn_is_ended_by_a_timeout_a_stop_and_its_task() -> None:
    endless = {"max_new_tokens": 10**6, **GREEDY}
    with load("export_llm/llama_attention_sink.pte") as model, model.session(priority=9) as session:
        read(session, [3, 4, 5])
        expected = answer(session, 6)
        begun = time.monotonic()
        with kept_waiting(model):
            ended = [session.generate_result(make_token_input([6] * 20), timeout=0.1, **endless)]
            stopper = threading.Timer(0.1, session.stop)
            stopper.start()
            ended.append(session.generate_result([], **endless))

            async def leave() -> None:
                with pytest.raises((asyncio.TimeoutError, TimeoutError)):
                    await asyncio.wait_for(session.agenerate_result([], **endless), 0.1)

            asyncio.run(leave())
            assert time.monotonic() - begun < 5
        assert [result.finish_reason for result in ended] == ["timeout", "cancelled"]
        session.reset()
        read(session, [3, 4, 5])
        assert answer(session, 6) == expected


def test_a_fork_outlives_its_runner_and_a_model_takes_its_sessions_with_it() -> None:
    with MultimodalRunner(MODELS / "export_llm/llama.pte", NumberTokenizer()) as runner:
        read(runner, [3, 4, 5])
        fork = runner.fork()
        expected = answer(runner, 4)
    assert answer(fork, 4) == expected
    fork.close()
    model = load("export_llm/llama.pte")
    session = model.session()
    model.close()
    for call in (lambda: session.position, model.session, lambda: model.contract):
        with pytest.raises(ExecutorchMMError, match="closed"):
            call()


def test_a_snapshot_is_restored_by_any_session_of_its_model_only() -> None:
    with load("export_llm/llama.pte") as model, model.session() as one, model.session() as other:
        read(one, [3, 4, 5])
        saved = one.save()
        other.restore(saved)
        assert answer(other, 4) == answer(one, 4)
        runner = MultimodalRunner(MODELS / "export_llm/llama.pte", NumberTokenizer())
        with runner, pytest.raises(InputError, match="another"):
            runner.restore(saved)


@pytest.mark.parametrize(
    "call",
    [
        lambda model: model.session(priority="high"),
        lambda model: model.session(priority=2**40),
        lambda model: setattr(model.session(), "priority", True),
        lambda model: MultimodalModel(MODELS / "export_llm/llama.pte", NumberTokenizer(), prefill_chunk=0),
        lambda model: MultimodalModel(MODELS / "export_llm/llama.pte", NumberTokenizer(), max_requests=-1),
        lambda model: Session(),
    ],
)
def test_wrong_arguments_are_typed_errors(call: Callable[[MultimodalModel], object]) -> None:
    with load("export_llm/llama.pte") as model, pytest.raises(InputError):
        call(model)


def test_a_session_of_a_lower_priority_goes_first() -> None:
    with load("export_llm/llama.pte") as model, model.session(priority=3) as session:
        assert session.priority == 3
        session.priority = -1
        with session.fork() as fork:
            assert fork.priority == -1


def test_closed_sessions_leave_no_memory_behind() -> None:
    def resident_bytes() -> int:
        fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(fields["VmRSS"].split()[0]) << 10

    if not Path("/proc/self/status").exists():
        pytest.skip("platform: no /proc")
    with load("export_llm/llama.pte") as model:
        for _ in range(20):
            with model.session() as session:
                read(session, [3, 4, 5])
        gc.collect()
        before = resident_bytes()
        for _ in range(200):
            with model.session() as session:
                read(session, [3, 4, 5])
        gc.collect()
        assert resident_bytes() - before < 4 << 20
