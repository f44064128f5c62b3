"""Tools as JSON schemas, whatever they were given as."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias, cast

from executorch_mm.chat.function_schema import function_schema
from executorch_mm.chat.values import Fields, as_mapping, is_list, plain
from executorch_mm.errors import InputError

if TYPE_CHECKING:
    from typing import Any

Tool: TypeAlias = "Fields | Callable[..., Any] | type"
"""A function's JSON schema, a function with types and docstring, or a class of pydantic's models."""

_EXPECTED = "a JSON schema in a mapping, a function or a pydantic model"


def read_tools(tools: Sequence[Tool] | None) -> list[dict[str, object]] | None:
    """The JSON schemas of tools.

    Args:
        tools: JSON schemas in mappings (or objects with such fields), functions and methods, whose schema is
            the one that transformers' `get_json_schema` makes, and classes of pydantic, whose fields are the
            arguments.

    Raises:
        InputError: Something is of another kind, or a function does not say what it takes; the message names
            the place, as in `tools[0]`.
    """
    if tools is None:
        return None
    if not is_list(tools):
        raise InputError(f"tools: expected a list, each {_EXPECTED}, got {type(tools).__name__}")
    return [_read_tool(tool, f"tools[{index}]") for index, tool in enumerate(tools)]


def _read_tool(tool: object, where: str) -> dict[str, object]:
    if inspect.isfunction(tool) or inspect.ismethod(tool):
        try:
            return function_schema(tool)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
    if isinstance(tool, type) and callable(getattr(tool, "model_json_schema", None)):
        return _schema_of_model(tool, where)
    fields = as_mapping(tool, where)
    if fields is None:
        raise InputError(f"{where}: expected {_EXPECTED}, got {type(tool).__name__}")
    return cast("dict[str, object]", plain(fields, where))


def _schema_of_model(model: type, where: str) -> dict[str, object]:
    try:
        schema = plain(model.model_json_schema(), where)  # type: ignore[attr-defined]
    except InputError:
        raise
    except Exception as error:  # whatever pydantic finds in it
        raise InputError(f"{where}: {model.__name__} has no JSON schema ({error})") from error
    if not isinstance(schema, dict):
        raise InputError(
            f"{where}: expected a JSON schema from model_json_schema(), got {type(schema).__name__}"
        )
    function: dict[str, object] = {"name": model.__name__}
    if "description" in schema:
        function["description"] = schema["description"]
    return {"type": "function", "function": {**function, "parameters": schema}}


def name_of_tool(schema: Mapping[str, object]) -> object:
    """The name in a tool's JSON schema; None where it has none."""
    function = schema.get("function", schema)
    return function.get("name") if isinstance(function, Mapping) else None
