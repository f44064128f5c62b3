"""Functions as tools: the JSON schema that transformers' `get_json_schema` makes of one."""

from __future__ import annotations

import enum
import inspect
import json
import re
import types
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

from executorch_mm.chat.docstrings import read_docstring
from executorch_mm.errors import InputError

Schema: TypeAlias = "dict[str, Any]"

_SCALARS: dict[type, str] = {
    int: "integer",
    float: "number",
    str: "string",
    bool: "boolean",
    type(None): "null",
}
_CONTAINERS: dict[object, str] = {list: "array", tuple: "array", dict: "object"}
_MEDIA = {("PIL.Image", "Image"): "image", ("torch", "Tensor"): "audio"}
_CHOICES = re.compile(r"\(choices:\s*(.*?)\)\s*$", re.IGNORECASE)
_EXPECTED = (
    "expected int, float, str, bool, None, an Enum, Literal, or list, tuple, dict and unions of them "
    "(or give the JSON schema of the tool)"
)


def function_schema(function: Callable[..., object]) -> Schema:
    """A function as a tool.

    Args:
        function: With a docstring that describes every argument in a section Args, and a type for each.

    Raises:
        InputError: Something of that is missing, or a type has no JSON schema.
    """
    name = function.__name__
    if not (text := inspect.getdoc(function)):
        raise InputError(f"function {name}: expected a docstring that describes it and its arguments")
    docstring = read_docstring(text)
    parameters, returns = _parameters(function)
    for argument, schema in parameters["properties"].items():
        if argument not in docstring.arguments:
            raise InputError(
                f"function {name}: expected a description of {argument!r} under Args: in its docstring"
            )
        _describe(schema, docstring.arguments[argument], f"function {name}: argument {argument!r}")
    described: Schema = {"name": name, "description": docstring.description, "parameters": parameters}
    if returns is not None:
        if docstring.returns is not None:
            returns["description"] = docstring.returns
        described["return"] = returns
    return {"type": "function", "function": described}


def _describe(schema: Schema, description: str, where: str) -> None:
    if choices := _CHOICES.search(description):
        try:
            values = json.loads(choices[1])
        except ValueError as error:
            raise InputError(f"{where}: expected JSON in (choices: ...), got {choices[1]!r}") from error
        if not isinstance(values, list):
            raise InputError(f"{where}: expected a JSON list in (choices: ...), got {choices[1]!r}")
        schema["enum"] = [value.strip() if isinstance(value, str) else value for value in values]
        description = description[: choices.start()].strip()
    schema["description"] = description


def _parameters(function: Callable[..., object]) -> tuple[Schema, Schema | None]:
    """The schemas of the arguments and of the result (None where its type is missing or has no schema)."""
    name = function.__name__
    try:
        hints = get_type_hints(function)
        parameters = inspect.signature(function).parameters
    except (NameError, TypeError, ValueError, AttributeError, SyntaxError) as error:
        raise InputError(f"function {name}: its types cannot be told ({error})") from error
    first = next(iter(parameters), None)
    is_method = first in ("self", "cls") and parameters[first].annotation is inspect.Parameter.empty
    receiver = first if is_method else None
    for parameter in parameters.values():
        if parameter.name != receiver and parameter.annotation is inspect.Parameter.empty:
            raise InputError(f"function {name}: expected a type for argument {parameter.name!r}")
    returns = hints.pop("return", inspect.Parameter.empty)
    properties = {
        argument: _schema(hint, f"function {name}: argument {argument!r}")
        for argument, hint in hints.items()
        if argument != receiver
    }
    required = [
        parameter.name
        for parameter in parameters.values()
        if parameter.name != receiver and parameter.default is inspect.Parameter.empty
    ]
    schema: Schema = {"type": "object", "properties": properties}
    if required:
        schema["required"] = required
    return schema, _schema_or_none(returns, name)


def _schema_or_none(hint: object, name: str) -> Schema | None:
    """The model writes arguments, so a result may have any type."""
    if hint is inspect.Parameter.empty:
        return None
    try:
        return _schema(hint, name)
    except InputError:
        return None


def _schema(hint: object, where: str) -> Schema:
    origin, args = get_origin(hint), get_args(hint)
    if origin is None:
        return _schema_of_class(hint, where)
    if origin in (Union, types.UnionType):
        return _schema_of_union(args, where)
    if origin is Literal:
        return _schema_of_values(args, where)
    if origin in _CONTAINERS:
        return _schema_of_container(origin, args, where)
    raise InputError(f"{where}: {_EXPECTED}, got {hint}")


def _schema_of_class(hint: object, where: str) -> Schema:
    if hint is Any:
        return {}
    if isinstance(hint, type):
        if issubclass(hint, enum.Enum):
            return _schema_of_values([member.value for member in hint], where)
        media = _MEDIA.get((hint.__module__, hint.__qualname__))
        if name := _SCALARS.get(hint) or _CONTAINERS.get(hint) or media:
            return {"type": name}
    raise InputError(f"{where}: {_EXPECTED}, got {hint}")


def _schema_of_values(values: Sequence[object], where: str) -> Schema:
    """Of an enum or a Literal."""
    if not values or any(type(value) not in _SCALARS for value in values):
        raise InputError(
            f"{where}: expected values that are int, float, str, bool or None, got {list(values)}"
        )
    names = list(dict.fromkeys(_SCALARS[type(value)] for value in values))
    return {"type": names[0] if len(names) == 1 else names, "enum": list(values)}


def _schema_of_union(args: Sequence[object], where: str) -> Schema:
    schemas = [_schema(arg, where) for arg in args if arg is not type(None)]
    if len(schemas) == 1:
        schema = schemas[0]
    elif all(list(one) == ["type"] and isinstance(one["type"], str) for one in schemas):
        names = sorted({one["type"] for one in schemas})
        schema = {"type": names[0] if len(names) == 1 else names}
    else:
        schema = {"anyOf": schemas}
    return {**schema, "nullable": True} if type(None) in args else schema


def _schema_of_container(origin: object, args: Sequence[object], where: str) -> Schema:
    if origin is list and args:
        return {"type": "array", "items": _schema(args[0], where)}
    if origin is tuple and args:
        if len(args) == 1 or ... in args:
            raise InputError(
                f"{where}: expected a list, or a tuple of two or more types, got tuple{list(args)}"
            )
        return {"type": "array", "prefixItems": [_schema(arg, where) for arg in args]}
    if origin is dict and args:
        return {"type": "object", "additionalProperties": _schema(args[1], where)}
    return {"type": "object" if origin is dict else "array"}
