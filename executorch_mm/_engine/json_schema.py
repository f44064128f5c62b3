"""JSON schemas on their way to llguidance, which drops some of what it does not know in silence."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from itertools import combinations
from typing import TypeGuard

from executorch_mm._engine.json_formats import pattern_of
from executorch_mm.errors import InputError

Schema = dict[str, object]
Complaint = Callable[[Schema], "str | None"]
"""What llguidance says against a schema; None where it takes it."""

# Keywords of some draft that llguidance does not enforce. It refuses those of the schema's own draft, but
# without their path, and ignores the others.
NOT_ENFORCED = frozenset(
    (
        *("$dynamicAnchor", "$dynamicRef", "$recursiveAnchor", "$recursiveRef", "contains", "dependencies"),
        *("dependentRequired", "dependentSchemas", "disallow", "divisibleBy", "else", "extends", "if"),
        *("maxContains", "minContains", "not", "propertyNames", "then", "unevaluatedItems"),
        *("unevaluatedProperties", "uniqueItems"),
    )
)
# Where schemas lie within a schema.
_ONE = ("items", "additionalItems", "additionalProperties")
_LISTS = ("items", "prefixItems", "allOf", "anyOf", "oneOf")
_MAPS = ("properties", "patternProperties")
_DEFINITIONS = ("$defs", "definitions")
_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "const", "enum")
_ANNOTATIONS = frozenset(("default", "examples"))  # of any value, also one that llguidance cannot take
_NOTHING_IF_TRUE = ("propertyNames", "unevaluatedItems", "unevaluatedProperties")
_NOTHING_IF_EMPTY = (*_NOTHING_IF_TRUE, "dependencies", "dependentRequired", "dependentSchemas")
_TOLD_OF_NAMES = frozenset(("$defs", "definitions", "description", "title", "type"))
_MOST_OF_SET = 5  # values, of which all sets are tried
_MOST_OF_HTTP_URL = 2083  # characters: so pydantic's HttpUrl is told from its other URLs
_OLD_DRAFTS = re.compile(r"/draft-0\d/|/2019-09/")


def prepare(schema: Schema, knows_format: Callable[[str], bool]) -> None:
    """Takes annotations out that llguidance would refuse, in place, and refuses what it would drop.

    Args:
        schema: A JSON schema.
        knows_format: Whether llguidance enforces this `format`; one that it does not is an annotation.

    Raises:
        InputError: A part of the schema cannot be enforced; the message has its path.
    """
    guidance = schema.get("x-guidance")
    is_lenient = isinstance(guidance, dict) and guidance.get("lenient") is True
    draft = schema.get("$schema")
    is_old = isinstance(draft, str) and _OLD_DRAFTS.search(draft) is not None
    for path, part in _reachable(schema):
        _translate(part, schema)
        _drop_what_says_nothing(part, knows_format)
        refused = sorted(NOT_ENFORCED & part.keys())
        if refused and not is_lenient:
            raise _refusal(path, f"{refused[0]!r} cannot be enforced")
        if "prefixItems" in part and (is_old or "additionalItems" in part):
            raise _refusal(path, "'prefixItems' cannot be enforced in old drafts or beside 'additionalItems'")
        for keyword in _NUMBERS:
            rounded = [number for number in _integers(part.get(keyword)) if not _is_exact(number)]
            if rounded:
                raise _refusal(path, f"{keyword!r}: expected numbers that a float holds, got {rounded[0]}")
        for keyword in ("const", "enum"):
            if keyword in part:
                part[keyword] = _written_out(part[keyword], f"{path}: {keyword!r}")


def located(schema: Schema, reason: str, complaint: Complaint) -> InputError:
    """What to raise for a schema that llguidance refuses: with the path of the smallest part that it refuses.

    Args:
        schema: The whole.
        reason: Why it refuses it.
        complaint: Asks it.
    """
    shared = {key: schema[key] for key in ("$schema", *_DEFINITIONS, "x-guidance") if key in schema}
    path, part = "#", schema
    seen = {id(schema)}
    while True:
        for inner_path, inner in _children(path, part, schema):
            if id(inner) in seen:
                continue
            seen.add(id(inner))
            inner_reason = complaint({**shared, **inner})
            if inner_reason is not None and _is_same(inner_reason, reason):
                path, part, reason = inner_path, inner, inner_reason
                break
        else:
            return _refusal(path, reason)


def target_of(reference: object, root: object) -> object:
    """What a reference like "#/$defs/name" leads to; None for one that leads nowhere or elsewhere."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    target = root
    for step in reference.lstrip("#").split("/")[1:]:
        step = _unescaped(step)
        if isinstance(target, list) and step.isdigit() and int(step) < len(target):
            target = target[int(step)]
        elif isinstance(target, dict) and step in target:
            target = target[step]
        else:
            return None
    return target if reference in ("#", "#/") or reference.startswith("#/") else None


