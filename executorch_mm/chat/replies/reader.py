"""An answer told apart into content, thinking and calls, while it is written."""

from __future__ import annotations

import json
import secrets
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import cast

from executorch_mm._engine.reply import Delta, Reply, ToolCall
from executorch_mm.chat.replies.contents import can_become, coerced, schema_types
from executorch_mm.chat.replies.partial import PartialCalls
from executorch_mm.chat.replies.regions import Event, Regions
from executorch_mm.chat.replies.template import THINKING, ReplyTemplate

_BETWEEN = "\n"  # parts of a text that calls stand between
_ID_CHARACTERS = string.ascii_letters + string.digits


class TemplateReader:
    """Reads one answer by a response template.

    Text comes out as soon as it cannot be the beginning of something else, without blanks at both its ends.
    What cannot be read as a call is content, as it was written.

    Args:
        template: Of the model.
        begun: What of the answer the prompt holds already.
        tools: The JSON schemas of the tools, whose types arguments get that the model writes as texts.
        streams_arguments: Whether calls are told of while they are written, where their arguments are JSON.
    """

    def __init__(
        self,
        template: ReplyTemplate,
        begun: str,
        tools: Sequence[Mapping[str, object]] | None = None,
        *,
        streams_arguments: bool = False,
    ) -> None:
        self._regions = Regions(template, begun)
        self._properties = {name: properties for name, properties in map(_properties_of, tools or ()) if name}
        self._texts = {"content": _Text(), "thinking": _Text()}
        self._calls: list[ToolCall] = []
        self._streams_arguments = streams_arguments
        self._partial: PartialCalls | None = None
        self._others: dict[str, object] = {
            name: value for name, value in template.defaults.items() if name not in _TOLD_APART
        }

    @property
    def is_thinking(self) -> bool:
        """See `ReplyReader`."""
        field = self._regions.field
        return field is not None and field.name in THINKING

    def push(self, text: str) -> list[Delta]:
        """See `ReplyReader`."""
        return self._deltas(self._regions.push(text))

    def finish(self, ended_by: str = "") -> list[Delta]:
        """See `ReplyReader`."""
        return self._deltas(self._regions.finish(ended_by))

    def reply(self) -> Reply:
        """See `ReplyReader`."""
        content, thinking = (self._texts[name].text for name in ("content", "thinking"))
        return Reply(content, thinking or None, tuple(self._calls), dict(self._others))

    def _deltas(self, events: Iterable[Event]) -> list[Delta]:
        return [delta for event in events for delta in self._told(event)]

    def _told(self, event: Event) -> list[Delta]:
        field, name = event.field, _told_as(event.field.name)
        if name in self._texts and field.is_streamed:
            text = self._texts[name]
            piece = text.end() if event.is_end else text.push(event.text)
            return [_delta(name, piece)] if piece else []
        if not event.is_end:
            return self._partly(event.text) if name == "tool_calls" and self._streams_arguments else []
        partial, self._partial = self._partial, None
        calls = self._read_calls(event) if name == "tool_calls" and event.error is None else None
        if calls is not None:
            if partial is not None:
                calls = list(map(_as_begun, calls, [*partial.begun, *[("", "")] * len(calls)]))
            self._calls += calls
            return [Delta(tool_call=call) for call in calls]
        if event.error is None and name not in _TOLD_APART:
            self._keep(event)
            return []
        if event.error is None and name in self._texts:
            return self._whole(name, event.value if isinstance(event.value, str) else json.dumps(event.value))
        return self._whole("content", event.text)

    def _partly(self, text: str) -> list[Delta]:
        if self._partial is None:
            self._partial = PartialCalls(self._is_text, self._typed, _new_id)
        return [Delta(call_piece=piece) for piece in self._partial.push(text)]

    def _schema(self, function: str, argument: str) -> object:
        return self._properties.get(function, {}).get(argument)

    def _is_text(self, function: str, argument: str) -> bool:
        return not can_become(self._schema(function, argument))

    def _typed(self, function: str, argument: str, value: object) -> object:
        return _typed(value, self._schema(function, argument))

    def _whole(self, name: str, written: str) -> list[Delta]:
        piece = self._texts[name].push(written)
        self._texts[name].end()
        return [_delta(name, piece)] if piece else []

    def _keep(self, event: Event) -> None:
        field, value = event.field, event.value
        known = self._others.get(field.name)
        if field.join is not None and isinstance(value, str):
            self._others[field.name] = value if known is None else f"{known}{field.join}{value}"
        elif field.repeats:
            self._others[field.name] = [*(known if isinstance(known, list) else ()), value]
        else:
            self._others[field.name] = value

    def _read_calls(self, event: Event) -> list[ToolCall] | None:
        values = event.value if isinstance(event.value, list) else [event.value]
        calls = [self._read_call(value) for value in values]
        return None if None in calls else cast("list[ToolCall]", calls)

    def _read_call(self, value: object) -> ToolCall | None:
        function = value.get("function", value) if isinstance(value, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(name := function.get("name"), str) or not name:
            return None
        arguments = function.get("arguments", function.get("parameters", {}))
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments) if arguments.strip() else {}
            except (ValueError, RecursionError):
                return None
        if not isinstance(arguments, Mapping):
            return None
        schemas = self._properties.get(name, {})
        typed = {key: _typed(argument, schemas.get(key)) for key, argument in arguments.items()}
        return ToolCall(name, typed, _new_id())


class _Text:
    """A text without blanks at its ends, as far as it is known."""

    def __init__(self) -> None:
        self.text = ""
        self._blanks = ""
        self._is_begun = False

    def push(self, text: str) -> str:
        """More of it; returns what may be shown."""
        whole = self._blanks + text
        if not self._is_begun:
            whole = whole.lstrip()
        shown = whole.rstrip()
        self._blanks = whole[len(shown) :]
        if shown and not self._is_begun:
            self._is_begun = True
            shown = f"{_BETWEEN if self.text else ''}{shown}"
        self.text += shown
        return shown

    def end(self) -> str:
        """A part is over."""
        self._blanks, self._is_begun = "", False
        return ""


_TOLD_APART = {"content", *THINKING, "tool_calls"}


def _told_as(name: str) -> str:
    return "thinking" if name in THINKING else name


def _delta(name: str, piece: str) -> Delta:
    return Delta(content=piece) if name == "content" else Delta(thinking=piece)


def _new_id() -> str:
    return "".join(secrets.choice(_ID_CHARACTERS) for _ in range(9))


def _as_begun(call: ToolCall, begun: tuple[str, str]) -> ToolCall:
    """A call by the id by which its beginning was told."""
    return replace(call, id=begun[0]) if begun[1] == call.name else call


def _properties_of(tool: Mapping[str, object]) -> tuple[str, Mapping[str, object]]:
    function = tool.get("function", tool)
    if not isinstance(function, Mapping) or not isinstance(name := function.get("name"), str):
        return "", {}
    parameters = function.get("parameters")
    properties = parameters.get("properties") if isinstance(parameters, Mapping) else None
    return name, properties if isinstance(properties, Mapping) else {}


def _typed(argument: object, schema: object) -> object:
    if isinstance(argument, str):
        return coerced(argument, schema)
    if isinstance(argument, list) and "array" not in (types := schema_types(schema)) and types:
        return [coerced(item, schema) if isinstance(item, str) else item for item in argument]
    return argument
