"""Calls of tools and thinking, by OpenAI's own client; decisions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from executorch_mm import MultimodalModel, MultimodalRunner
from serving import said

openai = pytest.importorskip("openai")
pytest.importorskip("uvicorn", reason="the extra executorch_mm[server] is not installed")

WEATHER = {
    "type": "function",
    "function": {
        "name": "w",
        "description": "How the weather will be.",
        "parameters": {"type": "object", "properties": {"c": {"type": "string"}}, "required": ["c"]},
    },
}
CALL = '<tool_call>{"name":"w","arguments":{"c":"B"}}</tool_call>'
WRITTEN = f"<think>hm</think>so {CALL}{CALL.replace('B', 'R')}"
# A context of 256 tokens, most of which are letters here.
TEMPLATE = "{%- if tools -%}{{ tools[0].function.name }} {%- endif -%}{#- <tool_call> <think> -#}"


class Scripted(MultimodalRunner):
    """A runner that writes what it is told to."""

    def _told(self, config: Any) -> Any:
        ids = [*self.tokenizer.encode(WRITTEN), *sorted(self.tokenizer.eos_ids)[:1]]
        return config.replace(forced_tokens=ids, max_new_tokens=len(ids))

    async def achat(self, messages: Any, config: Any = None, **options: Any) -> Any:
        return await super().achat(messages, self._told(config), **options)

    def astream_chat(self, messages: Any, config: Any = None, **options: Any) -> Any:
        return super().astream_chat(messages, self._told(config), **options)


@pytest.fixture(scope="module")
def client(demo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Of a server with a model that writes what it is told to, "m", and one that does not, "free"."""
    from executorch_mm.server import BackgroundServer

    folder = tmp_path_factory.mktemp("scripted")
    shutil.copytree(demo_folder, folder, dirs_exist_ok=True)
    template = folder / "chat_template.jinja"
    template.write_text(TEMPLATE + template.read_text(encoding="utf-8"), encoding="utf-8")
    with (
        BackgroundServer(
            {
                "m": lambda: Scripted(folder / "model.pte", folder),
                "free": lambda: MultimodalModel(folder / "model.pte", folder),
            }
        ) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="-", max_retries=0) as client,
    ):
        yield client


def test_a_call_is_told_apart(client: Any) -> None:
    answer = client.chat.completions.create(model="m", messages=said("hi"), tools=[WEATHER])

    message = answer.choices[0].message
    assert message.content == "so"
    assert message.reasoning_content == "hm"
    assert [call.function.name for call in message.tool_calls] == ["w", "w"]
    assert [json.loads(call.function.arguments) for call in message.tool_calls] == [
        {"c": "B"},
        {"c": "R"},
    ]
    assert len({call.id for call in message.tool_calls}) == 2
    assert answer.choices[0].finish_reason == "tool_calls"
    assert {call.type for call in message.tool_calls} == {"function"}


def test_a_call_is_streamed(client: Any) -> None:
    options = {"model": "m", "messages": said("hi"), "tools": [WEATHER]}

    with client.chat.completions.stream(**options) as stream:
        events = list(stream)
        final = stream.get_final_completion()
    chunks = [chunk.choices[0].delta for chunk in client.chat.completions.create(**options, stream=True)]

    assert "tool_calls.function.arguments.done" in {event.type for event in events}
    message = final.choices[0].message
    assert [json.loads(call.function.arguments) for call in message.tool_calls] == [
        {"c": "B"},
        {"c": "R"},
    ]
    assert message.content == "so"
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in chunks) == "hm"
    written = ["", ""]
    for call in (call for delta in chunks for call in delta.tool_calls or ()):
        written[call.index] += call.function.arguments
        assert (call.id is None) == (call.function.name is None)
    assert [json.loads(each) for each in written] == [{"c": "B"}, {"c": "R"}]
    num_pieces = sum(len(delta.tool_calls or ()) for delta in chunks)
    assert num_pieces >= 6  # as they were written
    assert sum(event.type == "tool_calls.function.arguments.delta" for event in events) == num_pieces


def test_the_result_of_a_call_goes_into_the_conversation(client: Any) -> None:
    first = client.chat.completions.create(model="m", messages=said("hi"), tools=[WEATHER])
    message = first.choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "sunny"}

    second = client.chat.completions.create(
        model="m", messages=[*said("hi"), message.model_dump(exclude_none=True), result], tools=[WEATHER]
    )

    assert second.usage.prompt_tokens > first.usage.prompt_tokens
    assert second.choices[0].message.tool_calls


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "w"}}])
def test_a_call_can_be_required(choice: Any, client: Any) -> None:
    pytest.importorskip("llguidance", reason="the extra executorch_mm[guidance] is not installed")
    colours = {"type": "string", "enum": ["red", "green", "blue"]}
    parameters = {"type": "object", "properties": {"c": colours}, "required": ["c"]}
    tool = {"type": "function", "function": {"name": "w", "parameters": parameters}}

    answer = client.chat.completions.create(
        model="free", messages=said("hi"), tools=[tool], tool_choice=choice, temperature=5, seed=1
    )

    calls = answer.choices[0].message.tool_calls
    assert calls
    for call in calls:
        assert json.loads(call.function.arguments)["c"] in colours["enum"]
    assert answer.choices[0].finish_reason == "tool_calls"


def test_responses_have_calls_and_thinking_as_items(client: Any) -> None:
    tool = {"type": "function", **WEATHER["function"]}  # type: ignore[dict-item]
    options: dict[str, Any] = {"model": "m", "input": "hi", "tools": [tool]}

    whole = client.responses.create(**options)
    events = list(client.responses.create(**options, stream=True))

    for response in (whole, events[-1].response):
        assert [item.type for item in response.output] == ["reasoning", "message", *["function_call"] * 2]
        assert response.output_text == "so"
        assert [json.loads(item.arguments) for item in response.output[2:]] == [{"c": "B"}, {"c": "R"}]
    done = [event for event in events if event.type == "response.function_call_arguments.done"]
    assert [json.loads(event.arguments) for event in done] == [{"c": "B"}, {"c": "R"}]
    deltas = [event for event in events if event.type == "response.function_call_arguments.delta"]
    assert len(deltas) >= 6
    call = whole.output[2]
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    items = [{"role": "user", "content": "hi"}, *(item.model_dump() for item in whole.output), result]
    again = client.responses.create(model="free", input=items, max_output_tokens=1)
    assert again.usage.input_tokens > whole.usage.input_tokens


def test_without_tools_nothing_is_said_of_them(client: Any) -> None:
    options = {"model": "m", "messages": said("hi")}
    without = client.chat.completions.create(**options)
    none = client.chat.completions.create(**options, tools=[WEATHER], tool_choice="none")
    with_tools = client.chat.completions.create(**options, tools=[WEATHER])

    assert without.usage.prompt_tokens == none.usage.prompt_tokens < with_tools.usage.prompt_tokens
