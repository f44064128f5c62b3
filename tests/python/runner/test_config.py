"""Options: what is refused, and how a call overrides them."""

from __future__ import annotations

import inspect
import math
import pydoc
from collections.abc import Callable
from dataclasses import fields

import numpy as np
import pytest

from executorch_mm import (
    ClipModel,
    ConversationOptions,
    EmbeddingModel,
    GenerationConfig,
    InputError,
    MethodOptions,
    ModelOptions,
    MultimodalModel,
    MultimodalRunner,
    Reranker,
    RunnerOptions,
    SpeechConfig,
    SpeechRunner,
    UnknownOptionError,
)
from executorch_mm._loading.options import core_options
from executorch_mm.config import ChatGenerationOptions, GenerationOptions
from executorch_mm.speech.config import SpeechOptions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_new_tokens": -1}, "min_new_tokens: expected 0 or more, got -1"),
        ({"min_new_tokens": 5, "max_new_tokens": 4}, "min_new_tokens: expected at most max_new_tokens=4"),
        ({"top_k": 2**31}, r"top_k: expected less than 2\*\*31"),
        ({"min_p": -0.1}, r"min_p: expected a number in \[0, 1\]"),
        ({"min_p": 1.5}, "min_p"),
        ({"typical_p": 0}, r"typical_p: expected a number in \(0, 1\]"),
        ({"repetition_penalty": 0}, "repetition_penalty: expected more than 0"),
        ({"repetition_penalty": math.inf}, "repetition_penalty: expected a finite number"),
        ({"frequency_penalty": "x"}, "frequency_penalty: expected a finite number"),
        ({"presence_penalty": math.nan}, "presence_penalty"),
        ({"no_repeat_ngram_size": -3}, "no_repeat_ngram_size"),
        ({"logit_bias": [1, 2]}, "logit_bias: expected a mapping"),
        ({"logit_bias": {-1: 0.5}}, "logit_bias: expected token ids of 0 or more, got -1"),
        ({"logit_bias": {"a": 0.5}}, "logit_bias: expected an int"),
        ({"logit_bias": {1: math.inf}}, "logit_bias: expected a finite number"),
        ({"suppress_tokens": 5}, "suppress_tokens: expected a list of token ids"),
        ({"suppress_tokens": [-2]}, "suppress_tokens"),
        ({"suppress_tokens": [True]}, "suppress_tokens: expected an int"),
        ({"stop_token_ids": "abc"}, "stop_token_ids: expected a list"),
        ({"forced_tokens": [1.5]}, "forced_tokens"),
        ({"forced_tokens": [3], "suppress_tokens": [3]}, "forced_tokens: token 3 is in suppress_tokens"),
        ({"forced_tokens": [3, 4], "max_new_tokens": 1}, "forced_tokens: expected at most max_new_tokens=1"),
        ({"logits_processors": [5]}, "logits_processors: expected callables, got 5"),
        ({"logits_processors": len}, "logits_processors: expected a list of callables"),
        ({"logprobs": -1}, "logprobs: expected None, 0 or more"),
        ({"logprobs": True}, "logprobs"),
        ({"include_stop": True}, "include_stop: expected stop or stop_token_ids"),
        ({"ignore_eos": "yes"}, "ignore_eos: expected True or False, got 'yes'"),
        ({"prompt_lookup_num_tokens": 0}, "prompt_lookup_num_tokens: expected None, 1 or more, got 0"),
        ({"timeout": 0}, "timeout: expected more than 0 seconds"),
        ({"timeout": math.inf}, "timeout: expected a finite number"),
    ],
)
def test_a_wrong_or_contradictory_option_names_its_field(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        GenerationConfig(**options)  # type: ignore[arg-type]


def test_what_is_unusual_but_clear_is_taken() -> None:
    config = GenerationConfig(
        temperature=0,
        top_k=5,
        logit_bias={np.int64(3): -math.inf, 4: 1},
        stop_token_ids=np.array([1, 2]),
        min_new_tokens=4,
        max_new_tokens=4,
        ignore_eos=True,
    )
    assert config.stop_token_ids == (1, 2)
    assert config.logit_bias == {3: -math.inf, 4: 1}


def test_what_the_caller_changes_later_does_not_change_a_config() -> None:
    ids, bias = [1], {1: 0.5}
    config = GenerationConfig(suppress_tokens=ids, logit_bias=bias)
    ids.append(-5)
    bias[-1] = math.nan
    assert (config.suppress_tokens, config.logit_bias) == ((1,), {1: 0.5})


def test_keywords_of_a_call_are_the_fields_of_a_config() -> None:
    assert GenerationOptions.__annotations__.keys() == {field.name for field in fields(GenerationConfig)}
    for field in fields(GenerationConfig):
        annotation = GenerationOptions.__annotations__[field.name]
        assert getattr(annotation, "__forward_arg__", annotation) == field.type


def test_replace_changes_some_fields_and_checks_the_whole() -> None:
    config = GenerationConfig(temperature=0.5, max_new_tokens=10)
    assert config.replace(top_k=3) == GenerationConfig(temperature=0.5, max_new_tokens=10, top_k=3)
    assert config.replace() is config
    with pytest.raises(InputError, match="min_new_tokens"):
        config.replace(min_new_tokens=11)
    with pytest.raises(TypeError, match="temprature"):
        config.replace(temprature=1.0)  # type: ignore[call-arg]


def test_keywords_of_a_call_override_its_config(runner: MultimodalRunner) -> None:
    config = GenerationConfig(max_new_tokens=9, ignore_eos=True)
    for call in (
        lambda: runner.generate("red", config, max_new_tokens=3),
        lambda: runner.generate_text("red", config, max_new_tokens=3),
        lambda: runner.generate_result("red", config, max_new_tokens=3),
        lambda: list(runner.stream("red", config, max_new_tokens=3)),
        lambda: runner.generate_text("red", max_new_tokens=3, ignore_eos=True),
    ):
        call()
        assert runner.stats.num_generated_tokens == 3
    bos = runner.tokenizer.bos_id
    runner.reset()
    runner.prefill("red", num_bos=1)
    assert runner.history[0] == bos
    with pytest.raises(TypeError, match="temprature"):
        runner.stream("red", temprature=1.0)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("max_output_tokens", "max_new_tokens"),
        ("n", "num_return_sequences"),  # OpenAI's API
        ("repeat_penalty", "repetition_penalty"),  # llama.cpp
        ("temprature", "temperature"),
        ("topk", "top_k"),
        ("stop_strings", "stop"),  # transformers
    ],
)
def test_a_wrong_option_name_says_which_was_meant(runner: MultimodalRunner, name: str, meant: str) -> None:
    message = f"^{name}: there is no such option: did you mean {meant}\\?$"
    with pytest.raises(UnknownOptionError, match=message):
        GenerationConfig(**{name: 3})
    with pytest.raises(UnknownOptionError, match=message):
        runner.generate_text("x", **{name: 3})
    with pytest.raises(UnknownOptionError, match=message):
        runner.chat([{"role": "user", "content": "x"}], **{name: 3})


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_chats_take_openais_names_of_the_limit(runner: MultimodalRunner, name: str) -> None:
    messages = [{"role": "user", "content": "hello"}]
    config = GenerationConfig(max_new_tokens=9, ignore_eos=True)
    assert len(runner.chat(messages, config, **{name: 3}).token_ids) == 3
    stream = runner.stream_chat(messages, config, **{name: 3})
    assert stream.result is None
    for _ in stream:
        pass
    assert stream.result is not None
    assert len(stream.result.token_ids) == 3
    assert len(runner.chat(messages, config, **{name: None}).token_ids) == 9  # OpenAI's null
    with pytest.raises(InputError, match=f"{name}: .* got max_new_tokens too"):
        runner.chat(messages, **{"max_new_tokens": 4, name: 3})
    with pytest.raises(InputError, match=r"max_completion_tokens: .* got max_tokens too"):
        runner.chat(messages, max_tokens=3, max_completion_tokens=3)
    with pytest.raises(UnknownOptionError, match=f"{name}: .* did you mean max_new_tokens"):
        runner.generate_text("hello", **{name: 3})  # it is no chat


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (MultimodalRunner.generate, GenerationOptions),
        (MultimodalRunner.generate_text, GenerationOptions),
        (MultimodalRunner.generate_result, GenerationOptions),
        (MultimodalRunner.stream, GenerationOptions),
        (MultimodalRunner.astream, GenerationOptions),
        (MultimodalRunner.agenerate_text, GenerationOptions),
        (MultimodalRunner.agenerate_result, GenerationOptions),
        (MultimodalRunner.prefill, GenerationOptions),
        (MultimodalRunner.chat, ChatGenerationOptions),
        (MultimodalRunner.stream_chat, ChatGenerationOptions),
        (MultimodalRunner.achat, ChatGenerationOptions),
        (MultimodalRunner.astream_chat, ChatGenerationOptions),
        (GenerationConfig.replace, GenerationOptions),
        (MultimodalRunner, ConversationOptions),
        (MultimodalRunner.from_pretrained, ConversationOptions),
        (MultimodalModel, ModelOptions),
        (SpeechRunner, RunnerOptions),
        (SpeechRunner.from_pretrained, RunnerOptions),
        (SpeechRunner.transcribe, SpeechOptions),
        (SpeechRunner.stream_transcribe, SpeechOptions),
        (SpeechRunner.atranscribe, SpeechOptions),
        (SpeechRunner.astream_transcribe, SpeechOptions),
        (SpeechConfig.replace, SpeechOptions),
        (ClipModel, MethodOptions),
        (EmbeddingModel, MethodOptions),
        (EmbeddingModel.from_pretrained, MethodOptions),
        (Reranker, MethodOptions),
        (Reranker.from_pretrained, MethodOptions),
    ],
    ids=lambda value: value.__qualname__,
)
def test_signatures_name_every_option(method: Callable[..., object], options: type) -> None:
    parameters = inspect.signature(method).parameters
    assert all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters.values())
    for name in options.__annotations__:
        assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
        assert parameters[name].default is not inspect.Parameter.empty
    shown = pydoc.render_doc(method, renderer=pydoc.plaintext)
    assert all(f"{name}: " in shown for name in options.__annotations__)


