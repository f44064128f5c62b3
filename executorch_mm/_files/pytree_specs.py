"""torch's pytree specs as JSON, read without torch: the names of a structure's leaves, in their order."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_MOST_LEAVES = 10_000
_DEEPEST = 32


@dataclass(frozen=True)
class Structure:
    """What a spec describes.

    Attributes:
        leaves: The path of each tensor or constant, such as "cache.layers.0.keys".
        facts: The plain values inside objects, by path, such as "cache.layers.0.max_cache_len".
    """

    leaves: tuple[str, ...]
    facts: Mapping[str, object]


def read_spec(dumped: object) -> Structure:
    """Reads a spec that `torch.utils._pytree.treespec_dumps` wrote, protocol 1.

    Args:
        dumped: The text.

    Raises:
        ValueError: It is none; the message says what was expected.
    """
    if not isinstance(dumped, str):
        raise ValueError(f"expected a text, got {type(dumped).__name__}")
    try:
        content = json.loads(dumped)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected JSON ({error})") from None
    if not isinstance(content, list) or len(content) != 2 or content[0] != 1:
        raise ValueError("expected [1, spec], a pytree spec of protocol 1")
    leaves: list[str] = []
    facts: dict[str, object] = {}
    _Reader(leaves, facts).read(content[1], (), 0)
    return Structure(tuple(leaves), facts)


class _Reader:
    def __init__(self, leaves: list[str], facts: dict[str, object]) -> None:
        self._leaves = leaves
        self._facts = facts

    def read(self, node: object, path: tuple[str, ...], depth: int) -> None:
        if depth > _DEEPEST:
            raise ValueError(f"expected at most {_DEEPEST} levels")
        if not isinstance(node, dict) or not isinstance(node.get("children_spec"), list):
            raise ValueError(f"expected a node with children_spec at {_name(path)}")
        children = node["children_spec"]
        kind = node.get("type")
        if kind is None:
            if children:
                raise ValueError(f"expected no children of the leaf {_name(path)}")
            self._add(_name(path))
            return
        if not isinstance(kind, str):
            raise ValueError(f"expected the name of a type at {_name(path)}")
        context = _context(node.get("context"), path)
        if isinstance(context, dict) and "_t" in context:
            self._read_object(context, len(children), path, depth)
            return
        named = isinstance(context, list) and len(context) == len(children)
        for index, child in enumerate(children):
            key = context[index] if named and isinstance(context, list) else index
            self.read(child, (*path, str(key)), depth + 1)

    def _read_object(self, context: object, num_leaves: int, path: tuple[str, ...], depth: int) -> None:
        """An object that transformers has flattened to its tensors; the context says where each was."""
        names: dict[int, str] = {}
        for where, value in self._walk(context, path, depth):
            if isinstance(value, _Place):
                names[value.index] = _name(where)
            else:
                self._facts[_name(where)] = value
        for index in range(num_leaves):
            self._add(names.get(index, f"{_name(path)}.{index}"))

    def _walk(
        self, value: object, path: tuple[str, ...], depth: int
    ) -> Iterator[tuple[tuple[str, ...], object]]:
        """The tensors and plain values in what an object's context describes."""
        if depth > _DEEPEST:
            raise ValueError(f"expected at most {_DEEPEST} levels")
        tag = value.get("_t") if isinstance(value, dict) else None
        if tag in ("tensor", "sym"):
            yield path, _place(value, path)
        elif tag == "obj" and isinstance(value, dict):
            yield (*path, "class"), str(value.get("p"))
        for key, item in _items(value, tag):
            yield from self._walk(item, (*path, key), depth + 1)
        if not isinstance(value, (dict, list)):
            yield path, value

    def _add(self, name: str) -> None:
        if len(self._leaves) >= _MOST_LEAVES:
            raise ValueError(f"expected at most {_MOST_LEAVES} leaves")
        self._leaves.append(name)


@dataclass(frozen=True)
class _Place:
    index: int


def _place(value: object, path: tuple[str, ...]) -> _Place:
    index = value.get("i") if isinstance(value, dict) else None
    if isinstance(index, bool) or not isinstance(index, int):
        raise ValueError(f"expected the number of a tensor at {_name(path)}")
    return _Place(index)


def _items(value: object, tag: object) -> list[tuple[str, object]]:
    """What is inside: an object's state, the values of a map or a sequence."""
    inside = value
    if isinstance(value, dict) and tag is not None:
        inside = value.get({"obj": "s", "map": "v", "seq": "v"}.get(str(tag), ""))
    if isinstance(inside, dict):
        return [(str(key), item) for key, item in inside.items()]
    return [(str(index), item) for index, item in enumerate(inside)] if isinstance(inside, list) else []


def _context(dumped: object, path: tuple[str, ...]) -> object:
    if not isinstance(dumped, str):
        return dumped
    try:
        return json.loads(dumped)
    except (ValueError, RecursionError):
        raise ValueError(f"expected JSON as the context of {_name(path)}") from None


def _name(path: tuple[str, ...]) -> str:
    return ".".join(path) or "the value"
