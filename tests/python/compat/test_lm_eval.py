"""A runner as a model of lm-evaluation-harness; the last tests need the harness itself."""

from __future__ import annotations

import importlib.util
import math
from types import SimpleNamespace
from typing import Any

import pytest

from executorch_mm import (
    GenerationConfig,
    InputError,
    MissingDependencyError,
    MultimodalRunner,
    UnknownOptionError,
)
from executorch_mm.chat import ChatTemplate
from executorch_mm.compat.lm_eval import LmEvalRequests, make_lm
from executorch_mm.inputs import make_token_input

HARNESS = importlib.util.find_spec("lm_eval") is not None
PAIRS = [
    ("how many shapes are there?", " three"),
    ("how many shapes are there?", " four"),
    ("how many shapes are there? ", "four circles"),
    ("", "a red circle"),
    ("is there a red circle", "?"),
]
TEXTS = ["", "a", "a small red circle", "a red circle and a blue square " * 60]


def asked(*args: Any) -> Any:
    return SimpleNamespace(args=args)


@pytest.fixture
def lm(runner: MultimodalRunner) -> LmEvalRequests:
    return LmEvalRequests(runner)


def logprobs_of(runner: MultimodalRunner, context: list[int], continuation: list[int]) -> tuple[Any, Any]:
    """Of the continuation; the context is read in one call, as for requests: a token that is read alone
    has other last bits than among others, and 8-bit activations make much of them."""
    runner.reset()
    runner.prefill([make_token_input(context)])
    score = runner.score([make_token_input(continuation)])
    return score.logprobs, score.is_likeliest


@pytest.mark.parametrize(("context", "continuation"), PAIRS)
def test_a_continuation_is_as_likely_as_the_end_of_the_whole_text(
    context: str, continuation: str, lm: LmEvalRequests, runner: MultimodalRunner
) -> None:
    ((total, is_greedy),) = lm.loglikelihood([asked(context, continuation)])

    encode, bos = runner.tokenizer.encode, runner.tokenizer.bos_id
    before = encode(context.rstrip()) if context else [bos]
    whole = encode(context + continuation) if context else [bos, *encode(continuation)]
    logprobs, likeliest = logprobs_of(runner, before, whole[len(before) :])
    assert total == pytest.approx(math.fsum(logprobs), abs=1e-4)
    assert is_greedy == all(likeliest)


def test_answers_have_the_order_of_the_requests(lm: LmEvalRequests) -> None:
    alone = [lm.loglikelihood([asked(*pair)])[0] for pair in PAIRS]
    together = lm.loglikelihood([asked(*pair) for pair in reversed(PAIRS)])

    for one, other in zip(alone, reversed(together), strict=True):
        assert one == (pytest.approx(other[0], abs=1e-4), other[1])