def _refusal(path: str, reason: str) -> InputError:
    return InputError(f"response_format: at {path}: {reason}")


def _is_same(inner: str, outer: str) -> bool:
    """Whether a part's fault is the whole's; that nothing keeps to it is told differently at each level."""
    return inner in outer or ("nsatisfiable" in inner and "nsatisfiable" in outer)


def _reachable(root: Schema) -> Iterator[tuple[str, Schema]]:
    """Every schema in a schema with its path."""
    waiting: list[tuple[str, Schema]] = [("#", root)]
    seen = {id(root)}
    while waiting:
        path, part = waiting.pop()
        yield path, part
        for inner_path, inner in _children(path, part, root):
            if id(inner) not in seen:
                seen.add(id(inner))
                waiting.append((inner_path, inner))


def _children(path: str, part: Schema, root: Schema) -> Iterator[tuple[str, Schema]]:
    """The schemas right below one, and the one it refers to."""
    for keyword in part:
        value = part[keyword]
        below = f"{path}/{_escaped(keyword)}"
        if keyword in _ONE and isinstance(value, dict):
            yield below, value
        elif keyword in _LISTS and isinstance(value, list):
            yield from ((f"{below}/{i}", item) for i, item in enumerate(value) if isinstance(item, dict))
        elif keyword in _MAPS and isinstance(value, dict):
            yield from _in_map(below, value)
        elif keyword == "$ref":
            target = target_of(value, root)
            if isinstance(target, dict):
                yield str(value), target
            elif target is None:  # by an anchor or another document's name
                for where in _DEFINITIONS:
                    yield from _in_map(f"#/{where}", root.get(where))


def _in_map(path: str, schemas: object) -> Iterator[tuple[str, Schema]]:
    if isinstance(schemas, dict):
        for name, schema in schemas.items():
            if isinstance(schema, dict):
                yield f"{path}/{_escaped(name)}", schema


def _translate(part: Schema, root: Schema) -> None:
    """Says in place what llguidance does not know by what it does."""
    _translate_names(part, root)
    _translate_set(part, root)
    if part.get("type") == "numeric" and ("const" in part or "enum" in part):
        part["type"] = "number"  # what older pydantic calls a Literal of floats
    name = part.get("format")
    pattern = pattern_of(name) if isinstance(name, str) else None
    if name == "uri" and part.get("maxLength") == _MOST_OF_HTTP_URL and part.get("minLength") == 1:
        pattern = pattern_of("uri:http|https")
    if pattern is not None and "pattern" not in part:
        del part["format"]
        part["pattern"] = pattern


def _written_out(value: object, where: str) -> object:
    """A value of which llguidance writes every number as it is; floats without a fraction come as integers.

    Raises:
        InputError: The digits of a number in it would be another's.
    """
    if isinstance(value, list):
        return [_written_out(item, where) for item in value]
    if isinstance(value, dict):
        return {key: _written_out(item, where) for key, item in value.items()}
    if not _is_number(value) or not float(value).is_integer():
        return value
    if -(2**63) <= value < 2**63:
        return int(value) if value else value  # -0.0 is written as such
    if isinstance(value, float) and int(Decimal(repr(value))) == int(value):
        return value
    raise InputError(
        f"response_format: at {where}: expected numbers whose digits can be written out, got {value}"
    )


