"""/v1/completions, /tokenize and /detokenize."""

from __future__ import annotations

from typing import Any

import pytest

from executorch_mm import MultimodalRunner, make_token_input
from serving import ask

openai = pytest.importorskip("openai")

PROMPT = "how many shapes"


def complete(client: Any, prompt: Any = PROMPT, **options: Any) -> Any:
    return client.completions.create(model="demo", prompt=prompt, extra_body={"ignore_eos": True}, **options)


def offline(runner: MultimodalRunner, prompt: Any = PROMPT, **options: Any) -> Any:
    runner.reset()
    return runner.generate_result(prompt, ignore_eos=True, **options)


def test_a_text_is_gone_on_with(client: Any, runner: MultimodalRunner) -> None:
    expected = offline(runner, max_new_tokens=12)

    answer = complete(client, max_tokens=12)
    streamed = list(complete(client, max_tokens=12, stream=True, stream_options={"include_usage": True}))

    assert answer.object == "text_completion"
    assert answer.choices[0].text == expected.text
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 12
    assert answer.usage.prompt_tokens == expected.stats.num_prompt_tokens
    assert "".join(chunk.choices[0].text for chunk in streamed[:-1]) == expected.text
    assert streamed[-1].usage.total_tokens == answer.usage.total_tokens
    assert complete(client).usage.completion_tokens == 16  # as OpenAI's API has it


def test_several_prompts_are_answered_in_their_order(client: Any, runner: MultimodalRunner) -> None:
    ids = runner.tokenizer.encode("is there a red circle")
    prompts = [PROMPT, "what is", "where"]
    options: dict[str, Any] = {"max_tokens": 6, "temperature": 2, "seed": 3}
    expected = [
        offline(runner, prompt, max_new_tokens=6, temperature=2, seed=3 + index).text
        for prompt in prompts
        for index in range(2)
    ]

    several = complete(client, prompts, n=2, **options)
    texts = [""] * 6
    for chunk in complete(client, prompts, n=2, stream=True, **options):
        texts[chunk.choices[0].index] += chunk.choices[0].text

    assert [choice.text for choice in several.choices] == expected == texts
    of_tokens = offline(runner, make_token_input(ids), max_new_tokens=6).text
    assert complete(client, ids, max_tokens=6).choices[0].text == of_tokens
    assert [each.text for each in complete(client, [ids, ids], max_tokens=6).choices] == [of_tokens] * 2


def test_a_prompt_is_echoed(client: Any) -> None:
    plain = complete(client, max_tokens=4).choices[0].text
    assert complete(client, max_tokens=4, echo=True).choices[0].text == PROMPT + plain


def test_logprobs_have_the_old_shape(client: Any, runner: MultimodalRunner) -> None:
    expected = offline(runner, max_new_tokens=5, logprobs=2)

    whole = complete(client, max_tokens=5, logprobs=2).choices[0]
    chunks = [chunk.choices[0].logprobs for chunk in complete(client, max_tokens=5, logprobs=2, stream=True)]

    assert whole.logprobs.token_logprobs == pytest.approx(expected.logprobs, abs=1e-5)
    assert "".join(whole.logprobs.tokens).strip().startswith(whole.text.strip())  # and end tokens, ignored
    assert whole.logprobs.text_offset[0] == 0
    assert [len(top) for top in whole.logprobs.top_logprobs] == [2] * 5
    assert [each for part in chunks if part for each in part.token_logprobs] == whole.logprobs.token_logprobs


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": 3}, "prompt"),
        ({"prompt": ["a", 3]}, "prompt"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [10**9]}, "prompt"),
        ({"prompt": ["a"] * 65}, "prompt"),
        ({"best_of": 3}, "best_of"),
        ({"suffix": "a"}, "suffix"),
        ({"logprobs": True}, "logprobs"),
        ({"logprobs": 1, "echo": True}, "logprobs"),
        ({"echo": True, "n": 2}, "echo"),
        ({"messages": []}, "messages"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], param: str, server: Any) -> None:
    answer = ask(server.url, "/v1/completions", {"model": "demo", "prompt": "a", **fields})

    assert answer.status == 400
    assert answer.json["error"]["param"] == param


def test_texts_become_tokens_and_texts_again(server: Any, runner: MultimodalRunner) -> None:
    ids = runner.tokenizer.encode("a red circle")

    there = ask(server.url, "/tokenize", {"model": "demo", "prompt": "a red circle"})
    back = ask(server.url, "/detokenize", {"model": "demo", "tokens": ids})

    assert there.json == {"tokens": ids, "count": len(ids), "max_model_len": runner.capacity}
    assert back.json["prompt"].strip() == "a red circle"
    assert ask(server.url, "/detokenize", {"model": "demo", "tokens": ["a"]}).status == 400
    assert ask(server.url, "/tokenize", {"model": "demo"}).json["error"]["param"] == "prompt"
    assert ask(server.url, "/tokenize", {"model": "demo", "prompt": "\ud800"}).status in (400, 422)
