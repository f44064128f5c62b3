"""Jinja for templates of strangers: no way into Python, and an end to every loop and every text.

Jinja's own sandbox keeps a template from attributes that lead to Python's internals and from changing what it
is given. It does not end `{% for %}` in `{% for %}`, macros that call themselves or texts that double in a
loop. Here every operator, call, filter, loop and written text goes through `sandbox_limits`, and of methods,
filters and tests there are those that chat templates use.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from types import FunctionType
from typing import NoReturn, cast

from jinja2 import Template, TemplateError, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner, Namespace
from jinja2.visitor import NodeTransformer

from executorch_mm.chat import sandbox_limits as limits
from executorch_mm.chat.sandbox_limits import Budget, Current, check_size, check_width, text_of

FILTERS = frozenset(
    [
        "abs",
        "attr",
        "batch",
        "capitalize",
        "count",
        "d",
        "default",
        "dictsort",
        "e",
        "escape",
        "first",
        "float",
        "format",
        "groupby",
        "indent",
        "int",
        "items",
        "join",
        "last",
        "length",
        "list",
        "lower",
        "map",
        "max",
        "min",
        "random",
        "reject",
        "rejectattr",
        "replace",
        "reverse",
        "round",
        "safe",
        "select",
        "selectattr",
        "slice",
        "sort",
        "string",
        "sum",
        "title",
        "tojson",
        "trim",
        "truncate",
        "unique",
        "upper",
        "urlencode",
        "wordcount",
    ]
)
# Operators that may make something large; comparisons and logic cannot.
_OPERATORS = frozenset({"+", "-", "*", "/", "//", "%", "**"})
_STRFTIME_WIDTH = re.compile(r"%[-_0^#+]*\d")


class _Counting(NodeTransformer):
    """Sends what loops pass over, slices, what is written, joined by ~ and put into lists through filters."""

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802
        self.generic_visit(node)
        node.iter = _filtered(node.iter, "_counted")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Expr:  # noqa: N802
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), "_joined")

    def visit_List(self, node: nodes.List) -> nodes.Expr:  # noqa: N802
        self.generic_visit(node)
        return _filtered(node, "_built")

    def visit_Dict(self, node: nodes.Dict) -> nodes.Expr:  # noqa: N802
        self.generic_visit(node)
        return _filtered(node, "_built")

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Expr:  # noqa: N802
        self.generic_visit(node)
        return _filtered(node, "_built") if node.ctx == "load" else node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Expr:  # noqa: N802
        self.generic_visit(node)  # Jinja's code for a slice asks no environment
        return _filtered(node, "_built") if isinstance(node.arg, nodes.Slice) else node

    def visit_Output(self, node: nodes.Output) -> nodes.Output:  # noqa: N802
        self.generic_visit(node)
        node.nodes = [
            _filtered(
                nodes.Const(part.data, lineno=part.lineno) if isinstance(part, nodes.TemplateData) else part,
                "_written",
            )
            for part in node.nodes
        ]
        return node


def _filtered(node: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(cast(nodes.Expr, node), name, [], [], None, None, lineno=node.lineno)


class _Generation(Extension):
    """`{% generation %}`, with which transformers marks what the assistant says; it changes no text."""

    tags = {"generation"}  # noqa: RUF012  # as jinja2 declares it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller: Callable[[], str]) -> str:
        return caller()


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment that transformers renders chat templates in, with limits."""

    intercepted_binops = _OPERATORS

    def __init__(self) -> None:
        extensions = ["jinja2.ext.loopcontrols", _Generation]
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
        self._current = Current()
        del self.globals["lipsum"]  # writes as much as it is asked to
        self.globals.update(raise_exception=_raise_exception, strftime_now=_strftime_now)
        limited = {name: self._limited(name, self.filters[name]) for name in FILTERS - {"tojson"}}
        self.filters.clear()
        self.filters.update(
            limited,
            tojson=self._tojson,
            _counted=self._counted,
            _joined=self._joined,
            _written=self._written,
            _built=self._built,
        )

    def parse(self, source: str, name: str | None = None, filename: str | None = None) -> nodes.Template:
        """As Jinja parses, within the limits of length and nesting.

        Raises:
            TemplateError: The syntax is wrong.
        """
        if len(source) > limits.MAX_SOURCE:
            raise SecurityError(
                f"expected a template of at most {limits.MAX_SOURCE} characters, got {len(source)}"
            )
        self._check_nesting(source)
        return super().parse(source, name, filename)

    def load(self, source: str) -> Template:
        """Compiles a template.

        Raises:
            TemplateError: Its syntax is wrong.
        """
        self._current.budget = Budget()  # what is constant is computed here
        code = self.compile(_Counting().visit(self.parse(source)))
        return self.template_class.from_code(self, code, self.make_globals(None))

    def render(self, template: Template, variables: dict[str, object]) -> str:
        """Renders a template of `load` within the limits.

        Raises:
            SecurityError: It reaches for what it must not, or does not come to an end.
            Exception: Whatever the template's expressions raise.
        """
        self._current.budget = Budget()
        return template.render(variables)

    def call(__self, __context: Context, __obj: object, *args: object, **kwargs: object) -> object:  # noqa: N805
        """As the sandbox calls, counted; methods of texts must not make them huge."""
        budget = __self._current.budget
        budget.step()
        _check_callable(__obj, args)
        budget.depth += 1
        if budget.depth > limits.MAX_DEPTH:
            raise SecurityError(f"stopped at {limits.MAX_DEPTH} calls within calls")
        result = budget.made(super().call(__context, __obj, *args, **kwargs))
        budget.depth -= 1
        return result

    def wrap_str_format(self, value: object) -> Callable[..., str] | None:
        """As the sandbox formats, without widths that make a text huge."""
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None
        text = str(getattr(value, "__self__", ""))

        def format_within_limits(*args: object, **kwargs: object) -> str:
            limits.check_format("{", text, [*args, *kwargs.values()])
            return str(wrapped(*args, **kwargs))

        return format_within_limits

    def call_binop(self, context: Context, operator: str, left: object, right: object) -> object:
        """An operator of `intercepted_binops`, unless its result would be huge."""
        if operator == "%" and isinstance(left, str):
            values = right if isinstance(right, tuple) else (right,)
            limits.check_format("%", left, values)
        elif operator == "+" and hasattr(left, "__len__") and hasattr(right, "__len__"):
            check_size(len(left) + len(right))
        elif operator == "*":
            limits.check_product(left, right)
        elif operator == "**":
            limits.check_power(left, right)
        return self._current.budget.made(super().call_binop(context, operator, left, right))

    def _check_nesting(self, source: str) -> None:
        depth = _Nesting()
        for _, kind, value in self.lex(source):
            if depth.behind(kind, value) > limits.MAX_NESTING:
                raise SecurityError(
                    f"stopped before a recursion of more than {limits.MAX_NESTING} brackets or blocks"
                )

    def _limited(self, name: str, original: Callable[..., object]) -> Callable[..., object]:
        """A filter that counts, also where `map` calls it."""
        pass_arg = getattr(original, "jinja_pass_arg", None)
        at = 0 if pass_arg is None else 1

        def within_limits(*args: object, **kwargs: object) -> object:
            value = _check_filter(name, args[at], [*args[at + 1 :], *kwargs.values()])
            return self._current.budget.made(original(*args[:at], value, *args[at + 1 :], **kwargs))

        if pass_arg is not None:
            within_limits.jinja_pass_arg = pass_arg  # type: ignore[attr-defined]
        return within_limits

    def _tojson(
        self,
        value: object,
        ensure_ascii: bool = False,
        indent: int | str | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        """JSON as it is, where Jinja's own filter escapes it for HTML; piece by piece, to stop in time."""
        limits.checked(value)
        check_width(indent, *(separators or ()))
        encoder = json.JSONEncoder(
            ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )
        pieces, size = [], 0
        for piece in encoder.iterencode(value):
            size += len(piece)
            check_size(size)
            pieces.append(piece)
        return self._current.budget.made("".join(pieces))

    @pass_context
    def _counted(self, _context: Context, items: Iterable[object]) -> Iterator[object]:
        budget = self._current.budget
        for item in items:
            budget.step()
            yield item

    @pass_context
    def _built(self, _context: Context, value: object) -> object:
        return self._current.budget.made(value)

    @pass_context
    def _joined(self, _context: Context, values: list[object]) -> str:
        texts = [text_of(value) for value in values]
        check_size(sum(map(len, texts)))
        return self._current.budget.made("".join(texts))

    @pass_context
    def _written(self, _context: Context, value: object) -> str:
        return self._current.budget.write(text_of(value))


_OPENING = frozenset(["for", "if", "macro", "call", "filter", "set", "block", "generation"])
_CLOSING = frozenset(f"end{name}" for name in _OPENING)


class _Nesting:
    """How deep the brackets, the blocks and the conditions of one expression are in each other."""

    def __init__(self) -> None:
        self._brackets = self._blocks = self._conditions = 0
        self._tag: str | None = None  # the first word of a tag: None outside, "" before it
        self._assigns = False

    def behind(self, kind: str, value: str) -> int:
        """The depth behind a token."""
        if kind in ("block_begin", "variable_begin"):
            self._tag = "" if kind == "block_begin" else None
            self._conditions = 0
            self._assigns = False
        elif kind == "operator":
            self._brackets += (value in "([{") - (value in ")]}")
            self._assigns |= value == "=" and self._brackets == 0
        elif kind == "name" and self._tag == "":
            self._tag = value
            self._blocks += (value in _OPENING and value != "set") - (value in _CLOSING)
        elif kind == "name":
            self._conditions += value == "if"
        elif kind == "block_end":
            self._blocks += self._tag == "set" and not self._assigns  # {% set x %}...{% endset %}
        return max(self._brackets, self._blocks, self._conditions)


def _check_callable(function: object, args: tuple[object, ...]) -> None:
    """Refuses what chat templates have no use for: methods outside of `METHODS`, classes, other objects."""
    owner = getattr(function, "__self__", None)
    if isinstance(function, Undefined):
        return  # the call says what is missing, or what was refused
    if isinstance(function, (Macro, FunctionType)) or function in (range, dict, Namespace, Joiner, Cycler):
        return
    if isinstance(owner, (LoopContext, Cycler, _Generation)) or isinstance(function, (Joiner, LoopContext)):
        return
    if owner is None or isinstance(owner, type):
        name = getattr(function, "__name__", type(function).__name__)
        raise SecurityError(f"unsafe: a template may not call {name}")
    limits.check_method(owner, getattr(function, "__name__", ""), args)


def _check_filter(name: str, value: object, options: list[object]) -> object:
    """Refuses what would make something huge.

    Returns:
        The value, with what `join` and `sum` pass over made a list.
    """
    if name == "format":
        limits.check_format("%", text_of(value), options)
    elif name == "replace" and len(options) >= 2:
        limits.check_replace(text_of(value), options[0], options[1])
    elif name == "join":
        return limits.check_join(options[0] if options else "", value)
    elif name == "sum":
        return _numbers(value, options)
    elif name == "trim":
        limits.check_strip(text_of(value), *options)
    elif name in {"batch", "slice", "indent", "truncate", "round"}:
        check_width(*(option for option in options if name != "truncate" or isinstance(option, str)))
        check_size(text_of(value).count("\n") * limits.MAX_WIDTH if name == "indent" else 0)
    elif name in {"string", "escape", "e", "urlencode"}:
        text_of(value)
    return value


def _numbers(value: object, options: list[object]) -> list[object]:
    """What `sum` adds up: numbers; lists would be copied again for each that is added."""
    items = list(cast("Iterable[object]", value))
    if any(not isinstance(option, (int, float, str, type(None))) for option in options):
        raise SecurityError("sum: expected numbers")
    if not any(isinstance(option, str) for option in options):  # else of attributes
        for item in items:
            if not isinstance(item, (int, float)):
                raise SecurityError(f"sum: expected numbers, got {type(item).__name__}")
    return items


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _strftime_now(form: str) -> str:
    return strftime(datetime.now(), form)  # local time, as transformers gives it


def strftime(now: datetime, form: str) -> str:
    """A time as a template writes it.

    Raises:
        SecurityError: The format asks for widths, or is too long.
    """
    if _STRFTIME_WIDTH.search(form):
        raise SecurityError(f"strftime_now: expected a format without widths, got {form[:40]!r}")
    check_width(form)
    return now.strftime(form)
