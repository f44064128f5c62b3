"""Caches of a model: nothing is read or encoded twice, and every answer is as without them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from executorch_mm import (
    CapacityError,
    ExecutorchMMError,
    InputError,
    MultimodalInput,
    MultimodalModel,
    MultimodalRunner,
    Session,
    make_audio_input,
    make_embedding_input,
    make_image_input,
    make_token_input,
)
from executorch_mm._engine import prefix_store
from executorch_mm.demo import make_scene, render
from number_tokenizer import NumberTokenizer

MODELS = Path(__file__).parents[2] / "models"
FLAT, RING, RECURRENT = "export_llm/llama.pte", "export_llm/gemma3_narrow.pte", "export_llm/lfm2.pte"
GREEDY: dict[str, Any] = {"temperature": 0.0, "ignore_eos": True}
TOKENS = [3 + (number * number) % 17 for number in range(40)]
IMAGES = [render(make_scene(seed=seed)) for seed in (7, 8, 9)]


def load(name: str = FLAT, **options: Any) -> MultimodalModel:
    return MultimodalModel(MODELS / name, NumberTokenizer(), num_threads=1, **options)


def load_runner(name: str = FLAT, **options: Any) -> MultimodalRunner:
    return MultimodalRunner(MODELS / name, NumberTokenizer(), num_threads=1, **options)


def answer(conversation: Session | MultimodalRunner, tokens: list[int], count: int = 4) -> tuple[int, ...]:
    inputs = make_token_input(tokens)
    return conversation.generate_result(inputs, max_new_tokens=count, **GREEDY).token_ids


def ask(conversation: Session | MultimodalRunner, image: Any, question: str, before: str = "") -> str:
    prompt = [f"<|user|>{before}", image, f"{question}<|end|><|assistant|>"]
    return conversation.generate_result(prompt, max_new_tokens=12, temperature=0.0).text


@pytest.mark.parametrize("name", [FLAT, RING, RECURRENT, "kvcache/flat.pte", "kvcache/ring.pte"])
def test_a_prompt_that_begins_as_another_sessions_is_read_from_where_they_differ(name: str) -> None:
    with load(name) as model, load_runner(name) as runner:
        prompts = [TOKENS[:32], [*TOKENS[:30], 4, 5, 6], TOKENS[:32], [*TOKENS[:32], 9, 9], TOKENS[:20]]
        reused = []
        for prompt in prompts:
            runner.reset()
            with model.session() as session:
                assert answer(session, prompt) == answer(runner, prompt)
                assert session.history == runner.history
                assert session.stats.num_prompt_tokens == runner.stats.num_prompt_tokens == len(prompt)
                reused.append(session.stats.num_cached_tokens)
        info = model.cache_info()
        assert info.reused_positions == sum(reused)
        assert info.prefix_hits == sum(count > 0 for count in reused)
        assert info.prefix_hits + info.prefix_misses == len(prompts)
        if model.contract.is_recurrent or model.contract.ring_rows:  # the ends of prompts, with logits
            assert reused == [0, 0, 32, 32, 0]
        else:  # two tokens are read, where others are left
            assert reused == [0, 30, 30, 32, 18]


@pytest.mark.parametrize("name", [FLAT, "optimum/llama.pte", "export_llm/llama_xnnpack_8da4w.pte"])
def test_a_cached_prompt_has_the_bits_of_one_that_is_read(name: str) -> None:
    with load(name) as model, load_runner(name) as runner:
        for length in range(18, 38):  # the last call of the one that is read has any number of tokens
            prompt = make_token_input((TOKENS * 3)[:length])
            runner.reset()
            runner.prefill(prompt)
            expected = runner.save()._state.logits
            for _ in range(2):
                with model.session() as session:
                    session.prefill(prompt)
                    np.testing.assert_array_equal(session.save()._state.logits, expected)
            assert session.stats.num_cached_tokens == length - 2


def test_a_ring_goes_back_as_far_after_a_hit_as_without() -> None:
    for done in (TOKENS[:30], TOKENS[:6]):  # beyond the ring, and not
        with load(RING) as model, load_runner(RING) as runner, pytest.MonkeyPatch.context() as patch:
            patch.setattr(prefix_store, "_WORTH", 1)
            with model.session() as session:
                session.prefill(make_token_input(done))
                session.rewind(session.position - 1)
                session.prefill(make_token_input([5]))
            with model.session() as session:
                for conversation in (session, runner):
                    conversation.prefill(make_token_input(TOKENS[:8]))
                    conversation.rewind(3)
                    assert conversation.history == TOKENS[:3]
                assert answer(session, [4]) == answer(runner, [4])


def test_an_answer_is_kept_too_and_a_session_goes_on_from_it() -> None:
    with load() as model, load_runner() as runner, model.session() as session:
        spoken = [*TOKENS[:20], *answer(session, TOKENS[:20], 6)]
        longer = [*spoken, 5, 6]
        with model.session() as other:
            assert answer(other, longer) == answer(runner, longer)
            assert other.stats.num_cached_tokens == len(spoken) - 1  # its last token was not read
        with model.session() as other:  # nothing but what was read
            assert answer(other, spoken[:25]) == answer_after_reset(runner, spoken[:25])
            assert other.stats.num_cached_tokens == 25 - 2
        # One that stands in the middle of the same conversation, too.
        with model.session() as third:
            third.prefill(make_token_input(TOKENS[:3]))
            assert answer(third, longer[3:]) == answer_after_reset(runner, longer)
            assert third.stats.num_cached_tokens == len(longer) - 2 - 3
            assert third.stats.num_prompt_tokens == len(longer) - 3
            assert third.history[: len(longer)] == longer


def answer_after_reset(runner: MultimodalRunner, tokens: list[int]) -> tuple[int, ...]:
    runner.reset()
    return answer(runner, tokens)


def test_a_prompt_that_is_not_read_to_its_end_leaves_the_session_as_it_was() -> None:
    with load() as model, model.session() as session:
        answer(session, TOKENS[:30])
        session.reset()
        session.prefill(make_token_input(TOKENS[:5]))
        before = session.history

        def stop(done: int, total: int, phase: str) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            session.prefill(make_token_input([*TOKENS[5:30], 9]), progress=stop)
        assert session.history == before
        result = session.generate_result(make_token_input(TOKENS[5:30]), timeout=1e-9, **GREEDY)
        assert result.finish_reason == "timeout"
        assert result.stats.num_cached_tokens == result.stats.num_prompt_tokens == 0
        assert session.history == before
        with pytest.raises(CapacityError) as cached:
            session.prefill(make_token_input(TOKENS[5:30] + [4] * model.contract.capacity))
        assert cached.value.needed == 25 + model.contract.capacity
        assert session.history == before
        with load_runner() as runner:
            assert answer(session, TOKENS[5:30]) == answer(runner, TOKENS[:30])
        assert session.stats.num_cached_tokens == 30 - 2 - 5

        # At its beginning, where nothing was before.
        session.reset()
        with pytest.raises(KeyboardInterrupt):
            session.prefill(make_token_input([*TOKENS[:30], 9]), progress=stop)
        assert session.history == []
        with pytest.raises(CapacityError, match="seq_len=31"):
            session.generate_result(make_token_input([*TOKENS[:30], 9]), seq_len=31)
        assert session.history == []


def test_what_was_not_used_for_longest_goes_first_and_the_budget_is_kept() -> None:
    with load() as probe, probe.session() as session:
        session.prefill(make_token_input(TOKENS[:20]))
        one = probe.cache_info().prefix_bytes
    with load(prefix_cache_bytes=int(3.5 * one)) as model:
        for first in (3, 4, 5, 6):
            with model.session() as session:
                session.prefill(make_token_input([first, *TOKENS[:19]]))
            if first == 4:
                with model.session() as session:  # now 4 is older
                    session.prefill(make_token_input([3, *TOKENS[:19]]))
                    assert session.stats.num_cached_tokens == 18
        info = model.cache_info()
        assert info.prefix_entries == 3
        assert 2 * one < info.prefix_bytes <= info.prefix_limit == int(3.5 * one)
        reused = []
        for first in (3, 4):
            with model.session() as session:
                session.prefill(make_token_input([first, *TOKENS[:19]]))
                reused.append(session.stats.num_cached_tokens)
        assert reused == [18, 0]
    with load(prefix_cache_bytes=100) as model, model.session() as session:
        session.prefill(make_token_input(TOKENS[:20]))
        assert model.cache_info().prefix_entries == 0


def test_one_conversation_is_kept_once_however_long_it_grows() -> None:
    with load() as model, model.session() as session:
        sizes = []
        for number in range(6):
            session.prefill(make_token_input(TOKENS[: 4 + number]))
            info = model.cache_info()
            assert info.prefix_entries == 1
            sizes.append(info.prefix_bytes)
        assert sizes[-1] < 3 * sizes[0]


def test_clearing_and_closing_leave_nothing() -> None:
    model = load()
    with model.session() as session:
        session.prefill(make_token_input(TOKENS[:20]))
        assert model.cache_info().prefix_bytes > 0
        model.clear_cache()
        assert model.cache_info()[:2] == (0, 0)
        answer(session, [4], 2)  # goes on
    loaded = model._loaded
    assert loaded.prefixes.counts.num_entries == 1
    model.close()
    assert loaded.prefixes.counts[:2] == (0, 0)
    for call in (model.cache_info, model.clear_cache):
        with pytest.raises(ExecutorchMMError, match="closed"):
            call()


def test_the_bytes_that_are_counted_are_those_that_are_taken() -> None:
    def file_bytes() -> int:
        """Of the files in memory that conversations lie in."""
        taken = 0
        for file in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                if "executorch_mm state" in str(file.readlink()):
                    taken += file.stat().st_blocks * 512
        return taken

    if not Path("/proc/self/fd").exists():
        pytest.skip("platform: no /proc")
    gc.collect()
    before = file_bytes()
    with load("optimum/llama.pte") as model:
        for number in range(100):
            with model.session() as session:
                session.prefill(make_token_input([3 + number % 17, 3 + number // 17, *TOKENS[:20]]))
                if number % 3 == 0:
                    answer(session, TOKENS[:10])
        taken = file_bytes() - before
        info = model.cache_info()
        assert info.prefix_entries == 100
        assert taken <= info.prefix_bytes < 1.5 * taken
        model.clear_cache()
        assert file_bytes() == before


def test_a_cache_of_0_bytes_keeps_nothing_and_a_runner_has_none_unless_told() -> None:
    with load(prefix_cache_bytes=0) as model, load_runner() as runner:
        for _ in range(2):
            with model.session() as session:
                answer(session, TOKENS[:20])
                assert session.stats.num_cached_tokens == 0
            answer_after_reset(runner, TOKENS[:20])
            assert runner.stats.num_cached_tokens == 0
        assert model.cache_info()[:5] == runner.cache_info()[:5] == (0, 0, 0, 0, 0)
    with load_runner(prefix_cache_bytes=1 << 20) as runner:
        first = answer(runner, TOKENS[:20])
        assert answer_after_reset(runner, TOKENS[:20]) == first
        assert runner.stats.num_cached_tokens == 18
        fork = runner.fork()
    assert answer(fork, [5])
    fork.close()


@pytest.mark.parametrize("name", ["prefix_cache_bytes", "encoder_cache_bytes"])
@pytest.mark.parametrize("given", [-1, 2**62, True, "1 MB", None, 1.5])
def test_bytes_that_are_none_are_refused(name: str, given: object) -> None:
    with pytest.raises(InputError, match=f"{name}: expected a number of bytes"):
        load(**{name: given})


def test_sessions_of_a_model_in_a_process_of_its_own_go_on_from_what_others_have_read() -> None:
    with load_runner() as runner:
        expected = answer(runner, TOKENS[:24])
    with load(isolate=True, prefix_cache_bytes=1 << 16) as model:
        for reused in (0, 22, 22):
            with model.session() as session:
                assert answer(session, TOKENS[:24]) == expected
                assert session.stats.num_cached_tokens == reused
        assert 0 < model.cache_info().prefix_bytes <= 1 << 16
        for number in range(20):  # what was not used for longest goes, there too
            with model.session() as session:
                answer(session, [3 + number, *TOKENS[:20]])
        info = model.cache_info()
        assert 0 < info.prefix_entries < 20
        assert info.prefix_bytes <= 1 << 16
        model.clear_cache()
        assert model.cache_info()[:2] == (0, 0)


@pytest.mark.parametrize("name", ["aya_vision", "gpt2", "llama", "llava", "qwen3", "voxtral"])
def test_sessions_over_an_export_folder_go_on_from_what_others_have_read(name: str) -> None:
    folder = MODELS / "export_folders" / name
    with MultimodalRunner(folder, NumberTokenizer()) as runner:
        expected = answer(runner, TOKENS[:24])
    with MultimodalModel(folder, NumberTokenizer()) as model:
        for reused in (0, 22, 22):
            with model.session() as session:
                assert answer(session, TOKENS[:24]) == expected
                assert session.stats.num_cached_tokens == reused


def lora(name: str) -> dict[str, Any]:
    folder = MODELS / "lora"
    return {"adapter": folder / f"{name}.ptd", "model_path": folder / f"{name}.pte"}


def first_lora(kind: type[Any], **options: Any) -> Any:
    data = [MODELS / "lora" / f"{name}.ptd" for name in ("base", "first")]
    return kind(MODELS / "lora/first.pte", NumberTokenizer(), data_path=data, num_threads=1, **options)


def test_sessions_never_go_on_from_other_weights_or_another_method() -> None:
    with first_lora(MultimodalModel) as model:
        model.load_adapter(**lora("second"))
        found: dict[str | None, tuple[int, ...]] = {}
        for adapter, reused in ((None, 0), ("second", 0), (None, 18), ("second", 18)):
            with model.session(adapter=adapter) as session:
                tokens = answer(session, TOKENS[:20])
                assert found.setdefault(adapter, tokens) == tokens
                assert session.stats.num_cached_tokens == reused
        assert found[None] != found["second"]
    with MultimodalModel(MODELS / "lora/methods.pte", NumberTokenizer(), num_threads=1) as model:
        for method, reused in (("base_forward", 0), ("lora_forward", 0), ("base_forward", 18)):
            with model.session(method=method) as session:
                answer(session, TOKENS[:20])
                assert session.stats.num_cached_tokens == reused


@pytest.mark.parametrize("known_by", ["content", "id"])
def test_the_same_content_is_known_in_any_file_and_nothing_else_is(known_by: str) -> None:
    def in_file(image: Image.Image, kind: str) -> bytes:
        file = io.BytesIO()
        image.save(file, kind)
        return file.getvalue()

    def given_as(image: Image.Image, kind: str, name: str | None) -> MultimodalInput:
        return make_image_input(in_file(image, kind), id=name)

    name = "scene" if known_by == "id" else None
    with MultimodalModel.demo(num_threads=1) as model, MultimodalRunner.demo(num_threads=1) as runner:
        question = "how many shapes are there?"
        first = ask(runner, given_as(IMAGES[0], "PNG", None), question)
        with model.session() as session:
            assert ask(session, given_as(IMAGES[0], "PNG", name), question) == first
            assert session.stats.num_cached_tokens == session.stats.num_encoder_hits == 0
            num_positions = session.stats.num_prompt_tokens
        with model.session() as session:  # the same pixels in another file, another question
            runner.reset()
            other = ask(runner, given_as(IMAGES[0], "PNG", None), "what colour is the circle?")
            assert ask(session, given_as(IMAGES[0], "BMP", name), "what colour is the circle?") == other
            assert num_positions - 10 < session.stats.num_cached_tokens < num_positions
            assert session.stats.encode_image_ns == 0
        with model.session() as session:  # other pixels; an id is what the caller says it is
            runner.reset()
            text = ask(session, given_as(IMAGES[1], "PNG", name), question)
            assert text == (first if name else ask(runner, given_as(IMAGES[1], "PNG", None), question))
            assert session.stats.num_cached_tokens == (num_positions - 2 if name else 0)
        with model.session() as session:  # names and content are never taken for each other
            ask(session, given_as(IMAGES[0], "PNG", None if name else "scene"), question)
            assert session.stats.num_cached_tokens == session.stats.num_encoder_hits == 0


def test_an_image_is_encoded_once_whatever_stands_before_it() -> None:
    with MultimodalModel.demo(num_threads=1) as model, MultimodalRunner.demo(num_threads=1) as runner:
        for before in ("", "look: ", "and here "):
            runner.reset()
            with model.session() as session:
                found = ask(session, IMAGES[0], "how many shapes are there?", before)
                assert found == ask(runner, IMAGES[0], "how many shapes are there?", before)
                assert session.stats.num_encoder_hits == (1 if before else 0)
        info = model.cache_info()
        assert (info.encoder_entries, info.encoder_hits, info.encoder_misses) == (1, 2, 1)
        assert 0 < info.encoder_bytes < info.encoder_limit == 64 << 20
        model.clear_cache()
        assert model.cache_info().encoder_bytes == 0
    with MultimodalRunner.demo(num_threads=1) as runner:
        assert runner.cache_info().encoder_limit == 0
        for _ in range(2):
            runner.reset()
            ask(runner, IMAGES[0], "how many?")
            assert runner.stats.num_encoder_hits == 0


def test_an_isolated_model_keeps_what_its_encoders_made(demo_folder: Path) -> None:
    options: dict[str, Any] = {"isolate": True, "encoder_cache_bytes": 1 << 20}
    with MultimodalRunner(demo_folder / "model.pte", demo_folder, **options) as runner:
        texts = []
        for _ in range(2):
            runner.reset()
            texts.append(ask(runner, IMAGES[0], "how many shapes are there?"))
        assert texts[0] == texts[1]
        assert runner.stats.num_encoder_hits == 1


@pytest.mark.parametrize("given", ["", 7, b"x"])
def test_an_id_that_is_no_name_is_refused(given: Any) -> None:
    for make in (
        lambda: make_image_input(IMAGES[0], id=given),
        lambda: make_audio_input(np.zeros((1, 8, 10), np.float32), id=given),
        lambda: make_embedding_input(np.zeros((2, 4), np.float32), id=given),
    ):
        with pytest.raises(InputError, match="id: expected a str that is not empty, or None"):
            make()


@pytest.fixture(scope="module")
def demo() -> Iterator[tuple[MultimodalModel, MultimodalRunner]]:
    with MultimodalModel.demo(num_threads=1) as model, MultimodalRunner.demo(num_threads=1) as runner:
        yield model, runner
        assert model.cache_info().prefix_hits > 0
        assert model.cache_info().encoder_hits > 0


PARTS = st.one_of(st.sampled_from(["<|user|>", "how many", "what", "<|end|>"]), st.integers(0, 2))
STEPS = st.one_of(
    st.tuples(st.just("read"), st.lists(PARTS, min_size=1, max_size=4)),
    st.tuples(st.just("answer"), st.just([])),
    st.tuples(st.just("rewind"), st.just([])),
    st.tuples(st.just("again"), st.lists(PARTS, min_size=1, max_size=2)),
    st.tuples(st.sampled_from(["new", "fork"]), st.just([])),
)


def do(conversation: Any, what: str, parts: list[Any]) -> tuple[int, ...] | None:
    prompt = [make_image_input(IMAGES[part]) if isinstance(part, int) else part for part in parts]
    with contextlib.suppress(ExecutorchMMError):
        if what == "read":
            conversation.prefill(prompt)
        elif what == "answer":
            return tuple(conversation.generate_result([], max_new_tokens=3, **GREEDY).token_ids)
        elif what == "rewind":
            conversation.rewind(conversation.position * 2 // 3)
        elif what == "again":
            saved = conversation.save()
            conversation.prefill(prompt)
            conversation.restore(saved)
    return None


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 2), STEPS), min_size=4, max_size=10))
def test_prompts_with_images_are_answered_as_by_a_fresh_runner(
    demo: tuple[MultimodalModel, MultimodalRunner], steps: list[tuple[int, tuple[str, list[Any]]]]
) -> None:
    model, runner = demo
    patch = pytest.MonkeyPatch()
    patch.setattr(prefix_store, "_WORTH", 1)
    sessions: list[tuple[Session, list[tuple[str, list[Any]]]]] = [(model.session(), [])]
    answers = []
    try:
        for index, (what, parts) in steps:
            session, done = sessions[index % len(sessions)]
            if what == "new" or what == "fork":
                if len(sessions) < 3:
                    sessions.append((model.session(), []) if what == "new" else (session.fork(), [*done]))
                continue
            done.append((what, parts))
            found = do(session, what, parts)
            if what == "answer":
                answers.append(([*done], found, session.history))
    finally:
        patch.undo()
        for session, _ in sessions:
            session.close()
    for done, found, history in answers[-2:]:
        runner.reset()
        for what, parts in done:
            expected = do(runner, what, parts)
        assert found == expected
        assert history == runner.history


def test_a_chat_in_a_new_session_goes_on_from_one_in_another() -> None:
    messages: list[Any] = [
        {
            "role": "user",
            "content": [{"type": "image", "image": IMAGES[0]}, {"type": "text", "text": "how many shapes?"}],
        }
    ]
    with MultimodalModel.demo(num_threads=1) as model, MultimodalRunner.demo(num_threads=1) as runner:
        with model.session() as session:
            reply = session.chat(messages, max_new_tokens=8, temperature=0.0).text
        assert runner.chat(messages, max_new_tokens=8, temperature=0.0).text == reply
        messages += [{"role": "assistant", "content": reply}, {"role": "user", "content": "and circles?"}]
        with model.session() as session:
            found = session.chat(messages, max_new_tokens=8, temperature=0.0).text
            assert session.stats.num_cached_tokens > session.stats.num_prompt_tokens / 2
            assert session.stats.encode_image_ns == 0
            runner.reset()
            assert runner.chat(messages, max_new_tokens=8, temperature=0.0).text == found
            assert runner.stats.num_prompt_tokens == session.stats.num_prompt_tokens


def test_threads_and_tasks_that_ask_alike_are_all_answered_right() -> None:
    with load() as model, load_runner() as runner:
        prompts = [[*TOKENS[:24], 3 + number] for number in range(4)]
        expected = [answer_after_reset(runner, prompt) for prompt in prompts]
        wrong: list[int] = []

        def serve(number: int) -> None:
            for turn in range(8):
                which = (number + turn) % 4
                with model.session() as session:
                    if answer(session, prompts[which]) != expected[which]:
                        wrong.append(which)
                if number == 0 and turn % 3 == 2:
                    model.clear_cache()

        async def task(number: int) -> None:
            with model.session() as session:
                inputs = make_token_input(prompts[number])
                result = await session.agenerate_result(inputs, max_new_tokens=4, **GREEDY)
                if result.token_ids != expected[number]:
                    wrong.append(number)

        async def tasks() -> None:
            await asyncio.gather(*(task(number) for number in range(4)))

        threads = [threading.Thread(target=serve, args=[number]) for number in range(6)]
        for thread in threads:
            thread.start()
        asyncio.run(tasks())
        for thread in threads:
            thread.join()
        assert wrong == []
        assert model.cache_info().prefix_hits > 10


def test_an_adapter_that_is_deleted_takes_what_it_has_read_with_it() -> None:
    with first_lora(MultimodalRunner, prefix_cache_bytes=1 << 24) as runner:
        base = answer(runner, TOKENS[:20])
        runner.load_adapter(**lora("second"))
        runner.reset()
        runner.set_adapter("second")
        second = answer(runner, TOKENS[:20])
        assert runner.stats.num_cached_tokens == 0
        assert runner.cache_info().prefix_entries == 2
        # What two weights have read is nobody's, and a file does not say whose it is.
        saved = runner.save()
        runner.set_adapter(None)
        answer(runner, [5])
        runner.reset()
        runner.restore(saved)
        answer(runner, [5])
        assert runner.cache_info().prefix_entries == 2
        runner.reset()
        runner.delete_adapter("second")
        assert runner.cache_info().prefix_entries == 1
        runner.load_adapter(**lora("second"))  # as if it were another of the same name
        runner.set_adapter("second")
        assert answer(runner, TOKENS[:20]) == second != base
        assert runner.stats.num_cached_tokens == 0
