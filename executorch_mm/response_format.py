"""What an answer must look like: the values of `GenerationConfig.response_format`."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeGuard, runtime_checkable

from executorch_mm.errors import InputError, shown

_EXPECTED = (
    "a JSON schema (a mapping or a pydantic model class), {'type': 'json_object'}, OpenAI's "
    "{'type': 'json_schema', 'json_schema': {'schema': ...}}, Regex(...) or LarkGrammar(...)"
)


@dataclass(frozen=True)
class Regex:
    """An answer that matches this regular expression as a whole.

    Attributes:
        pattern: In the syntax of Rust's regex crate: no look-around, no back references.
    """

    pattern: str

    def __post_init__(self) -> None:
        _check_text("Regex", self.pattern)


@dataclass(frozen=True)
class LarkGrammar:
    """An answer that this context-free grammar derives from its rule `start`.

    Attributes:
        definition: In llguidance's dialect of Lark.
    """

    definition: str

    def __post_init__(self) -> None:
        _check_text("LarkGrammar", self.definition)


@runtime_checkable
class SchemaModel(Protocol):
    """A class that knows its JSON schema, as pydantic's models do."""

    @classmethod
    def model_json_schema(cls) -> Mapping[str, object]:
        """The schema."""
        ...


ResponseFormat: TypeAlias = "Mapping[str, object] | type[SchemaModel] | Regex | LarkGrammar"
"""A JSON schema, or OpenAI's mappings around one; a pydantic model class; a regex; a grammar."""


def read_format(value: object) -> dict[str, object] | Regex | LarkGrammar | None:
    """A response format as a JSON schema, a regex or a grammar; None where any text will do.

    Raises:
        InputError: It is none; the message names the field.
    """
    if value is None or isinstance(value, (Regex, LarkGrammar)):
        return value
    if is_model(value):
        try:
            value = _of_model(_schema_of(value))
        except (RuntimeError, TypeError, ValueError) as error:  # pydantic's own are RuntimeErrors
            raise InputError(f"response_format: {shown(value)} has no JSON schema: {error}") from error
    if not isinstance(value, Mapping):
        raise InputError(f"response_format: expected {_EXPECTED}, got {shown(value)}")
    kind = value.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return {"type": "object"}
    if kind == "json_schema":
        inner = value.get("json_schema")
        value = inner.get("schema") if isinstance(inner, Mapping) else None
        if not isinstance(value, Mapping):
            raise InputError("response_format: expected a mapping at ['json_schema']['schema'], got none")
    return _plain(value)


def is_model(value: object) -> TypeGuard[type[SchemaModel]]:
    """Whether it is a class that knows its JSON schema."""
    return isinstance(value, type) and isinstance(value, SchemaModel)


def _schema_of(model: type[SchemaModel]) -> object:
    """A class's schema; where it is one of pydantic's, with formats of ours where there is no other."""
    modules = (sys.modules.get("pydantic"), sys.modules.get("pydantic.json_schema"))
    base = getattr(modules[0], "BaseModel", None)
    if modules[1] is None or not isinstance(base, type) or not issubclass(model, base):
        return model.model_json_schema()
    if model.model_json_schema.__func__ is not base.model_json_schema.__func__:  # type: ignore[attr-defined]
        return model.model_json_schema()
    return model.model_json_schema(schema_generator=_exact(modules[1].GenerateJsonSchema))  # type: ignore[call-arg]


@functools.cache
def _exact(generator: Any) -> type:
    """Of pydantic's maker of schemas one that tells date-times without zones and schemes of URLs."""

    class Exact(generator):  # type: ignore[misc]
        def datetime_schema(self, schema: Mapping[str, object]) -> dict[str, object]:
            made: dict[str, object] = super().datetime_schema(schema)
            if schema.get("tz_constraint") == "naive" and made.get("format") == "date-time":
                made["format"] = "naive-date-time"
            return made

        def url_schema(self, schema: Mapping[str, object]) -> dict[str, object]:
            made: dict[str, object] = super().url_schema(schema)
            schemes = schema.get("allowed_schemes")
            if isinstance(schemes, list) and schemes != ["file"] and made.get("format") == "uri":
                made["format"] = f"uri:{'|'.join(schemes)}"
            return made

    return Exact


def _of_model(schema: object) -> object:
    """A class's schema without `uniqueItems`: a set of pydantic's takes duplicates."""
    if isinstance(schema, list):
        return [_of_model(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    is_set = schema.get("type") == "array" and schema.get("uniqueItems") is True
    kept = {key: value for key, value in schema.items() if not (is_set and key == "uniqueItems")}
    return {key: _of_model(value) for key, value in kept.items()}


def _plain(schema: Mapping[str, object]) -> dict[str, object]:
    try:
        copy: dict[str, object] = json.loads(json.dumps(dict(schema), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"response_format: expected a JSON schema, got a mapping that is no JSON: {error}"
        ) from error
    return copy


def _check_text(name: str, text: object) -> None:
    if not isinstance(text, str) or not text:
        raise InputError(f"response_format: expected {name} of a non-empty str, got {shown(text)}")