@pytest.mark.parametrize(
    ("name", "meant"),
    [("langage", "language"), ("initial_prompt", "prompt"), ("max_tokens", "max_new_tokens")],
)
def test_a_wrong_option_of_speech_says_which_was_meant(name: str, meant: str) -> None:
    message = f"^{name}: there is no such option: did you mean {meant}\\?$"
    with pytest.raises(UnknownOptionError, match=message):
        SpeechConfig(**{name: "x"})
    with pytest.raises(UnknownOptionError, match=message):
        SpeechConfig().replace(**{name: "x"})


def test_the_shown_defaults_are_those_that_hold() -> None:
    shown = inspect.signature(MultimodalRunner.generate).parameters
    default = GenerationConfig()
    for name in GenerationOptions.__annotations__:
        assert shown[name].default == getattr(default, name), name
    loading = {name: p.default for name, p in inspect.signature(MultimodalRunner).parameters.items()}
    names = RunnerOptions.__annotations__
    given = core_options("model.pte", **{name: loading[name] for name in names})
    plain = core_options("model.pte")
    assert all(getattr(given, name) == getattr(plain, name) for name in dir(plain) if name[0] != "_")


@pytest.mark.parametrize("stop", [None, 5])
def test_stop_texts_that_are_none_are_refused(stop: object) -> None:
    with pytest.raises(InputError, match="stop: expected a str or several, got"):
        GenerationConfig(stop=stop)  # type: ignore[arg-type]


def test_a_name_that_is_like_none_lists_the_options() -> None:
    with pytest.raises(UnknownOptionError, match=r"^zzz: .* the options are max_new_tokens, .*, num_eos$"):
        GenerationConfig(zzz=3)


def test_equal_configs_have_equal_hashes() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    first, second = (
        GenerationConfig(logit_bias={3: 1.0, 5: -2.0}, stop=["a", "b"], response_format=dict(schema))
        for _ in range(2)
    )
    assert first == second
    assert hash(first) == hash(second)
    assert {first: 1}[second] == 1
    assert len({GenerationConfig(seed=seed) for seed in range(20)}) == 20
