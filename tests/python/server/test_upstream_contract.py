"""What ExecuTorch's own server (examples/llm_server in its repository) promises its clients holds here too.

The facts are those of its conformance tests; docs/server.md says where this server answers otherwise.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from serving import Answer, ask

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Paris"]}},
            "required": ["city"],
        },
    },
}
TOO_LONG = [{"role": "user", "content": "word " * 4000}]


def post(server: Any, **fields: Any) -> Answer:
    body = {"model": "demo", "messages": [{"role": "user", "content": "is there a red circle?"}], **fields}
    return ask(server.url, "/v1/chat/completions", body)


def chunks_of(answer: Answer) -> list[Any]:
    """The chunks of a stream, which has to end as it should."""
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_a_whole_answer_has_its_shape(server: Any) -> None:
    body = post(server).json

    assert body["object"] == "chat.completion"
    assert body["choices"][0]["message"]["role"] == "assistant"
    assert body["choices"][0]["message"]["content"]
    assert body["choices"][0]["finish_reason"] == "stop"
    usage = body["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_a_stream_has_its_order(server: Any) -> None:
    chunks = chunks_of(post(server, stream=True))

    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    content = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    assert content == post(server).json["choices"][0]["message"]["content"]
    assert [
        chunk["choices"][0]["finish_reason"] for chunk in chunks if chunk["choices"][0]["finish_reason"]
    ] == ["stop"]
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_a_stream_has_usage_where_it_is_asked_for(server: Any) -> None:
    assert not any(chunk.get("usage") for chunk in chunks_of(post(server, stream=True)))
    usage = chunks_of(post(server, stream=True, stream_options={"include_usage": True}))[-1]["usage"]
    assert usage["prompt_tokens"] > 0
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_a_model_that_is_not_there_is_not_found(server: Any) -> None:
    answer = post(server, model="other")
    assert (answer.status, answer.json["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_that_is_too_long_has_a_status_also_before_a_stream(stream: bool, server: Any) -> None:
    answer = post(server, messages=TOO_LONG, stream=stream)

    error = answer.json["error"]
    assert (answer.status, error["code"]) == (400, "context_length_exceeded")
    assert error["type"] == "invalid_request_error"
    assert error["message"]


def test_an_answer_that_a_limit_cuts_says_so(server: Any) -> None:
    assert post(server, max_tokens=1).json["choices"][0]["finish_reason"] == "length"
    whole = post(server).json
    content = whole["choices"][0]["message"]["content"]
    cut = post(server, stop=[content[-2:]], max_tokens=whole["usage"]["completion_tokens"]).json["choices"][0]
    assert cut["finish_reason"] == "stop"
    assert cut["message"]["content"] == content[:-2]


@pytest.mark.parametrize(
    "fields",
    [
        {
            "frequency_penalty": 0.0,
            "presence_penalty": 0.0,
            "user": "a",
            "store": False,
            "metadata": {"k": "v"},
        },
        {"response_format": {"type": "text"}, "parallel_tool_calls": True, "max_tokens": 8},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]},
        {"tools": [WEATHER], "tool_choice": "none"},
        {"temperature": 0.1, "top_p": 0.8, "top_k": 32, "seed": 123},
    ],
)
def test_fields_that_clients_send_are_taken(fields: dict[str, Any], server: Any) -> None:
    answer = post(server, **fields)
    assert answer.status == 200
    assert answer.json["choices"][0]["message"]["role"] == "assistant"


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": None},
        {"messages": "not-a-list"},
        {"messages": [{"content": "no role"}]},
        {"temperature": "hot"},
        {"temperature": -0.1},
        {"stream": "maybe"},
        {"max_tokens": 0},
        {"max_completion_tokens": -2},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_k": -1},
        {"reasoning_effort": "high"},
    ],
)
def test_fields_that_are_wrong_are_refused_in_the_same_shape(fields: dict[str, Any], server: Any) -> None:
    answer = post(server, **fields)

    assert answer.status == 400  # 422 there, for what has another type; OpenAI's server says 400
    assert answer.json["error"]["type"] == "invalid_request_error"
    assert answer.json["error"]["param"].startswith(next(iter(fields)))
