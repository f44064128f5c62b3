"""The distribution that options leave: against transformers' own processors and against numpy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from executorch_mm import ExecutionError, GenerationConfig, InputError
from executorch_mm.config import GenerationOptions
from executorch_mm.sampling import Sampler

Row = NDArray[np.float64]

DATA = Path(__file__).parents[2] / "data" / "sampling"
RECORDED = json.loads((DATA / "sampling_transformers.json").read_text(encoding="utf-8"))
MARGIN = 2e-5


class AmbiguousError(Exception):
    """Float32 may cut this distribution at another place than float64."""


@pytest.mark.parametrize("case", RECORDED["cases"], ids=lambda case: json.dumps(case["options"]))
def test_the_distribution_is_that_of_transformers(case: dict) -> None:
    options = {"temperature": 1.0, "stop_token_ids": RECORDED["eos_ids"], **case["options"]}
    bias = {int(token): value for token, value in options.pop("logit_bias", {}).items()}
    sampler = Sampler(GenerationConfig(logit_bias=bias, **options))
    found = sampler.probabilities(np.array(case["logits"], np.float32), case["history"])
    np.testing.assert_allclose(found, case["probabilities"], atol=2e-6)


# Independent reference: float64, sorts, loops.


def edited(row: Row, config: GenerationConfig, history: list[int], answer: list[int]) -> Row:
    row = row.copy()
    for token, bias in config.logit_bias.items():
        row[token] += bias
    for token in set(history):
        row[token] *= config.repetition_penalty if row[token] < 0 else 1 / config.repetition_penalty
    for token in set(answer):
        row[token] -= config.frequency_penalty * answer.count(token) + config.presence_penalty
    n = config.no_repeat_ngram_size
    grams = [tuple(history[i : i + n]) for i in range(len(history) - n + 1)] if n else []
    for token in range(len(row)):
        if n and (*history[len(history) - n + 1 :], token) in grams:
            row[token] = -np.inf
    if len(answer) < config.min_new_tokens:
        row[list(config.stop_token_ids)] = -np.inf
    row[list(config.suppress_tokens)] = -np.inf
    return row


def softmax(row: Row) -> Row:
    weights = np.exp(row - row.max())
    return weights / weights.sum()


def keep(p: Row, order: NDArray[np.intp], count: int) -> Row:
    kept = np.zeros_like(p)
    kept[order[:count]] = p[order[:count]]
    return kept / kept.sum()


def refuse_nearer_than_margin(distances: Row) -> None:
    if np.abs(distances).min(initial=np.inf) < MARGIN:
        raise AmbiguousError


def count_to_reach(p: Row, order: NDArray[np.intp], mass: float) -> int:
    reached = np.cumsum(p[order])
    refuse_nearer_than_margin(reached - mass)
    return int(np.searchsorted(reached, mass)) + 1


def filtered(row: Row, config: GenerationConfig) -> Row:
    if config.temperature == 0:
        return np.eye(len(row))[row.argmax()]
    order = np.argsort(-row, kind="stable")
    p = softmax(row / config.temperature)
    if config.top_k:
        p = keep(p, order, config.top_k)
    if config.top_p < 1:
        p = keep(p, order, count_to_reach(p, order, config.top_p))
    if config.min_p:
        refuse_nearer_than_margin(p / p.max() - config.min_p)
        p = np.where(p >= config.min_p * p.max(), p, 0)
        p /= p.sum()
    if config.typical_p < 1:
        with np.errstate(divide="ignore", invalid="ignore"):
            surprise = np.where(p > 0, -np.log(p), np.inf)
            distance = np.abs(surprise - np.nansum(np.where(p > 0, p * surprise, 0)))
        by_distance = np.argsort(distance, kind="stable")
        count = count_to_reach(p, by_distance, config.typical_p)
        refuse_nearer_than_margin(np.diff(distance[by_distance][count - 1 : count + 1]))
        p = keep(p, by_distance, count)
    return p


@st.composite
def sampling_cases(draw: st.DrawFn) -> tuple[NDArray[np.float32], GenerationConfig, list[int], list[int]]:
    size = draw(st.integers(2, 600))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    logits = rng.normal(0, draw(st.sampled_from([0.3, 1.0, 3.0, 10.0])), size).astype(np.float32)
    tokens = st.integers(0, min(size, 9) - 1)
    option = st.booleans()
    config = GenerationConfig(
        temperature=draw(st.sampled_from([0.0, 0.5, 1.0, 1.0, 1.7, 10.0])),
        top_k=draw(st.integers(1, 700)) if draw(option) else 0,
        top_p=draw(st.floats(0.01, 0.999)) if draw(option) else 1.0,
        min_p=draw(st.floats(0.001, 0.9)) if draw(option) else 0.0,
        typical_p=draw(st.floats(0.01, 0.999)) if draw(option) else 1.0,
        repetition_penalty=draw(st.sampled_from([1.0, 0.8, 1.5])),
        frequency_penalty=draw(st.sampled_from([0.0, 0.0, 0.7, -0.4])),
        presence_penalty=draw(st.sampled_from([0.0, 0.0, 1.1])),
        no_repeat_ngram_size=draw(st.sampled_from([0, 0, 1, 2, 3])),
        logit_bias=draw(st.dictionaries(tokens, st.sampled_from([-3.0, 0.5, 5.0]), max_size=3)),
        suppress_tokens=draw(st.lists(tokens, max_size=2)),
        stop_token_ids=draw(st.lists(tokens, max_size=2)),
        min_new_tokens=draw(st.integers(0, 4)),
        seed=1,
    )
    history = draw(st.lists(tokens, max_size=12))
    return logits, config, history, draw(st.lists(tokens, max_size=4))


@settings(max_examples=400, deadline=None)
@given(sampling_cases())
def test_the_distribution_is_that_of_an_independent_implementation(
    case: tuple[NDArray[np.float32], GenerationConfig, list[int], list[int]],
) -> None:
    logits, config, prompt, answer = case
    row = edited(logits.astype(np.float64), config, prompt + answer, answer)
    assume(np.isfinite(row).any() and not set(answer) & set(config.suppress_tokens))
    sorted_row = np.sort(row[np.isfinite(row)])
    assume(len(sorted_row) < 2 or np.diff(sorted_row).min() > 1e-5)
    try:
        expected = filtered(row, config)
    except AmbiguousError:
        reject()

    # The sampler counts the answer itself: make it choose these tokens.
    sampler = Sampler(config.replace(forced_tokens=answer))
    for i, token in enumerate(answer):
        assert sampler.sample(logits, prompt + answer[:i]) == token
    found = sampler.probabilities(logits, prompt + answer)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert expected[sampler.sample(logits, prompt + answer)] > 0


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 1.3},
        {"temperature": 1.0, "top_p": 0.8},
        {"temperature": 2.0, "top_p": 0.4, "min_p": 0.05},
        {"temperature": 0.9, "top_k": 40, "top_p": 0.95},
        {"temperature": 1.0, "typical_p": 0.6},
    ],
    ids=str,
)
def test_samples_follow_the_independent_distribution(options: GenerationOptions) -> None:
    config = GenerationConfig(seed=1, **options)
    logits = np.random.default_rng(11).normal(0, 2, 400).astype(np.float32)
    expected = filtered(logits.astype(np.float64), config) * 20_000
    sampler = Sampler(config)
    drawn = np.bincount([sampler.sample(logits) for _ in range(20_000)], minlength=400)
    assert not drawn[expected == 0].any()
    often = expected >= 5
    groups = [*zip(drawn[often], expected[often], strict=True), (drawn[~often].sum(), expected[~often].sum())]
    groups = [(seen, wanted) for seen, wanted in groups if wanted >= 5]
    chi_square = sum((seen - wanted) ** 2 / wanted for seen, wanted in groups)
    freedom = len(groups) - 1
    assert chi_square < freedom + 5 * np.sqrt(2 * freedom)  # five standard deviations above the mean


def test_the_sampler_refuses_rows_it_cannot_read() -> None:
    sampler = Sampler(GenerationConfig(temperature=1.0, suppress_tokens=[5]))
    for wrong in (np.zeros(9), np.zeros((3, 3), np.float32), np.zeros(18, np.float32)[::2]):
        with pytest.raises(InputError, match="logits: expected contiguous float32"):
            sampler.sample(wrong)
    with pytest.raises(InputError, match=r"suppress_tokens: expected token ids in 0\.\.2, got 5"):
        sampler.sample(np.zeros(3, np.float32))
    with pytest.raises(ExecutionError, match="at least one finite logit"):
        sampler.sample(np.full(9, -np.inf, np.float32))


def test_the_largest_numbers_python_takes_are_a_flat_distribution() -> None:
    logits = np.array([0.0, 1.0, 2.0, 3.0], np.float32)
    sampler = Sampler(GenerationConfig(temperature=1e300))
    np.testing.assert_allclose(sampler.probabilities(logits), [0.25] * 4)
