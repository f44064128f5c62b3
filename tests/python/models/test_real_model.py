"""A real exported model: SmolLM2-135M-Instruct, as upstream's export_llm writes it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from executorch_mm import CapacityError, GenerationConfig, MultimodalModel, MultimodalRunner, make_token_input

pytestmark = pytest.mark.real_model
GREEDY = GenerationConfig(max_new_tokens=32)
QUESTION = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def folder(real_models: Path) -> Path:
    path = real_models / "smollm2-135m-instruct-8da4w"
    if not path.is_dir():
        pytest.skip(f"{path} does not exist")
    return path


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Iterator[MultimodalRunner]:
    with MultimodalRunner(folder / "model.pte", folder, num_threads=1) as runner:
        yield runner


@pytest.fixture
def smollm(loaded: MultimodalRunner) -> MultimodalRunner:
    loaded.reset()
    return loaded


def test_it_knows_the_capital_of_france(smollm: MultimodalRunner) -> None:
    assert "Paris" in smollm.generate_text(QUESTION, GREEDY)


def test_a_chat_is_the_prompt_that_the_template_writes(smollm: MultimodalRunner) -> None:
    system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    whole = smollm.generate_text(f"<|im_start|>system\n{system}<|im_end|>\n{QUESTION}", GREEDY)
    smollm.reset()
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    assert smollm.chat(messages, GREEDY).text == whole


def test_the_next_turn_of_a_chat_is_all_that_is_read(smollm: MultimodalRunner) -> None:
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    first = smollm.chat(messages, GREEDY)
    messages += [{"role": "assistant", "content": first.text}, {"role": "user", "content": "And of Italy?"}]
    # Not more: activations are quantised per call, so other chunks give slightly other numbers.
    second = smollm.chat(messages, GREEDY, max_new_tokens=10)
    smollm.reset()
    fresh = smollm.chat(messages, GREEDY, max_new_tokens=10)
    assert second.text == fresh.text
    assert second.stats.num_prompt_tokens == fresh.stats.num_prompt_tokens
    assert second.stats.num_cached_tokens > first.stats.num_prompt_tokens


def test_a_long_prompt_is_read_in_calls_of_256_tokens_and_more_changes_nothing(
    smollm: MultimodalRunner, folder: Path
) -> None:
    prompt = make_token_input([number * 53 % 3000 + 100 for number in range(700)])
    read: list[int] = []
    smollm.prefill(prompt, progress=lambda done, total, phase: read.append(done))
    answer = smollm.generate_text([], GREEDY)
    with MultimodalModel(folder / "model.pte", folder, num_threads=1, prefill_chunk=None) as model:
        whole = model.session().generate_text(prompt, GREEDY)
    assert read == [0, 256, 512, 700]
    assert answer == whole


def test_a_prompt_in_pieces_gives_the_answer_of_the_whole_one(smollm: MultimodalRunner) -> None:
    whole = smollm.generate_text(QUESTION, GREEDY)
    smollm.reset()
    head, tail = QUESTION.split("\n", 1)
    smollm.prefill(head + "\n")
    assert smollm.generate_text(tail, GREEDY) == whole


def test_a_prompt_longer_than_one_call_is_read_in_chunks(smollm: MultimodalRunner) -> None:
    assert smollm.contract.max_chunk == smollm.capacity - 1
    smollm.prefill(" red" * smollm.capacity)
    assert smollm.position == smollm.capacity
    smollm.reset()
    with pytest.raises(CapacityError):
        smollm.prefill(" red" * (smollm.capacity + 1))
    assert "Paris" in smollm.generate_text(QUESTION, GREEDY)


def test_greedy_decoding_is_top_k_of_one(smollm: MultimodalRunner) -> None:
    greedy = smollm.generate_text(QUESTION, GREEDY)
    smollm.reset()
    config = GenerationConfig(max_new_tokens=32, temperature=1.5, top_k=1, seed=3)
    assert smollm.generate_text(QUESTION, config) == greedy


def test_a_seed_repeats_with_every_filter(smollm: MultimodalRunner) -> None:
    config = GenerationConfig(
        max_new_tokens=32,
        temperature=1.2,
        top_k=200,
        top_p=0.95,
        min_p=0.01,
        typical_p=0.98,
        repetition_penalty=1.1,
        frequency_penalty=0.1,
        no_repeat_ngram_size=4,
        logprobs=2,
    )
    answers = []
    for seed in (7, 7, 8):
        smollm.reset()
        answers.append(smollm.generate_result(QUESTION, config, seed=seed))
    assert answers[0].token_ids == answers[1].token_ids != answers[2].token_ids
    assert answers[0].logprobs == answers[1].logprobs


def test_the_likeliest_token_is_the_greedy_one(smollm: MultimodalRunner) -> None:
    result = smollm.generate_result(QUESTION, GREEDY, logprobs=2)
    assert result.top_logprobs is not None
    assert tuple(top[0][0] for top in result.top_logprobs) == result.token_ids
    assert result.logprobs == tuple(top[0][1] for top in result.top_logprobs)


def test_a_saved_conversation_is_brought_back(smollm: MultimodalRunner) -> None:
    smollm.prefill(QUESTION)
    saved = smollm.save()
    answer = smollm.generate_text([], GREEDY)
    smollm.restore(saved)
    assert smollm.generate_text([], GREEDY) == answer


def test_a_long_conversation_comes_back_from_a_file(smollm: MultimodalRunner, tmp_path: Path) -> None:
    smollm.prefill(" ".join([QUESTION] * 20))
    smollm.save(tmp_path / "chat.emm")
    smollm.save(tmp_path / "small.emm", dtype="float16")
    expected = smollm.generate_result([], GREEDY, logprobs=2)
    for name in ("chat.emm", "small.emm"):
        smollm.reset()
        smollm.restore(tmp_path / name)
        got = smollm.generate_result([], GREEDY, logprobs=2)
        if name == "chat.emm":
            assert (got.token_ids, got.top_logprobs) == (expected.token_ids, expected.top_logprobs)
        assert got.token_ids[0] == expected.token_ids[0]  # whose logits are kept exactly


@pytest.mark.slow
def test_both_thread_modes_give_the_same_text(folder: Path, smollm: MultimodalRunner) -> None:
    """In a process of its own, because the pool's size is one for a process."""
    program = (
        "import sys; from executorch_mm import *; m, p = sys.argv[1:]\n"
        "r = MultimodalRunner(m + '/model.pte', m, num_threads=2)\n"
        "print(r.generate_text(p, GenerationConfig(max_new_tokens=32)), end='')"
    )
    command = [sys.executable, "-c", program, str(folder), QUESTION]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == smollm.generate_text(QUESTION, GREEDY)
    assert done.stderr == ""
