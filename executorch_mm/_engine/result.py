"""Everything that is known of an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from executorch_mm import _core
from executorch_mm.stats import Stats, as_html, counted, duration

if TYPE_CHECKING:
    from executorch_mm._engine.json_answer import JsonAnswer
    from executorch_mm._engine.reply import Reply, ToolCall


@dataclass(frozen=True, repr=False)
class GenerationResult:
    """A whole answer.

    `token_ids`, `logprobs`, `top_logprobs` and `token_times` are of one length. They hold every token of
    the answer, also one that ended it and has no part in `text`.

    Attributes:
        text: What `generate_text` returns.
        token_ids: The tokens.
        logprobs: The logarithm of each token's probability in the model's own distribution; None unless
            the config asks for them.
        top_logprobs: For each token the likeliest ones at its place, as (token id, logarithm of its
            probability), falling; None unless the config asks for them.
        finish_reason: As in `Stats`.
        stopped_by: As in `Stats`.
        token_times: Seconds from the beginning of the request to each of the tokens.
        stats: What the request cost.
        alternatives: The other answers where num_return_sequences asks for several. The prompt's figures
            are the same in the stats of all; times count from the beginning of the request.
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...] | None
    top_logprobs: tuple[tuple[tuple[int, float], ...], ...] | None
    finish_reason: str | None
    stopped_by: str | int | None
    token_times: tuple[float, ...]
    stats: Stats
    alternatives: tuple[GenerationResult, ...] = ()
    _json: JsonAnswer | None = field(default=None, repr=False, compare=False)
    _reply: Reply | None = field(default=None, repr=False, compare=False)

    @property
    def content(self) -> str:
        """Of a chat, the text for the user: without thinking and calls, and without blanks at its ends.

        `text` where the model's files name no such parts.
        """
        return self.text if self._reply is None else self._reply.content

    @property
    def thinking(self) -> str | None:
        """Of a chat, what the model thought before it answered; None where there is no such part."""
        return None if self._reply is None else self._reply.thinking

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """Of a chat, the calls of tools that the model asks for."""
        return () if self._reply is None else self._reply.tool_calls

    @property
    def message(self) -> dict[str, Any]:
        """The answer as a message of the assistant in OpenAI's form, to go on with in `messages`.

        With "reasoning_content" where the model thought, and what else its own response template names.
        """
        reply = self._reply
        message: dict[str, Any] = {} if reply is None else dict(reply.others)
        message |= {"role": "assistant", "content": self.content}
        if self.thinking is not None:
            message["reasoning_content"] = self.thinking
        if self.tool_calls:
            message["tool_calls"] = [call.to_dict() for call in self.tool_calls]
        return message

    @cached_property
    def parsed(self) -> Any:
        """What an answer in JSON stands for: an object of the class where `response_format` was pydantic's.

        Else a dict, a list, a str or whatever the schema asks for. None where the answer is not JSON by a
        `response_format`, or was cut short.

        Raises:
            ResponseFormatError: The class refuses it for a reason that its schema does not tell.
        """
        return None if self._json is None else self._json.parsed()

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON; logprobs only where the config asks for them."""
        asked: dict[str, Any] = {} if self.logprobs is None else {"logprobs": [*self.logprobs]}
        if self.top_logprobs is not None:
            asked["top_logprobs"] = [[*top] for top in self.top_logprobs]
        return {
            "text": self.text,
            "finish_reason": self.finish_reason,
            "stopped_by": self.stopped_by,
            "token_ids": [*self.token_ids],
            **asked,
            **({} if self._reply is None else {"message": self.message}),
            "stats": self.stats.to_dict(),
            "alternatives": [other.to_dict() for other in self.alternatives],
        }

    def to_json(self) -> str:
        """`to_dict()` as a JSON object."""
        import json  # here: the import of the package stays short

        return json.dumps(self.to_dict(), ensure_ascii=False)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        text = self.text if len(self.text) <= 60 else self.text[:60] + "..."
        others = f", {counted(len(self.alternatives), 'alternative')}" if self.alternatives else ""
        calls = f", {counted(len(self.tool_calls), 'tool call')}" if self.tool_calls else ""
        return (
            f"<GenerationResult: {text!r}, {counted(len(self.token_ids), 'token')}{calls}{others}, "
            f"finish reason: {self.finish_reason}>"
        )

    def _repr_html_(self) -> str:
        """For notebooks: the text, why it ended, and what it cost."""
        stats = self.stats
        cached = f" ({stats.num_cached_tokens} cached)" if stats.num_cached_tokens else ""
        rows = {
            "finish reason": self.finish_reason or "-",
            "tokens": f"{stats.num_prompt_tokens}{cached} + {len(self.token_ids)}",
        }
        if stats.first_token_ns:
            rows["first token"] = duration(stats.time_to_first_token)
        rows["total"] = duration(stats.total_seconds)
        if stats.tokens_per_second:
            rows["tokens/s"] = f"{stats.tokens_per_second:.0f}"
        return as_html(self.text, rows)


def make_result(
    text: str,
    records: Sequence[_core.TokenRecord],
    stats: Stats,
    *,
    has_logprobs: bool,
    json: JsonAnswer | None = None,
    reply: Reply | None = None,
    alternatives: Sequence[GenerationResult] = (),
) -> GenerationResult:
    """An answer of these tokens."""
    return GenerationResult(
        text=text,
        token_ids=tuple(record.token for record in records),
        logprobs=tuple(record.logprob for record in records) if has_logprobs else None,
        top_logprobs=(
            tuple(tuple((top.token, top.logprob) for top in record.top_logprobs) for record in records)
            if has_logprobs
            else None
        ),
        finish_reason=stats.finish_reason,
        stopped_by=stats.stopped_by,
        token_times=tuple(record.time_ns / 1e9 for record in records),
        stats=stats,
        alternatives=tuple(alternatives),
        _json=json,
        _reply=reply,
    )
