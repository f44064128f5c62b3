"""Random JSON schemas whose documents are short."""

from __future__ import annotations

import random
from collections.abc import Callable

Schema = dict[str, object]

WORDS = ("red", "blue", "name", "one two", "café", "a/b", 'say "hi"', "日本", "", "x")


def random_schema(rng: random.Random, depth: int = 2) -> Schema:
    """A schema of nested objects and arrays, with leaves of every type and several ways to limit them."""
    kinds = [*LEAVES, *(NESTED if depth else ())]
    return rng.choice(kinds)(rng, depth)


def _string(rng: random.Random, _: int) -> Schema:
    least = rng.randrange(3)
    return {"type": "string", "minLength": least, "maxLength": least + rng.randrange(6)}


def _pattern(rng: random.Random, _: int) -> Schema:
    return {
        "type": "string",
        "pattern": rng.choice((r"^[a-c]{2,4}$", r"^\d{3}-\d{2}$", "^(yes|no)$", "^é+x$")),
    }


def _format(rng: random.Random, _: int) -> Schema:
    return {"type": "string", "format": rng.choice(("date", "time", "date-time", "uuid", "ipv4"))}


def _integer(rng: random.Random, _: int) -> Schema:
    least = rng.randrange(-300, 300)
    return {"type": "integer", "minimum": least, "maximum": least + rng.randrange(500)}


def _multiple(rng: random.Random, _: int) -> Schema:
    return {"type": "integer", "multipleOf": rng.randrange(2, 6), "minimum": 0, "exclusiveMaximum": 1000}


def _number(rng: random.Random, _: int) -> Schema:
    return {"type": "number", "minimum": rng.randrange(3), "maximum": rng.randrange(3, 50)}


def _choice(rng: random.Random, _: int) -> Schema:
    return {"enum": rng.sample([*WORDS, 1, -2.5, None, True], k=rng.randint(1, 4))}


def _constant(rng: random.Random, _: int) -> Schema:
    return {"const": rng.choice([*WORDS, 12, False, {"a": [1, {}]}])}


def _plain(rng: random.Random, _: int) -> Schema:
    return {"type": rng.choice(("boolean", "null", ["boolean", "null"]))}


def _object(rng: random.Random, depth: int) -> Schema:
    names = rng.sample(WORDS, k=rng.randint(0, 3))
    return {
        "type": "object",
        "properties": {name: random_schema(rng, depth - 1) for name in names},
        "required": [name for name in names if rng.random() < 0.6],
        "additionalProperties": False,
    }


def _array(rng: random.Random, depth: int) -> Schema:
    least = rng.randrange(2)
    items = random_schema(rng, depth - 1)
    return {"type": "array", "items": items, "minItems": least, "maxItems": least + rng.randrange(3)}


def _tuple(rng: random.Random, depth: int) -> Schema:
    items = [random_schema(rng, depth - 1) for _ in range(rng.randint(1, 3))]
    return {"type": "array", "prefixItems": items, "items": False, "minItems": len(items)}


def _any_of(rng: random.Random, depth: int) -> Schema:
    return {"anyOf": [random_schema(rng, depth - 1) for _ in range(2)]}


def _reference(rng: random.Random, depth: int) -> Schema:
    leaf = rng.choice(LEAVES)(rng, depth)
    return {"$defs": {"leaf": leaf}, "type": "array", "items": {"$ref": "#/$defs/leaf"}, "maxItems": 2}


Maker = Callable[[random.Random, int], Schema]
LEAVES: list[Maker] = [_string, _pattern, _format, _integer, _multiple, _number, _choice, _constant, _plain]
NESTED: list[Maker] = [_object, _object, _array, _tuple, _any_of]
ROOTS: list[Maker] = [*NESTED, _reference]
