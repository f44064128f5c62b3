"""What a request is said to have cost."""

from __future__ import annotations

import dataclasses
import json
import resource
import sys
import time

import numpy as np
import pytest

from executorch_mm import GenerationConfig, MultimodalRunner, Stats, make_token_input
from executorch_mm.demo import make_scene, render

IMAGE = render(make_scene(seed=950_000_007))
PROMPT = ["<|user|>", IMAGE, "Describe this picture.<|end|><|assistant|>"]
TEN = GenerationConfig(max_new_tokens=10, ignore_eos=True)


def test_times_lie_within_each_other(runner: MultimodalRunner) -> None:
    start = time.perf_counter()
    runner.generate_text(PROMPT, TEN)
    elapsed = time.perf_counter() - start
    stats = runner.stats
    assert stats.prepare_seconds > 0
    assert 0 < stats.encode_image_seconds == stats.encode_seconds
    assert stats.encode_audio_seconds == 0
    read = stats.prompt_read_ns * 1e-9
    assert stats.prepare_seconds + stats.encode_seconds + stats.prefill_seconds <= read
    assert read <= stats.time_to_first_token <= stats.total_seconds <= elapsed
    assert stats.decode_seconds + stats.sample_seconds < stats.total_seconds
    assert stats.token_times_ns[0] >= stats.first_token_ns


def test_counts_are_those_of_this_request(runner: MultimodalRunner) -> None:
    runner.generate_text(PROMPT, TEN)
    first = runner.stats
    runner.generate_text("red", TEN)
    second = runner.stats
    assert len(first.token_times_ns) == first.num_generated_tokens == 10
    assert first.num_decode_steps == 9
    # The token that ended the first answer is read with the second prompt.
    assert second.num_prompt_tokens == len(runner.tokenizer.encode("red")) + 1
    assert second.encode_seconds == 0
    assert second.start_ns > first.start_ns


def test_gaps_between_tokens_are_those_of_their_times() -> None:
    gaps = [*range(1, 100), 1000]
    times = tuple(int(t) * 1_000_000 for t in np.cumsum([5, *gaps]))
    stats = Stats(token_times_ns=times)
    assert stats.inter_token_p50 == pytest.approx(0.050)
    assert stats.inter_token_p95 == pytest.approx(0.095)
    assert stats.inter_token_max == pytest.approx(1.0)
    for times in ((), (5,)):
        assert Stats(token_times_ns=times).inter_token_max == 0


def test_rates_are_counts_by_time() -> None:
    stats = Stats(
        num_prompt_tokens=50,
        num_cached_tokens=20,
        num_decode_steps=9,
        encode_image_ns=100_000_000,
        encode_audio_ns=50_000_000,
        prefill_ns=150_000_000,
        decode_ns=80_000_000,
        sample_ns=10_000_000,
    )
    assert stats.tokens_per_second == pytest.approx(100)
    assert stats.prefill_tokens_per_second == pytest.approx(100)
    assert stats.encode_seconds == pytest.approx(0.15)
    assert Stats().tokens_per_second == Stats().prefill_tokens_per_second == 0


def test_peak_memory_is_the_process_s(runner: MultimodalRunner) -> None:
    runner.generate_text("red", TEN)
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    assert 10 << 20 < runner.stats.peak_memory_bytes <= peak


def test_stats_are_ready_for_a_log(runner: MultimodalRunner) -> None:
    runner.generate_text(PROMPT, TEN)
    logged = json.loads(runner.stats.to_json())
    assert logged == runner.stats.to_dict()
    assert logged["finish_reason"] == "length"
    assert logged["inter_token_p95"] == runner.stats.inter_token_p95 > 0
    shown = repr(runner.stats)
    assert shown.startswith("<Stats: prompt: ")
    assert "answer: 10 tokens" in shown
    assert "\n" not in shown


def test_one_token_is_one_token_and_has_no_rate(runner: MultimodalRunner) -> None:
    result = runner.generate_result(make_token_input([5]), max_new_tokens=1)

    assert "prompt: 1 token, " in str(result.stats)
    assert "answer: 1 token; finish reason: length" in str(result.stats)


def test_seconds_have_no_digits_that_nobody_measured() -> None:
    # numpy and Python print the shortest decimal that reads back: 109_460_000 ns are 0.10946 s.
    stats = Stats(first_token_ns=109_460_000, total_ns=1_100_000_003, token_times_ns=(0, 109_460_000))
    assert repr(stats.time_to_first_token) == "0.10946"
    assert repr(stats.total_seconds) == "1.100000003"
    assert repr(stats.inter_token_max) == "0.10946"


def test_a_result_shows_itself(runner: MultimodalRunner) -> None:
    result = runner.generate_result("<|user|>how many?<|end|><|assistant|>", max_new_tokens=8)

    assert str(result) == result.text
    assert repr(result).startswith(f"<GenerationResult: {result.text!r}, ")
    assert f"finish reason: {result.finish_reason}>" in repr(result)
    html = dataclasses.replace(result, text="a <b> & c")._repr_html_()
    assert "a &lt;b&gt; &amp; c" in html
    assert f"<td>{result.finish_reason}</td>" in html
    assert f"<td>{result.stats.num_prompt_tokens} + {len(result.token_ids)}</td>" in html
    cached = dataclasses.replace(result, stats=Stats(num_prompt_tokens=9, num_cached_tokens=4))
    assert f"<td>9 (4 cached) + {len(result.token_ids)}</td>" in cached._repr_html_()


def test_an_answer_without_tokens_has_no_first_one(runner: MultimodalRunner) -> None:
    result = runner.generate_result("how many", max_new_tokens=0)
    assert "answer: 0 tokens; finish reason" in str(result.stats)
    assert "first token" not in str(result.stats) + result._repr_html_()


def test_a_stream_shows_its_result_when_it_is_over(runner: MultimodalRunner) -> None:
    stream = runner.stream("how many", max_new_tokens=2)
    assert repr(stream) == "<Stream: not over>"
    for _ in stream:
        pass
    assert repr(stream) == f"<Stream: {stream.result!r}>"
    assert repr(runner.astream("how many")) == "<AsyncStream: not over>"


def test_a_result_is_json(runner: MultimodalRunner) -> None:
    plain = runner.generate_result("how many", max_new_tokens=2)
    assert json.loads(plain.to_json()) == {
        "text": plain.text,
        "finish_reason": "length",
        "stopped_by": None,
        "token_ids": [*plain.token_ids],
        "stats": json.loads(plain.stats.to_json()),
        "alternatives": [],
    }
    options = GenerationConfig(max_new_tokens=2, logprobs=1, temperature=1.0, num_return_sequences=2)
    several = runner.generate_result("how many", options)
    content = json.loads(several.to_json())
    assert content["logprobs"] == list(several.logprobs or ())
    assert content["top_logprobs"] == [[[*pair] for pair in top] for top in several.top_logprobs or ()]
    assert content["alternatives"][0]["text"] == several.alternatives[0].text


def test_a_snapshot_says_how_large_it_is(runner: MultimodalRunner) -> None:
    runner.prefill("how many")
    small = runner.save()
    runner.prefill(" red circles are there and how many blue squares")
    large = runner.save()

    # Each position adds rows of the flat caches and one token id of 8 bytes.
    assert small.nbytes > 8 * small.position
    assert large.nbytes - small.nbytes > 8 * (large.position - small.position) > 0
    assert repr(large) == f"<Snapshot: {large.position} positions, {large.nbytes:,} bytes>"
