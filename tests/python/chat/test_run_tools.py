"""Tools that are called: rounds, approval, errors that the model is told of, and the conversation."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from executorch_mm import ExecutedCall, GenerationConfig, InputError, MultimodalRunner, ToolCall, ToolRun
from executorch_mm.chat import ChatOptions

TEMPLATE = (
    "{% for message in messages %}<|user|>{{ message.role }}: {{ message.content }}{% endfor %}<|assistant|>"
    "{# <tool_call> #}"
)
OPTIONS = ChatOptions(template=TEMPLATE)


def add(a: int, b: int = 1) -> int:
    """Adds.

    Args:
        a: One.
        b: The other.
    """
    return a + b


def fail(why: str) -> str:
    """Fails.

    Args:
        why: It does.
    """
    raise KeyError(why)


class Script:
    """A logits processor by which the model gives prepared answers, one after the other."""

    def __init__(self, runner: MultimodalRunner, *answers: str) -> None:
        end = min(runner.tokenizer.eos_ids)
        self._tokens = iter([token for text in answers for token in [*runner.tokenizer.encode(text), end]])

    def __call__(self, ids: object, logits: np.ndarray) -> None:
        token = next(self._tokens)
        logits[:] = -np.inf
        logits[token] = 0.0

    def config(self) -> GenerationConfig:
        return GenerationConfig(logits_processors=[self])


def call(name: str, **arguments: Any) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


@pytest.fixture(scope="module")
def runner() -> Iterator[MultimodalRunner]:
    with MultimodalRunner.demo(num_threads=1) as runner:
        yield runner


def run(runner: MultimodalRunner, *answers: str, tools: Any = (add, fail), **more: Any) -> ToolRun:
    config = Script(runner, *answers).config()
    return runner.run_tools("how?", [*tools], config, **{"chat_options": OPTIONS} | more)


def roles(done: ToolRun) -> list[object]:
    return [message["role"] for message in done.messages]


def test_functions_are_called_until_the_model_asks_for_nothing_more(runner: MultimodalRunner) -> None:
    done = run(runner, "So. " + call("add", a=2, b=3) + call("add", a=4), call("add", a=5, b=6), "16.")
    assert done.is_complete
    assert done.result.content == "16."
    assert [one.output for one in done.calls] == [5, 5, 11]
    assert [one.error for one in done.calls] == [None] * 3
    assert roles(done) == ["user", "assistant", "tool", "tool", "assistant", "tool", "assistant"]
    assert done.num_rounds == 3
    told = done.messages[2]
    assert told == {"role": "tool", "tool_call_id": done.calls[0].call.id, "name": "add", "content": "5"}
    # What the model was told is in its context.
    assert "tool: 11" in runner.tokenizer.decode([token for token in runner.history if token >= 0])


def test_the_model_is_told_what_goes_wrong(runner: MultimodalRunner) -> None:
    answers = [
        call("fail", why="so"),
        call("add", a=1, c=2),
        call("fly"),
        call("add", a="x", b=1),
        "Well.",
    ]
    done = run(runner, *answers)
    contents = [json.loads(one.content)["error"] for one in done.calls]
    assert contents[0] == "KeyError: 'so'"
    assert "unexpected keyword argument 'c'" in contents[1]
    assert contents[2] == "InputError: there is no tool fly, but add, fail"
    assert contents[3].startswith("TypeError: ")
    assert [type(one.error).__name__ for one in done.calls] == [
        "KeyError",
        "TypeError",
        "InputError",
        "TypeError",
    ]
    assert done.result.content == "Well."


def test_calls_are_approved_before_they_are_made(runner: MultimodalRunner) -> None:
    asked: list[ToolCall] = []

    def approve(asked_for: ToolCall) -> bool:
        asked.append(asked_for)
        return asked_for.arguments["a"] == 1

    done = run(runner, call("add", a=1) + call("add", a=2), "So.", approve=approve)
    assert [one.arguments for one in asked] == [{"a": 1}, {"a": 2}]
    assert [one.output for one in done.calls] == [2, None]
    assert "the user does not want this call" in done.calls[1].content

    def stop(_: ToolCall) -> bool:
        raise InterruptedError("no more")

    with pytest.raises(InterruptedError, match="no more"):
        run(runner, call("add", a=1), approve=stop)
    assert run(runner, "So.").is_complete


def test_rounds_are_bounded(runner: MultimodalRunner) -> None:
    done = run(runner, *[call("add", a=1)] * 3, max_rounds=3)
    assert not done.is_complete
    assert (done.num_rounds, len(done.calls)) == (3, 2)
    assert [one.name for one in done.result.tool_calls] == ["add"]


def test_a_call_that_is_required_is_required_once(runner: MultimodalRunner) -> None:
    pytest.importorskip("llguidance", reason="the extra executorch_mm[guidance] is not installed")
    options = ChatOptions(template=TEMPLATE, tool_choice="add")
    tool = {
        "type": "function",
        "function": {"name": "add", "parameters": {"properties": {"a": {"enum": [7]}}, "required": ["a"]}},
    }
    done = runner.run_tools(
        "how?", [tool], functions={"add": add}, chat_options=options, max_new_tokens=90, max_rounds=2
    )
    assert done.calls[0].output == 8
    assert done.num_rounds == 2
    assert options.tool_choice == "add"


def test_schemas_have_functions_of_their_own(runner: MultimodalRunner) -> None:
    schema = {"type": "function", "function": {"name": "double", "parameters": {"type": "object"}}}
    done = run(
        runner, call("double", n=2), "4.", tools=[schema], functions={"double": lambda n: {"is": 2 * n}}
    )
    assert done.calls == (ExecutedCall(done.calls[0].call, '{"is": 4}', {"is": 4}),)
    with pytest.raises(InputError, match="functions: expected a function for the tool 'double', got none"):
        run(runner, "4.", tools=[schema])


async def slowly(a: int) -> int:
    """Adds one.

    Args:
        a: To this.
    """
    await asyncio.sleep(0)
    return a + 1


def where() -> str:
    """Says which thread runs it."""
    return threading.current_thread().name


def test_a_task_awaits_coroutines_and_leaves_the_rest_to_threads(runner: MultimodalRunner) -> None:
    answers = [call("slowly", a=1) + call("where") + call("fail", why="so"), "2."]
    done = asyncio.run(
        runner.arun_tools(
            "how?", [slowly, where, fail], Script(runner, *answers).config(), chat_options=OPTIONS
        )
    )
    assert done.calls[0].output == 2
    assert done.calls[1].output != threading.current_thread().name
    assert isinstance(done.calls[2].error, KeyError)
    assert done.result.content == "2."
    with pytest.raises(InputError, match="tools: slowly is a coroutine function: arun_tools"):
        run(runner, call("slowly", a=1), tools=[slowly])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tools": 3}, "tools: expected a list of functions, got 3"),
        ({"tools": [3]}, r"tools\[0\]: expected a JSON schema"),
        ({"functions": 3}, "functions: expected a mapping from names to functions, got 3"),
        ({"functions": {"a": 3}}, "functions: expected names and functions, got 'a'"),
        ({"approve": 3}, "approve: expected something to call, got 3"),
        ({"max_rounds": 0}, "max_rounds: expected 1 to 1,000, got 0"),
        ({"max_rounds": True}, "max_rounds: expected 1 to 1,000, got True"),
        ({"messages": 3}, "messages: expected a text or a list of messages, got 3"),
    ],
)
def test_what_cannot_be_run_is_refused(
    runner: MultimodalRunner, options: dict[str, Any], message: str
) -> None:
    given = {"messages": "how?", "tools": [add]} | options
    with pytest.raises(InputError, match=message):
        runner.run_tools(given.pop("messages"), given.pop("tools"), max_new_tokens=1, **given)


def test_outputs_become_text_that_a_model_can_read(runner: MultimodalRunner) -> None:
    loop: list[object] = []
    loop.append(loop)
    outputs = ["as it is", {"ü": (1, None)}, object, loop]
    contents = [
        run(runner, call("give"), "So.", tools=[], functions={"give": lambda one=one: one}).calls[0].content
        for one in outputs
    ]
    assert contents[:2] == ["as it is", '{"ü": [1, null]}']
    assert "object" in contents[2]
    assert contents[3] == "[[...]]"
