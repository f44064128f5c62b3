"""What the source of a template tells of what it expects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from jinja2 import nodes

_CONTENT = "content"


@dataclass(frozen=True)
class TemplateFacts:
    """What a template expects.

    Attributes:
        literals: The texts that it may write of itself.
        names: The attributes and keys that it may read.
        asks_whether_content_is_none: Whether it tells a message whose content is None from one that has none.
    """

    literals: frozenset[str]
    names: frozenset[str]
    asks_whether_content_is_none: bool


def facts_of(tree: nodes.Template) -> TemplateFacts:
    """The facts about a parsed template."""
    constants = {node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)}
    written = {node.data for node in tree.find_all(nodes.TemplateData)}
    names = constants | {node.attr for node in tree.find_all(nodes.Getattr)}
    asks = _Comparisons(tree).ask_whether_content_is_none()
    return TemplateFacts(frozenset(constants | written), frozenset(names), asks)


class _Comparisons:
    """What a parsed template compares with None."""

    def __init__(self, tree: nodes.Template) -> None:
        self._tree = tree

    def ask_whether_content_is_none(self) -> bool:
        """Whether it tells a message whose content is None from one that has none."""
        holders = self._holders_of_content()
        return any(_reads(subject, holders) for subject in self._subjects_of_none())

    def _subjects_of_none(self) -> Iterator[nodes.Node]:
        """What is compared with None."""
        for test in self._tree.find_all(nodes.Test):
            if test.name == "none" or (test.name == "sameas" and any(map(_is_none, test.args or ()))):
                yield test.node
        for comparison in self._tree.find_all(nodes.Compare):
            sides = [comparison.expr, *(operand.expr for operand in comparison.ops)]
            if any(map(_is_none, sides)):
                yield comparison

    def _holders_of_content(self) -> set[str]:
        """Variables and parameters that a message's content may be put into, and `.content` itself."""
        holders = {f".{_CONTENT}", _CONTENT}
        while True:
            found = {
                name
                for target, value in self._assignments()
                if _reads(value, holders)
                for name in _names(target)
            }
            if found <= holders:
                return holders
            holders |= found

    def _assignments(self) -> Iterator[tuple[nodes.Node, nodes.Node]]:
        for assignment in self._tree.find_all(nodes.Assign):
            yield assignment.target, assignment.node
        macros = {macro.name: macro for macro in self._tree.find_all(nodes.Macro)}
        for call in self._tree.find_all(nodes.Call):
            if isinstance(call.node, nodes.Name) and (macro := macros.get(call.node.name)):
                yield from zip(macro.args, call.args, strict=False)
                by_name = {parameter.name: parameter for parameter in macro.args}
                for given in call.kwargs:
                    if parameter := by_name.get(given.key):
                        yield parameter, given.value


def _is_none(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Const) and node.value is None


def _reads(node: nodes.Node, holders: set[str]) -> bool:
    return not holders.isdisjoint(_names(node))


def _names(node: nodes.Node) -> Iterator[str]:
    """The variables in an expression or target, and with a dot before them the attributes and keys."""
    for part in (node, *node.find_all((nodes.Name, nodes.NSRef, nodes.Getattr, nodes.Const))):
        if isinstance(part, nodes.Name):
            yield part.name
        elif isinstance(part, (nodes.NSRef, nodes.Getattr)):
            yield f".{part.attr}"
        elif isinstance(part, nodes.Const) and isinstance(part.value, str):
            yield f".{part.value}"
