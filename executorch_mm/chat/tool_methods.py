"""The runner's methods that carry out calls of tools."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from executorch_mm._loading.shown_options import show_options
from executorch_mm.chat.methods import ChatMethods
from executorch_mm.config import SHOWN, ChatGenerationOptions, GenerationConfig

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from executorch_mm._engine.reply import ToolCall
    from executorch_mm._engine.tool_runs import ToolRun
    from executorch_mm.chat.chat import ChatOptions
    from executorch_mm.chat.template import Message
    from executorch_mm.chat.tool_runs import ToolBox
    from executorch_mm.chat.tools import Tool

_ROUNDS = 8


class ToolMethods(ChatMethods):
    """Tools that are called, for a runner that has chats."""

    def run_tools(
        self,
        messages: Sequence[Message] | str,
        tools: Sequence[Tool],
        config: GenerationConfig | None = None,
        *,
        functions: Mapping[str, Callable[..., Any]] | None = None,
        approve: Callable[[ToolCall], object] | None = None,
        max_rounds: int = _ROUNDS,
        chat_options: ChatOptions | None = None,
        **options: Unpack[ChatGenerationOptions],
    ) -> ToolRun:
        """Answers a conversation, and calls the tools that the model asks for until it asks for none.

        What a function returns goes back to the model, a text as it is and all else as JSON; so does the
        message of what it raises, of arguments that it does not take, and of a call that was not approved.
        A function gets the arguments as JSON has them. Calls are the model's words: with texts of strangers
        in the conversation, look at them in `approve`.

        Args:
            messages: As in `chat`.
            tools: The same; functions among them are called.
            config: The same.
            functions: What is called for tools that are schemas or pydantic's models, by name.
            approve: Gets each `ToolCall` before it is made; what is false refuses it. None: all are made.
            max_rounds: Answers of the model at most, 1 to 1,000. The calls of the last are not made.
            chat_options: As in `chat`; a `tool_choice` that requires a call holds for the first answer.
            **options: As in `chat`.

        Raises:
            InputError: A tool has no function; or as in `chat`.
            CapacityError, ExecutionError, BusyError: As in `chat`.

        Examples:
            >>> from executorch_mm import MultimodalRunner
            >>> def add(a: int, b: int) -> int:
            ...     '''Adds.
            ...
            ...     Args:
            ...         a: One.
            ...         b: The other.
            ...     '''
            ...     return a + b
            >>> with MultimodalRunner.demo() as runner:
            ...     run = runner.run_tools("what is 2 + 3?", [add], max_new_tokens=8)
            >>> run.is_complete, len(run.calls)
            (True, 0)
        """
        from executorch_mm.chat.tool_runs import Conversation  # here: few need it

        box = _box(tools, functions, approve, max_rounds)
        conversation = Conversation.begin(messages, chat_options)
        rounds = 0
        while True:
            result = self.chat(
                conversation.messages, config, tools=tools, chat_options=conversation.options, **options
            )
            rounds += 1
            conversation.answered(result)
            if not result.tool_calls or rounds == box.max_rounds:
                return conversation.run(result, rounds)
            for call in result.tool_calls:
                conversation.executed(box.execute(call))

    async def arun_tools(
        self,
        messages: Sequence[Message] | str,
        tools: Sequence[Tool],
        config: GenerationConfig | None = None,
        *,
        functions: Mapping[str, Callable[..., Any]] | None = None,
        approve: Callable[[ToolCall], object] | None = None,
        max_rounds: int = _ROUNDS,
        chat_options: ChatOptions | None = None,
        **options: Unpack[ChatGenerationOptions],
    ) -> ToolRun:
        """`run_tools` for a task: coroutine functions are awaited, others run in threads.

        `approve` is called in the task. Between the rounds others may use the runner; each answer reads what
        they have put into the context in between.
        """
        from executorch_mm.chat.tool_runs import Conversation  # here: few need it

        box = _box(tools, functions, approve, max_rounds)
        conversation = Conversation.begin(messages, chat_options)
        rounds = 0
        while True:
            result = await self.achat(
                conversation.messages, config, tools=tools, chat_options=conversation.options, **options
            )
            rounds += 1
            conversation.answered(result)
            if not result.tool_calls or rounds == box.max_rounds:
                return conversation.run(result, rounds)
            for call in result.tool_calls:
                conversation.executed(await box.aexecute(call))


def _box(tools: object, functions: object, approve: object, max_rounds: object) -> ToolBox:
    from executorch_mm.chat.tool_runs import ToolBox
    from executorch_mm.chat.tools import name_of_tool, read_tools

    box = ToolBox(tools, functions, approve, max_rounds)
    box.expect_all([name_of_tool(tool) for tool in read_tools(tools) or ()])  # type: ignore[arg-type]
    return box


show_options(ToolMethods, SHOWN)