def _translate_set(part: Schema, root: Schema) -> None:
    """A set of few listed values, which an answer may then hold in their order alone."""
    most = part.get("maxItems", math.inf)
    if part.get("uniqueItems") is not True or part.get("type") != "array" or not _is_number(most):
        return
    if most <= 1:
        del part["uniqueItems"]
        return
    items, least = part.get("items"), part.get("minItems", 0)
    if isinstance(items, dict) and isinstance(target := target_of(items.get("$ref"), root), dict):
        items = target
    values = items.get("enum") if isinstance(items, dict) and "anyOf" not in part else None
    if not isinstance(values, list) or not 1 <= len(values) <= _MOST_OF_SET or not _is_number(least):
        return
    if not isinstance(items, dict) or items.keys() - _TOLD_OF_NAMES - {"enum"}:
        return
    sets = [each for size in range(len(values) + 1) for each in combinations(values, size)]
    chosen = [list(each) for each in sets if least <= len(each) <= most]
    for keyword in ("uniqueItems", "items", "minItems", "maxItems"):
        part.pop(keyword, None)
    part["anyOf"] = [
        {
            "type": "array",
            "prefixItems": [{"const": value} for value in each],
            "items": False,
            "minItems": len(each),
        }
        for each in chosen
    ]


def _translate_names(part: Schema, root: Schema) -> None:
    names, keys = part.get("propertyNames"), ("properties", "patternProperties")
    values = part.get("additionalProperties", {})
    if isinstance(names, dict) and values is not False and not any(part.get(key) for key in keys):
        if isinstance(target := target_of(names.get("$ref"), root), dict):
            names = target
        wanted = {key: names[key] for key in names if key not in _TOLD_OF_NAMES}
        allowed = [names["const"]] if "const" in names else names.get("enum")
        if isinstance(allowed, list) and wanted.keys() <= {"const", "enum"}:
            part["properties"] = {name: values for name in allowed if isinstance(name, str)}
        elif wanted.keys() == {"pattern"} and isinstance(wanted["pattern"], str):
            part["patternProperties"] = {wanted["pattern"]: values}
        else:
            return
        part["additionalProperties"] = False
        del part["propertyNames"]


def _drop_what_says_nothing(part: Schema, knows_format: Callable[[str], bool]) -> None:
    idle = {keyword for keyword in NOT_ENFORCED & part.keys() if _says_nothing(keyword, part)}
    name = part.get("format")
    if isinstance(name, str) and not knows_format(name):
        idle.add("format")
    for keyword in idle | (_ANNOTATIONS & part.keys()):
        del part[keyword]


def _says_nothing(keyword: str, part: Schema) -> bool:
    """Whether a keyword that cannot be enforced need not be, as it stands in this schema."""
    value = part[keyword]
    if keyword == "uniqueItems":
        return value is False
    if keyword == "if":
        return not {"then", "else"} & part.keys()
    if keyword in ("then", "else"):
        return "if" not in part
    if keyword in ("minContains", "maxContains"):
        return "contains" not in part
    return (value == {} and keyword in _NOTHING_IF_EMPTY) or (value is True and keyword in _NOTHING_IF_TRUE)


def _integers(value: object) -> Iterator[int]:
    if isinstance(value, bool):
        return
    if isinstance(value, int):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _integers(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _integers(item)


def _is_exact(number: int) -> bool:
    return -(2**63) <= number < 2**64 and int(float(number)) == number


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _escaped(step: str) -> str:
    return step.replace("~", "~0").replace("/", "~1")


def _unescaped(step: str) -> str:
    from urllib.parse import unquote  # here: few references are escaped

    return unquote(step).replace("~1", "/").replace("~0", "~")
