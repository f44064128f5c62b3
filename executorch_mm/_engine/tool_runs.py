"""What came of calls of tools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from executorch_mm._engine.reply import ToolCall

if TYPE_CHECKING:
    from executorch_mm._engine.result import GenerationResult


@dataclass(frozen=True)
class ExecutedCall:
    """A call of a tool and what came of it.

    Attributes:
        call: As the model asked for it.
        content: What the model was told.
        output: What the function returned; None where it was not called or failed.
        error: Why it was not called, or what it raised; None where it returned.
    """

    call: ToolCall
    content: str
    output: Any = None
    error: Exception | None = None


@dataclass(frozen=True)
class ToolRun:
    """A conversation in which tools were called.

    Attributes:
        result: The last answer.
        messages: The whole conversation with calls, what came of them, and the last answer.
        calls: Those that were dealt with, in order.
        num_rounds: Answers of the model.
    """

    result: GenerationResult
    messages: Sequence[Any]
    calls: tuple[ExecutedCall, ...]
    num_rounds: int

    @property
    def is_complete(self) -> bool:
        """Whether the last answer asks for nothing more; False where the rounds were used up."""
        return not self.result.tool_calls
