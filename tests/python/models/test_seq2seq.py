"""Seq2SeqRunner on a tiny random T5, as transformers and optimum-executorch export it."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from executorch_mm import (
    BusyError,
    CapacityError,
    ContractError,
    ExecutorchMMError,
    InputError,
    MultimodalModel,
    MultimodalRunner,
    Seq2SeqRunner,
    SpeechRunner,
    inspect_model,
    make_image_input,
    make_token_input,
)
from number_tokenizer import NumberTokenizer

FOLDER = Path(__file__).resolve().parents[2] / "models" / "seq2seq"
(MODEL,) = json.loads((FOLDER / "manifest.json").read_text())["models"]
REQUESTS: list[dict[str, Any]] = MODEL["expected"]["requests"]
TEXTS = [request for request in REQUESTS if "text" in request]
LIMIT: int = MODEL["expected"]["max_new_tokens"]
FILES = ("t5.pte", "tokenizer.json", "tokenizer_config.json")


@pytest.fixture(scope="module")
def runner() -> Iterator[Seq2SeqRunner]:
    with Seq2SeqRunner(FOLDER / "t5.pte") as opened:
        yield opened


@pytest.mark.parametrize("request_", TEXTS, ids=range(len(TEXTS)))
def test_a_text_is_answered_as_by_transformers_generate(
    runner: Seq2SeqRunner, request_: dict[str, Any]
) -> None:
    for _ in range(2):  # nothing is remembered
        result = runner.generate_result(request_["text"], max_new_tokens=LIMIT)
        assert [*result.token_ids] == request_["tokens"]
        assert result.text == request_["answer"]
        assert result.finish_reason == ("stop" if 1 in request_["tokens"] else "length")
    assert runner.stats.num_prompt_tokens == len(request_["source"]) + 1
    assert runner.stats.num_generated_tokens == len(request_["tokens"])


@pytest.mark.parametrize("request_", REQUESTS, ids=range(len(REQUESTS)))
def test_ids_are_taken_as_they_are_up_to_the_encoders_bound(
    runner: Seq2SeqRunner, request_: dict[str, Any]
) -> None:
    source = make_token_input(request_["source"])
    assert [*runner.generate_result(source, max_new_tokens=LIMIT).token_ids] == request_["tokens"]
    assert max(len(request["source"]) for request in REQUESTS) == runner.max_source_length == 40


def test_streams_and_tasks_give_the_same_text(runner: Seq2SeqRunner) -> None:
    text, answer = TEXTS[2]["text"], TEXTS[2]["answer"]
    stream = runner.stream(text, max_new_tokens=LIMIT)
    pieces = [*stream]
    assert "".join(pieces) == answer
    assert len(pieces) > 2
    assert stream.result is not None
    assert [*stream.result.token_ids] == TEXTS[2]["tokens"]
    assert asyncio.run(runner.agenerate_text(text, max_new_tokens=LIMIT)) == answer
    heard: list[str] = []
    phases: list[str] = []
    runner.generate(
        text, token_callback=heard.append, progress=lambda *at: phases.append(at[2]), max_new_tokens=LIMIT
    )
    assert "".join(heard) == answer
    assert phases == ["encode_text", "prefill", "prefill"]


def test_an_answer_ends_with_the_decoders_context(runner: Seq2SeqRunner) -> None:
    result = runner.generate_result(TEXTS[1]["text"], ignore_eos=True)
    assert len(result.token_ids) == 24  # 23 positions behind the one it begins with, and one not read
    assert [*result.token_ids[:LIMIT]] == TEXTS[1]["tokens"]


def test_options_of_generation_hold(runner: Seq2SeqRunner) -> None:
    text = TEXTS[0]["text"]
    assert runner.generate_text(text, stop="stop", max_new_tokens=LIMIT) == "k "
    assert runner.generate_result(text, stop_token_ids=[14]).token_ids == (30, 14)
    several = runner.generate_result(text, num_return_sequences=2, temperature=1.0, seed=3, max_new_tokens=4)
    alone = runner.generate_result(text, temperature=1.0, seed=4, max_new_tokens=4)
    assert several.alternatives[0].token_ids == alone.token_ids  # whose encoder was run again
    runner.warmup()
    assert runner.generate_text(text, max_new_tokens=LIMIT) == TEXTS[0]["answer"]


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([], "expected one text, or one input of token ids, got nothing"),
        (["stop", "here"], "got text, text"),
        (make_image_input(np.zeros((4, 4, 3), np.uint8)), "got image"),
        (make_token_input([52]), r"token ids in 0..51, got 52"),
    ],
)
def test_what_is_no_text_is_refused(runner: Seq2SeqRunner, prompt: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        runner.generate_text(prompt)
    assert runner.generate_text(TEXTS[0]["text"]) == TEXTS[0]["answer"]


def test_a_text_longer_than_the_encoder_takes_is_refused_with_both_lengths(runner: Seq2SeqRunner) -> None:
    with pytest.raises(CapacityError, match="the text has 41 tokens, encoder takes at most 40") as error:
        runner.generate_text(make_token_input([5] * 41))
    assert (error.value.needed, error.value.available) == (41, 40)
    with pytest.raises(InputError, match="num_bos"):
        runner.generate_text("stop", num_bos=1)


def test_one_request_runs_at_a_time_and_may_be_stopped(runner: Seq2SeqRunner) -> None:
    stream = runner.stream(TEXTS[1]["text"], ignore_eos=True)
    next(stream)
    with pytest.raises(BusyError):
        runner.generate_text("stop")
    runner.stop()
    assert [*stream] == []
    assert runner.stats.finish_reason == "cancelled"


def test_each_runner_names_the_one_that_plays_the_file(demo_folder: Path) -> None:
    for kind in (MultimodalRunner, MultimodalModel):
        with pytest.raises(ContractError, match="use Seq2SeqRunner"):
            kind(FOLDER / "t5.pte")
    with pytest.raises(ContractError, match="try Seq2SeqRunner"):
        SpeechRunner(FOLDER / "t5.pte")
    with pytest.raises(ContractError, match="try MultimodalRunner"):
        Seq2SeqRunner(demo_folder / "model.pte")
    with pytest.raises(ContractError, match="use SpeechRunner"):
        Seq2SeqRunner(FOLDER.parent / "speech" / "kv.pte")


def test_files_beside_the_model_say_what_the_decoder_begins_with(tmp_path: Path) -> None:
    for name in FILES:
        shutil.copy(FOLDER / name, tmp_path / name)
    answers = {}
    for name, content in {
        "program": None,
        "config": {"decoder_start_token_id": 5},
        "forced": {"decoder_start_token_id": 0, "forced_bos_token_id": 30},
    }.items():
        if content is not None:
            (tmp_path / "config.json").write_text(json.dumps(content))
        with Seq2SeqRunner.from_pretrained(tmp_path) as runner:
            answers[name] = [*runner.generate_result(TEXTS[0]["text"], max_new_tokens=LIMIT).token_ids]
    assert answers["program"] == TEXTS[0]["tokens"]
    assert answers["forced"] == TEXTS[0]["tokens"][1:]  # whose first token it is
    assert answers["config"] != answers["program"]
    (tmp_path / "generation_config.json").write_text(json.dumps({"decoder_start_token_id": 52}))
    with pytest.raises(ContractError, match="decoder_start_token_id: expected 0 to 51, got 52"):
        Seq2SeqRunner(tmp_path / "t5.pte")
    (tmp_path / "generation_config.json").write_text("[]")
    with pytest.raises(ExecutorchMMError, match=r"generation_config\.json"):
        Seq2SeqRunner(tmp_path / "t5.pte")


def test_a_tokenizer_without_a_template_gets_its_end_token_added() -> None:
    class Numbers(NumberTokenizer):
        """Ends a text with 1, as T5's SentencePiece model is used."""

        def encode(self, text: str, *, add_bos: bool = False, add_eos: bool = False) -> list[int]:
            return [*super().encode(text), *([1] if add_eos else [])]

    with Seq2SeqRunner(FOLDER / "t5.pte", Numbers()) as runner:
        text = " ".join(map(str, TEXTS[0]["source"][:-1]))
        assert [*runner.generate_result(text, max_new_tokens=LIMIT).token_ids] == TEXTS[0]["tokens"]


@pytest.mark.skipif(sys.platform != "linux", reason="models in a process of their own are for Linux")
def test_a_model_in_a_process_of_its_own_answers_the_same() -> None:
    with Seq2SeqRunner(FOLDER / "t5.pte", isolate=True) as runner:
        for request in TEXTS:
            result = runner.generate_result(request["text"], max_new_tokens=LIMIT)
            assert [*result.token_ids] == request["tokens"]


def test_inspect_knows_it_and_a_closed_runner_says_so() -> None:
    report = inspect_model(FOLDER / "t5.pte")
    assert report.kind == "seq2seq"
    assert (report.max_chunk, report.capacity, report.can_rewind) == (1, 24, True)
    assert [method.name for method in report.methods] == ["encoder", "text_decoder"]
    runner = Seq2SeqRunner(FOLDER / "t5.pte")
    assert repr(runner) == "<Seq2SeqRunner: t5.pte (0.2 MB), text to text, 1 thread>"
    runner.close()
    with pytest.raises(ExecutorchMMError, match="closed"):
        runner.generate_text("stop")
