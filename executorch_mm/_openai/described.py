"""What readers of fields take, as a JSON schema: they read an example, and what they ask for is noted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields as fields_of
from functools import lru_cache
from typing import Any

from executorch_mm._openai.failures import ApiError
from executorch_mm._openai.fields import Fields, Schema
from executorch_mm.config import GenerationConfig
from executorch_mm.errors import InputError

_TYPES = {"bool": "boolean", "int": "integer", "float": "number"}


class Described(Fields):
    """Fields of an example that note what they are asked for.

    Args:
        values: A body that is taken, with all fields behind which there are others.
        where: As for `Fields`.
    """

    def __init__(self, values: Mapping[str, Any], where: str = "") -> None:
        super().__init__(values, where)
        self._noted: dict[str, Schema] = {}
        self._below: dict[str, Described] = {}
        self._is_closed = False

    def schema(self) -> dict[str, Any]:
        """Of the object. All fields may be null, which is as good as nothing."""
        below = {name: _or_null(each.schema()) for name, each in self._below.items()}
        properties = {**self._noted, **below}
        more: dict[str, Any] = {"additionalProperties": False} if self._is_closed else {}
        return {"type": "object", "properties": properties, **more}

    def take(self, name: str, schema: Schema | None = None) -> Any:
        """A value; see `Fields`."""
        if schema is None:
            schema = _of_option(name) if name in _options() else {}
        self._note(name, _or_null(schema))
        return super().take(name)

    def integer(self, name: str, least: int, most: int = 2**31 - 1) -> int | None:
        """An integer; see `Fields`."""
        self._note(name, {"type": ["integer", "null"], "minimum": least, "maximum": most})
        return super().integer(name, least, most)

    def choice(self, name: str, *allowed: str) -> str | None:
        """One of a few texts; see `Fields`."""
        self._note(name, {"enum": [*allowed, None]})
        return super().choice(name, *allowed)

    def fields(self, name: str) -> Fields | None:
        """An object; see `Fields`."""
        given = super().fields(name)
        if given is None:
            return None
        return self._below.setdefault(name, Described(given.values, f"{self._where}{name}."))

    def items(self, name: str, each: Schema | None = None) -> list[Any] | None:
        """A list; see `Fields`."""
        items = {} if each is None else {"items": each}
        self._note(name, {"type": ["array", "null"], **items})
        return super().items(name, each)

    def refuse(self, name: str, why: str, *allowed: object) -> None:
        """A field that asks for something that is not there; see `Fields`."""
        self._note(
            name,
            {
                "enum": [*allowed, None],
                "description": why,
            },
        )
        super().refuse(name, why, *allowed)

    def ignore(self, *names: str) -> None:
        """Fields that change nothing here; see `Fields`."""
        for name in names:
            self._note(name, {"description": "changes nothing here"})
        super().ignore(*names)

    def finish(self) -> None:
        """No other field is known; see `Fields`."""
        self._is_closed = True
        super().finish()

    def _note(self, name: str, schema: Schema) -> None:
        self._noted.setdefault(name, schema)

    def _of(self, name: str, kind: type, expected: str) -> object:
        plain = {str: "string", bool: "boolean", dict: "object", list: "array"}[kind]
        self._note(name, {"type": [plain, "null"]})
        return super()._of(name, kind, expected)


def describe(read: Callable[[Fields], object], example: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of what a function reads.

    Args:
        read: Takes the fields of a body.
        example: As for `Described`. What it cannot do without is found by leaving it out.
    """
    fields = Described(example)
    read(fields)
    schema = fields.schema()
    required = [name for name in example if _is_missed(read, example, name)]
    for name in required:
        schema["properties"][name] = _without_null(schema["properties"][name])
    return {**schema, "required": required}


def _is_missed(read: Callable[[Fields], object], example: Mapping[str, Any], name: str) -> bool:
    try:
        read(Fields({other: value for other, value in example.items() if other != name}))
    except ApiError as error:
        return error.code == "missing_required_parameter" and error.param == name
    return False


def _or_null(schema: Schema) -> Schema:
    kind = schema.get("type")
    if kind is not None:
        return {**schema, "type": [*(kind if isinstance(kind, list) else [kind]), "null"]}
    if isinstance(either := schema.get("anyOf"), list):
        return {**schema, "anyOf": [*either, {"type": "null"}]}
    return schema


def _without_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(schema.get("type"), list):
        (kind,) = (each for each in schema["type"] if each != "null")
        return {**schema, "type": kind}
    return {**schema, "anyOf": [each for each in schema["anyOf"] if each != {"type": "null"}]}


@lru_cache(maxsize=1)
def _options() -> dict[str, str]:
    """The types of the fields of `GenerationConfig`, as they are written there."""
    return {each.name: str(each.type).removesuffix(" | None") for each in fields_of(GenerationConfig)}


def _of_option(name: str) -> Schema:
    """A field of `GenerationConfig`: its type is what the class says, its range what it takes."""
    kind = _options()[name]
    if kind not in _TYPES:
        return {}
    schema: dict[str, object] = {"type": _TYPES[kind]}
    if kind != "bool":
        is_whole = kind == "int"
        small = 1 if is_whole else 1e-6
        if not _takes(name, -1):
            is_open = not _takes(name, 0)
            schema["exclusiveMinimum" if is_open and not is_whole else "minimum"] = int(is_open and is_whole)
        if _takes(name, small) and not _takes(name, 2):
            schema["maximum"] = 1
    return schema


def _takes(name: str, value: object) -> bool:
    try:
        GenerationConfig(**{name: value})  # type: ignore[arg-type]
    except InputError:
        return False
    return True
