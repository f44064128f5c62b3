"""Grammars of arguments that are written as texts between tags, as Qwen 3 Coder does."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from executorch_mm._engine.json_schema import target_of
from executorch_mm.chat.replies.contents import can_become, schema_types
from executorch_mm.errors import InputError

_PLAIN = frozenset(("type", "title", "description", "minLength", "maxLength"))
_END = ' "\\n</parameter>\\n"'


def xml_arguments(rule: str, schema: Mapping[str, object], where: str) -> Iterator[str]:
    """The rules of a function's arguments, in the order of its properties.

    Texts have no "<" in them, behind which a tag could follow; those of limited length no line ends either.

    Args:
        rule: The name of the first rule, with which those of the others begin.
        schema: Of the arguments.
        where: Of the tool, for errors.

    Raises:
        InputError: An argument is one that a text between tags does not tell; the message names it.
    """
    properties, needed = schema.get("properties"), schema.get("required")
    names = list(properties) if isinstance(properties, Mapping) else []
    required = needed if isinstance(needed, list) else []
    missing = [name for name in required if name not in names]
    if missing:
        raise InputError(f"{where}: expected properties for all that is required, got none for {missing[0]}")
    parts = [f"{rule}_{index}{'' if name in required else '?'}" for index, name in enumerate(names)]
    yield f"{rule}: {' '.join(parts) or json.dumps('')}"
    for index, name in enumerate(names):
        own = properties[name] if isinstance(properties, Mapping) else {}
        if isinstance(own, Mapping) and isinstance(target := target_of(own.get("$ref"), schema), Mapping):
            own = target
        if not isinstance(own, Mapping) or not _is_name(name):
            raise InputError(f"{where}: {name}: expected a schema of an argument with a plain name")
        opening = json.dumps(f"<parameter={name}>\n", ensure_ascii=False)
        yield f"{rule}_{index}: {opening} {_value(own, schema, f'{where}: {name}')}"


def _value(own: Mapping[str, object], schema: Mapping[str, object], where: str) -> str:
    listed = [own["const"]] if "const" in own else own.get("enum")
    if not can_become(own) and isinstance(listed, list) and all(map(_is_text, listed)):
        return f"({' | '.join(json.dumps(text, ensure_ascii=False) for text in listed)}){_END}"
    types = schema_types(own)
    if types == ["string"] and listed is None and own.keys() <= _PLAIN:
        if own.keys() & {"minLength", "maxLength"}:
            return f"/[^<\\n]{{{own.get('minLength', 0)},{own.get('maxLength', '')}}}/{_END}"
        return '/[^<]*/ "</parameter>\\n"'
    if types and "string" not in types:
        shared = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
        return f"%json {json.dumps({**shared, **own})}{_END}"
    raise InputError(
        f"{where}: expected a text without a pattern or format, listed texts, or a type that is none, since "
        "this model writes arguments as texts between tags"
    )


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value) and "<" not in value and value.strip("\n") == value


def _is_name(name: object) -> bool:
    return isinstance(name, str) and bool(name) and not any(char in "<>" or char.isspace() for char in name)
