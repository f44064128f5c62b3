"""Answers that are JSON: a document is read and compared with its schema once more.

llguidance sees to it token by token that the text keeps to the schema. What the text means is known once it
is read: of a key that comes twice the last one counts, letters of a key may be escaped, numbers are rounded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple, Protocol, TypeGuard, cast

from executorch_mm._engine.json_schema import Schema, target_of
from executorch_mm.errors import ResponseFormatError

_LONGEST_SHOWN = 60


class ModelClass(Protocol):
    """The part of a pydantic model class that makes an object of a document."""

    __name__: str

    def model_validate_json(self, json_data: str) -> object: ...


class JsonAnswer(NamedTuple):
    """A complete answer that its schema accepts.

    Attributes:
        text: The document.
        model: The class that the schema came from, where it is one of pydantic's.
    """

    text: str
    model: ModelClass | None = None

    def parsed(self) -> object:
        """What the document stands for.

        Raises:
            ResponseFormatError: The class refuses it for a reason that its schema does not tell.
        """
        if self.model is None:
            return json.loads(self.text)
        try:
            return self.model.model_validate_json(self.text)
        except ValueError as error:
            name = self.model.__name__
            raise ResponseFormatError(
                f"response_format: {name} refuses the answer: {error}", self.text
            ) from error


def read_answer(text: str, schema: Schema, source: object) -> JsonAnswer:
    """A complete answer to a request for JSON.

    Args:
        text: The document.
        schema: What it has to keep to, as llguidance got it.
        source: The response format as it was given.

    Raises:
        ResponseFormatError: The text cannot be read, or the schema does not accept what it says.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = f"response_format: the answer cannot be read as JSON: {error}"
        raise ResponseFormatError(reason, text) from error
    try:
        fault = next(_faults(value, schema, schema, "$"), None)
    except RecursionError:  # nested too deeply to look at, or a schema that refers to itself
        fault = None
    if fault is not None:
        raise ResponseFormatError(f"response_format: the schema does not accept the answer: {fault}", text)
    has_objects = isinstance(source, type) and hasattr(source, "model_validate_json")
    return JsonAnswer(text, cast(ModelClass, source) if has_objects else None)


def _faults(value: object, schema: object, root: Schema, path: str) -> Iterator[str]:
    """What a schema has against a value.

    `pattern` and `format` are not looked at: they are of texts, which the grammar saw as they are. A key that
    patternProperties may mean may keep to any of its schemas, and oneOf means anyOf, because llguidance takes
    it only where no two can hold at a time.
    """
    if schema is False:
        yield f"{path}: expected nothing, got {_shown(value)}"
    if isinstance(schema, dict):
        yield from _combination_faults(value, schema, root, path)
        yield from _value_faults(value, schema, path)
        if isinstance(value, list):
            yield from _item_faults(value, schema, root, path)
        elif isinstance(value, dict):
            yield from _property_faults(value, schema, root, path)


def _combination_faults(value: object, schema: Schema, root: Schema, path: str) -> Iterator[str]:
    yield from _faults(value, target_of(schema.get("$ref"), root), root, path)
    for part in _list(schema.get("allOf")):
        yield from _faults(value, part, root, path)
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema and not _keeps_to_any(value, _list(schema[keyword]), root, path):
            yield f"{path}: expected one of {keyword}, got {_shown(value)}"


def _value_faults(value: object, schema: Schema, path: str) -> Iterator[str]:
    types = schema.get("type", [])
    types = types if isinstance(types, list) else [types]
    if types and not any(_is_of_type(value, name) for name in types):
        yield f"{path}: expected {' or '.join(map(str, types))}, got {_shown(value)}"
    if "const" in schema and not _equal(value, schema["const"]):
        yield f"{path}: expected {_shown(schema['const'])}, got {_shown(value)}"
    if "enum" in schema and not any(_equal(value, allowed) for allowed in _list(schema["enum"])):
        yield f"{path}: expected one of enum, got {_shown(value)}"
    if isinstance(value, str):
        yield from _size_faults(len(value), schema, "Length", "characters", path)
    elif isinstance(value, list):
        yield from _size_faults(len(value), schema, "Items", "items", path)
    elif isinstance(value, dict):
        yield from _size_faults(len(value), schema, "Properties", "different keys", path)
    elif _is_number(value):
        yield from _number_faults(value, schema, path)


def _size_faults(size: int, schema: Schema, what: str, unit: str, path: str) -> Iterator[str]:
    least, most = schema.get(f"min{what}", 0), schema.get(f"max{what}", math.inf)
    if isinstance(least, int) and size < least:
        yield f"{path}: expected {least} {unit} or more, got {size}"
    if isinstance(most, int) and size > most:
        yield f"{path}: expected {most} {unit} or fewer, got {size}"


def _number_faults(value: float, schema: Schema, path: str) -> Iterator[str]:
    least, most = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    above, below = least if above is True else above, most if below is True else below  # as in draft 4
    is_outside = (
        (_is_number(least) and value < least)
        or (_is_number(most) and value > most)
        or (_is_number(above) and value <= above)
        or (_is_number(below) and value >= below)
    )
    if is_outside:
        yield f"{path}: expected a number between the bounds, got {_shown(value)}"
    step = schema.get("multipleOf")
    if _is_number(step) and step and (math.isinf(value) or Fraction(repr(value)) % Fraction(repr(step))):
        yield f"{path}: expected a multiple of {step}, got {_shown(value)}"


def _item_faults(value: list[object], schema: Schema, root: Schema, path: str) -> Iterator[str]:
    items, first = schema.get("items"), _list(schema.get("prefixItems"))
    if isinstance(items, list):  # as before draft 2020-12
        first, items = items, schema.get("additionalItems")
    for index, item in enumerate(value):
        yield from _faults(item, first[index] if index < len(first) else items, root, f"{path}/{index}")


def _property_faults(value: dict[str, object], schema: Schema, root: Schema, path: str) -> Iterator[str]:
    named, patterns = _dict(schema.get("properties")), _dict(schema.get("patternProperties"))
    others = [*patterns.values(), schema.get("additionalProperties", True)]
    for key in _list(schema.get("required")):
        if key not in value:
            yield f"{path}: expected the key {_shown(key)}, got none"
    for key, item in value.items():
        below = f"{path}/{key}"
        if key in named:
            yield from _faults(item, named[key], root, below)
        elif not _keeps_to_any(item, others, root, below):
            yield from _faults(item, others[-1], root, below)


def _keeps_to_any(value: object, schemas: list[object], root: Schema, path: str) -> bool:
    return any(next(_faults(value, schema, root, path), None) is None for schema in schemas)


def _is_of_type(value: object, name: object) -> bool:
    if name == "number":
        return _is_number(value)
    if name == "integer":
        return _is_number(value) and (isinstance(value, int) or value.is_integer())
    kinds = {"null": type(None), "boolean": bool, "string": str, "array": list, "object": dict}
    return isinstance(value, kinds[str(name)])


def _equal(left: object, right: object) -> bool:
    """As JSON has it: 1 is 1.0, but true is not 1."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_equal, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_equal(left[key], right[key]) for key in left)
    return left == right


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _dict(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."
