"""What an answer says, beside its text: thinking, calls of tools, content."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from executorch_mm import _core


@dataclass(frozen=True)
class ToolCall:
    """A call of a tool that a model asks for.

    Attributes:
        name: Of the tool; not always one of those that it was given.
        arguments: By name, as JSON has them.
        id: Told apart by, nine letters and digits.
    """

    name: str
    arguments: Mapping[str, Any]
    id: str

    def to_dict(self) -> dict[str, Any]:
        """OpenAI's form, for `messages`: the arguments are JSON in a text."""
        arguments = json.dumps(self.arguments, ensure_ascii=False)
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": arguments}}


class CallPiece(NamedTuple):
    """More of a call of a tool that is being written.

    Attributes:
        id: Of the call.
        name: Of the tool.
        arguments: More of its arguments as JSON; joined they are those of `ToolCall.to_dict`.
    """

    id: str
    name: str
    arguments: str


class Delta(NamedTuple):
    """A piece of an answer, of one of three kinds; joined they are the whole.

    Attributes:
        content: Text for the user.
        thinking: What the model thinks before it answers.
        tool_call: A call that is complete.
        call_piece: With `ChatOptions(stream_arguments=True)`: more of a call that is not. One that turns out
            to be none ends without its `tool_call`, and is content as it was written.
    """

    content: str = ""
    thinking: str = ""
    tool_call: ToolCall | None = None
    call_piece: CallPiece | None = None


class TokensDelta(Delta):
    """A piece of an answer whose logprobs are asked for.

    Attributes:
        records: The tokens that have come with it.
    """

    records: Sequence[_core.TokenRecord] = ()

    @classmethod
    def of(cls, delta: Delta, records: Sequence[_core.TokenRecord]) -> TokensDelta:
        """A piece, and the tokens that have come with it."""
        made = cls(*delta)
        made.records = records
        return made


@dataclass(frozen=True)
class Reply:
    """A whole answer, told apart.

    Attributes:
        content: Text for the user.
        thinking: What the model thought; None where its answers have no such part, or it was empty.
        tool_calls: What it asks for.
        others: More parts that the model's own template names.
    """

    content: str
    thinking: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    others: Mapping[str, object] = field(default_factory=dict)


class ThinkingBudget(NamedTuple):
    """How long a model may think.

    Attributes:
        num_tokens: Of an answer, in all.
        end: The tokens that then end it.
    """

    num_tokens: int
    end: tuple[int, ...]


class ReplyReader(Protocol):
    """Tells an answer apart while it is written."""

    @property
    def is_thinking(self) -> bool:
        """Whether what comes next is thinking, if nothing else begins."""
        ...

    def push(self, text: str) -> Sequence[Delta]:
        """Takes more of it, with its control tokens written out."""
        ...

    def finish(self, ended_by: str = "") -> Sequence[Delta]:
        """Takes the rest: the control token that ended it, if one did."""
        ...

    def reply(self) -> Reply:
        """What is known so far."""
        ...
