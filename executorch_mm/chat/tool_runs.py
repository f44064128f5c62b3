"""Calls of tools carried out."""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from executorch_mm._engine.callbacks import checked_callback
from executorch_mm._engine.reply import ToolCall
from executorch_mm._engine.tool_runs import ExecutedCall, ToolRun
from executorch_mm.chat.chat import ChatOptions, named_tool
from executorch_mm.chat.values import is_list
from executorch_mm.errors import InputError, shown

if TYPE_CHECKING:
    from executorch_mm._engine.result import GenerationResult
    from executorch_mm.chat.template import Message

Approve = Callable[[ToolCall], object]
_MOST_ROUNDS = 1000


class ToolBox:
    """Functions by name, and what is said of their calls.

    Args:
        tools: As `chat` takes them; functions among them are called.
        functions: More, by name, for tools that are schemas.
        approve: Asked before each call.
        max_rounds: Answers of the model.

    Raises:
        InputError: A tool has no function, or one of the others is of a wrong kind.
    """

    def __init__(self, tools: object, functions: object, approve: object, max_rounds: object) -> None:
        if not is_list(tools):
            raise InputError(f"tools: expected a list of functions, got {shown(tools)}")
        if not isinstance(functions, (Mapping, type(None))):
            raise InputError(f"functions: expected a mapping from names to functions, got {shown(functions)}")
        if (
            isinstance(max_rounds, bool)
            or not isinstance(max_rounds, int)
            or not 1 <= max_rounds <= _MOST_ROUNDS
        ):
            raise InputError(f"max_rounds: expected 1 to {_MOST_ROUNDS:,}, got {shown(max_rounds)}")
        self.max_rounds = max_rounds
        self._functions: dict[str, Callable[..., object]] = {}
        for name, function in (functions or {}).items():
            if not isinstance(name, str) or not callable(function):
                raise InputError(f"functions: expected names and functions, got {shown(name)}")
            self._functions[name] = function
        for tool in cast("Sequence[object]", tools):
            if inspect.isfunction(tool) or inspect.ismethod(tool):
                self._functions.setdefault(tool.__name__, tool)
        self._approve = None if approve is None else checked_callback(cast(Approve, approve), "approve")

    def expect_all(self, names: Sequence[object]) -> None:
        """Refuses tools that no function is there for.

        Raises:
            InputError: There is one.
        """
        for name in names:
            if name not in self._functions:
                raise InputError(f"functions: expected a function for the tool {shown(name)}, got none")

    def prepare(self, call: ToolCall) -> Callable[[], object] | ExecutedCall:
        """What carries out a call; or what came of it, where it is not to be."""
        function = self._functions.get(call.name)
        if function is None:
            known = ", ".join(self._functions)
            return failed(call, InputError(f"there is no tool {call.name}, but {known}"))
        try:
            bound = inspect.signature(function).bind(**call.arguments)
        except (TypeError, ValueError) as error:
            return failed(call, error)
        if self._approve is not None and not self._approve(call):
            return failed(call, InputError("the user does not want this call"))
        return lambda: function(*bound.args, **bound.kwargs)

    def execute(self, call: ToolCall) -> ExecutedCall:
        """Carries out a call, if it may be."""
        run = self.prepare(call)
        if isinstance(run, ExecutedCall):
            return run
        try:
            output = run()
        except Exception as error:  # noqa: BLE001 (of whatever kind: the model is told)
            return failed(call, error)
        if inspect.isawaitable(output):
            cast("Any", output).close()
            raise InputError(f"tools: {call.name} is a coroutine function: arun_tools() awaits those")
        return succeeded(call, output)

    async def aexecute(self, call: ToolCall) -> ExecutedCall:
        """The same for a task; what is no coroutine function runs in a thread."""
        import asyncio  # not at the top: it takes long to import

        run = self.prepare(call)
        if isinstance(run, ExecutedCall):
            return run
        try:
            is_coroutine = inspect.iscoroutinefunction(self._functions[call.name])
            output = run() if is_coroutine else await asyncio.to_thread(run)
            return succeeded(call, await cast("Awaitable[object]", output) if is_coroutine else output)
        except Exception as error:  # noqa: BLE001 (as above)
            return failed(call, error)


def succeeded(call: ToolCall, output: object) -> ExecutedCall:
    """What a function returned, a text as it is and all else as JSON."""
    try:
        content = output if isinstance(output, str) else json.dumps(output, ensure_ascii=False, default=str)
    except (TypeError, ValueError, RecursionError):
        content = shown(output)
    return ExecutedCall(call, content, output)


def failed(call: ToolCall, error: Exception) -> ExecutedCall:
    """What went wrong, as the model is told."""
    content = json.dumps({"error": f"{type(error).__name__}: {error}"}, ensure_ascii=False)
    return ExecutedCall(call, content, error=error)


@dataclass
class Conversation:
    """A conversation under way.

    Attributes:
        messages: So far.
        options: Of the next answer.
        calls: Dealt with so far.
    """

    messages: list[Message]
    options: ChatOptions | None
    calls: list[ExecutedCall] = field(default_factory=list)

    @classmethod
    def begin(cls, messages: object, options: ChatOptions | None) -> Conversation:
        """Begins with what a user gave, which is checked where it becomes a prompt."""
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        if not is_list(messages):
            raise InputError(f"messages: expected a text or a list of messages, got {shown(messages)}")
        return cls([*cast("Sequence[Message]", messages)], options)

    def answered(self, result: GenerationResult) -> None:
        """Goes on with an answer; a choice of tools that had to be made has been made with it."""
        self.messages.append(result.message)
        options = self.options
        if isinstance(options, ChatOptions) and (
            options.tool_choice == "required" or named_tool(options.tool_choice) is not None
        ):
            self.options = replace(options, tool_choice=None)

    def executed(self, done: ExecutedCall) -> None:
        """Goes on with what came of a call."""
        self.calls.append(done)
        call = done.call
        self.messages.append(
            {"role": "tool", "tool_call_id": call.id, "name": call.name, "content": done.content}
        )

    def run(self, result: GenerationResult, num_rounds: int) -> ToolRun:
        """The conversation as it is now."""
        return ToolRun(result, self.messages, tuple(self.calls), num_rounds)