def test_a_context_is_read_once_for_all_its_continuations(
    lm: LmEvalRequests, runner: MultimodalRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    prefill = type(runner).prefill
    monkeypatch.setattr(
        type(runner), "prefill", lambda self, inputs: reads.append(inputs) or prefill(self, inputs)
    )
    lm.loglikelihood([asked("how many shapes are there?", f" {word}") for word in ("one", "two", "three")])

    assert len(reads) == 1


def test_what_does_not_fit_is_cut_from_the_front_of_the_context(
    lm: LmEvalRequests, runner: MultimodalRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    prefill = type(runner).prefill
    monkeypatch.setattr(
        type(runner), "prefill", lambda self, inputs: reads.append(inputs[0].value) or prefill(self, inputs)
    )
    context, continuation = "a red circle and a blue square " * 60, "is that so"
    ((total, _),) = lm.loglikelihood([asked(context, continuation)])

    whole = runner.tokenizer.encode(context + continuation)
    count = len(whole) - len(runner.tokenizer.encode(context.rstrip()))
    assert len(whole) > runner.capacity
    assert [list(ids) for ids in reads] == [whole[-runner.capacity : -count]]
    logprobs, _ = logprobs_of(runner, whole[-runner.capacity : -count], whole[-count:])
    assert total == pytest.approx(math.fsum(logprobs), abs=1e-4)


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_as_likely_as_its_tokens(
    text: str, lm: LmEvalRequests, runner: MultimodalRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[int] = []
    score = type(runner).score

    def noted(self: Any, inputs: Any) -> Any:
        scored.extend(inputs[0].value)
        return score(self, inputs)

    monkeypatch.setattr(type(runner), "score", noted)
    (total,) = lm.loglikelihood_rolling([asked(text)])
    monkeypatch.undo()

    ids = runner.tokenizer.encode(text)
    assert scored == ids  # each once, in however many windows
    if 0 < len(ids) < runner.capacity:
        logprobs, _ = logprobs_of(runner, [runner.tokenizer.bos_id], ids)
        assert total == pytest.approx(math.fsum(logprobs), abs=1e-4)


def test_answers_end_as_the_task_says(lm: LmEvalRequests, runner: MultimodalRunner) -> None:
    runner.reset()
    plain = runner.generate_text("how many shapes are there?", GenerationConfig(max_new_tokens=6))
    middle = plain[len(plain) // 2]
    options = [
        {"until": []},
        {"until": [middle]},
        {"until": middle},
        {"max_gen_toks": 1},
        {"do_sample": False},
    ]
    answers = lm.generate_until(
        [asked("how many shapes are there?", {"max_gen_toks": 6, **each}) for each in options]
    )

    assert answers[0] == answers[4] == plain
    assert answers[1] == answers[2] == plain[: plain.index(middle)]
    assert answers[3] == plain[: len(answers[3])]
    for options in ({"topp": 0.5}, {"max_gen_toks": 300}, {"temperature": -1, "do_sample": True}):
        with pytest.raises((InputError, UnknownOptionError)):
            lm.generate_until([asked("a", options)])
    assert lm.generate_until([asked("how many shapes are there?", {"max_gen_toks": 6})]) == [plain]


TEMPLATE = ChatTemplate(
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
CHAT = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b: "}]


def test_chats_become_prompts_by_the_template(runner: MultimodalRunner) -> None:
    lm = LmEvalRequests(runner, template=TEMPLATE)

    assert lm.apply_chat_template(CHAT[:1]) == "<user>a</s><assistant>"
    assert lm.apply_chat_template(CHAT, add_generation_prompt=False) == "<user>a</s><assistant>b:"
    assert (lm.chat_template(True), lm.chat_template()) == (TEMPLATE.source, None)
    assert lm.tokenizer_name != LmEvalRequests(runner, template=ChatTemplate("")).tokenizer_name
    with pytest.raises(InputError, match="template=ChatTemplate"):
        LmEvalRequests(runner).apply_chat_template(CHAT)


@pytest.mark.skipif(HARNESS, reason="lm_eval is installed")
def test_the_harness_is_named_where_it_is_missing(runner: MultimodalRunner) -> None:
    with pytest.raises(MissingDependencyError, match="pip install lm-eval"):
        make_lm(runner)


needs_harness = pytest.mark.skipif(not HARNESS, reason="could not import 'lm_eval'")


def reference(runner: MultimodalRunner) -> Any:
    """The harness's own way from texts to tokens and windows, over scores of whole token sequences."""
    from lm_eval.api.model import TemplateLM
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    class Reference(TemplateLM):
        eot_token_id = runner.tokenizer.bos_id

        def tok_encode(self, string: str, add_special_tokens: Any = None, **_: Any) -> list[int]:
            return runner.tokenizer.encode(string)

        def _loglikelihood_tokens(self, requests: Any, **_: Any) -> Any:
            results = []
            for _names, context, continuation in requests:
                logprobs, likeliest = logprobs_of(runner, context, continuation)
                results.append((math.fsum(logprobs), all(likeliest)))
            return results

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> Any:
            results = []
            for (text,) in (request.args for request in requests):
                windows = get_rolling_token_windows(
                    self.tok_encode(text), self.prefix_token_id, runner.capacity - 1, 1
                )
                scores = self._loglikelihood_tokens([(None, *make_disjoint_window(w)) for w in windows])
                results.append(sum(score for score, _ in scores))
            return results

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> Any:
            return [
                runner.generate_text(request.args[0], GenerationConfig(max_new_tokens=8))
                for request in requests
            ]

    return Reference()


@needs_harness
def test_requests_are_answered_as_the_harness_itself_would(runner: MultimodalRunner) -> None:
    theirs = reference(runner)
    ours = make_lm(runner)
    pairs, texts = [asked(*pair) for pair in PAIRS], [asked(text) for text in TEXTS[1:]]
    expected = theirs.loglikelihood(pairs, disable_tqdm=True), theirs.loglikelihood_rolling(texts)

    found = make_lm(runner).loglikelihood(pairs), ours.loglikelihood_rolling(texts)

    assert [greedy for _, greedy in found[0]] == [greedy for _, greedy in expected[0]]
    assert [total for total, _ in found[0]] == pytest.approx([total for total, _ in expected[0]], rel=0.01)
    assert found[1] == pytest.approx(expected[1], rel=0.01)


def rows() -> list[dict[str, Any]]:
    questions = ["how many shapes are there?", "is there a red circle?"]
    return [{"question": each, "choices": ["no", "three", "yes"], "label": 0} for each in questions]


TASKS = {
    "choice": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{label}}",
        "metric_list": [{"metric": "acc"}],
    },
    "perplexity": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{question}}",
        "metric_list": [{"metric": "bits_per_byte"}],
    },
    "answer": {
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "no",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 8, "do_sample": False},
        "metric_list": [{"metric": "exact_match"}],
    },
}


@needs_harness
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TASKS)
def test_the_harness_evaluates_a_runner(
    name: str, runner: MultimodalRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets
    import lm_eval

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    config = {
        "task": name,
        "custom_dataset": lambda **_: {"test": datasets.Dataset.from_list(rows())},
        "test_split": "test",
        "num_fewshot": 0,
        **TASKS[name],
    }

    def evaluate(model: Any) -> Any:
        found = lm_eval.simple_evaluate(model, tasks=[config], bootstrap_iters=0)
        assert found is not None
        return {key: value for key, value in found["results"][name].items() if isinstance(value, float)}

    chats = lm_eval.simple_evaluate(
        make_lm(runner, template=TEMPLATE), tasks=[config], bootstrap_iters=0, apply_chat_template=True
    )
    assert chats is not None
    prompts = [sample["arguments"][0][0] for sample in chats["samples"][name]]
    assert name == "perplexity" or all("<user>" in prompt for prompt in prompts)
    expected, found = evaluate(reference(runner)), evaluate(make_lm(runner))
    assert found == pytest.approx(expected, rel=0.01)
    assert found
