"""Arguments of tool calls in earlier answers: JSON in a text or an object, as the template wants them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias, cast

from executorch_mm.chat.rendering import StoppedError
from executorch_mm.errors import InputError

_Message: TypeAlias = "dict[str, object]"
_Change: TypeAlias = Callable[[object, str], object]

_PROBE = '{"zq7probe": "zq7probe"}'


def in_wanted_form(
    messages: Sequence[_Message], render: Callable[[Sequence[_Message]], str]
) -> Iterator[list[_Message]]:
    """Messages whose arguments are what a template takes, the likeliest first; the others where that fails.

    OpenAI's API has them as JSON in a text, most templates want the object, and some join the text to others.
    A text stays one where the template writes it as it is, which a trial tells.

    Args:
        messages: In plain data.
        render: The template on these messages.

    Raises:
        InputError: A text that has to become an object is no JSON.
    """
    given = list(messages)
    kinds: set[type] = set()
    _changed(given, lambda arguments, _: kinds.add(type(arguments)))
    if str in kinds and not _takes_texts(given, render):
        yield _changed(given, _as_object)
        yield given
        return
    yield given
    if not kinds <= {str, type(None)}:
        yield _changed(given, _as_text)


def _takes_texts(messages: list[_Message], render: Callable[[Sequence[_Message]], str]) -> bool:
    trial = _changed(messages, lambda given, _: _PROBE if isinstance(given, str) else given)
    try:
        text = render(trial)
    except StoppedError:
        raise
    except InputError:
        return False
    return _PROBE in text or "zq7probe" not in text


def _as_object(arguments: object, where: str) -> object:
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments) if arguments.strip() else {}
    except ValueError as error:
        raise InputError(f"{where}: expected JSON ({error})") from error


def _as_text(arguments: object, _where: str) -> object:
    return (
        arguments if isinstance(arguments, (str, type(None))) else json.dumps(arguments, ensure_ascii=False)
    )


def _changed(messages: list[_Message], change: _Change) -> list[_Message]:
    return [_changed_message(message, change, f"messages[{index}]") for index, message in enumerate(messages)]


def _changed_message(message: _Message, change: _Change, where: str) -> _Message:
    changed = dict(message)
    if isinstance(calls := message.get("tool_calls"), (list, tuple)):
        changed["tool_calls"] = [
            _changed_call(call, change, f"{where}.tool_calls[{index}]") for index, call in enumerate(calls)
        ]
    if isinstance(call := message.get("function_call"), dict):  # OpenAI's older form
        changed["function_call"] = _changed_function(call, change, f"{where}.function_call")
    return changed


def _changed_call(call: Mapping[str, object], change: _Change, where: str) -> _Message:
    if isinstance(function := call.get("function"), dict):
        return {**call, "function": _changed_function(function, change, f"{where}.function")}
    return _changed_function(cast(_Message, call), change, where)


def _changed_function(function: _Message, change: _Change, where: str) -> _Message:
    if "arguments" not in function:
        return function
    return {**function, "arguments": change(function["arguments"], f"{where}.arguments")}
