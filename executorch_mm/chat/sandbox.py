"""Jinja for templates of strangers: no way into Python, and an end to every loop and every text.

Jinja's own sandbox keeps a template from attributes that lead to Python's internals and from changing what it
is given. It does not end `{% for %}` in `{% for %}`, macros that call themselves or texts that double in a
loop; that is what this module adds, by counting each pass of a loop, call and written text.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import NoReturn, TypeVar, cast

from jinja2 import Template, TemplateError, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

_T = TypeVar("_T")

MAX_STEPS = 500_000  # passes of loops and calls
MAX_SECONDS = 1.0  # of the thread's processor time
MAX_DEPTH = 100  # of calls within calls
MAX_CHARS = 10_000_000  # of any text, of a list with all that is in it, and written in all
_MADE_FOR_ONE = 20  # characters that filters may make for each that may be written
_ITEM = 10  # what an item of a list counts in characters
_MAX_BITS = 4096  # of a whole number
# Widths of 10000 or more in a format, or that are arguments.
_WIDE = {"%": re.compile(r"%[^a-zA-Z%]*(\*|\d{5})"), "{": re.compile(r"\{[^}]*(\{|\d{5})")}
_SLOW_FILTERS = {"urlize", "wordwrap", "striptags", "xmlattr", "pprint"}


class _Budget:
    """What one rendering may still use."""

    def __init__(self) -> None:
        self._steps = 0
        self._chars = 0
        self._made = 0
        self.depth = 0
        self._end = time.thread_time() + MAX_SECONDS

    def step(self) -> None:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise SecurityError(f"stopped after {MAX_STEPS} passes of loops and calls")
        if self._steps % 64 == 0 and time.thread_time() > self._end:
            raise SecurityError(f"stopped after {MAX_SECONDS:g} s")

    def make(self, value: object) -> None:
        self.step()
        self._made += len(value) if isinstance(value, str) else 0
        check_size(self._made // _MADE_FOR_ONE)

    def write(self, text: str) -> str:
        self._chars += len(text)
        check_size(self._chars)
        self.step()
        return text


class _Current(threading.local):
    budget = _Budget()


def checked(value: _T) -> _T:
    """Refuses texts, lists and mappings that are too large with all that is in them.

    Raises:
        SecurityError: There is more in it than `MAX_CHARS`.
    """
    if isinstance(value, str):
        check_size(len(value))
    elif isinstance(value, (list, tuple, dict)):
        size, waiting = 0, [cast(object, value)]
        while waiting:
            item = waiting.pop()
            size += _ITEM + len(item) if isinstance(item, str) else _ITEM
            if isinstance(item, dict):
                waiting += [*item.keys(), *item.values()]
            elif isinstance(item, (list, tuple)):
                waiting += item
            elif isinstance(item, Namespace):
                raise SecurityError("a namespace may not be put into a list or mapping")
            check_size(size + _ITEM * len(waiting))
    return value


def check_size(size: int) -> None:
    """Refuses texts and lists that are too long.

    Raises:
        SecurityError: `size` is above `MAX_CHARS`.
    """
    if size > MAX_CHARS:
        raise SecurityError(f"stopped at a text or list of more than {MAX_CHARS} characters or items")


class _Counting(NodeTransformer):
    """Sends what loops pass over, and what is written, joined by ~ and put into lists, through filters."""

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802
        self.generic_visit(node)
        node.iter = _filtered(node.iter, "counted")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Expr:  # noqa: N802
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), "joined")

    def visit_List(self, node: nodes.List) -> nodes.Expr:  # noqa: N802
        self.generic_visit(node)
        return _filtered(node, "built")

    def visit_Dict(self, node: nodes.Dict) -> nodes.Expr:  # noqa: N802
        self.generic_visit(node)
        return _filtered(node, "built")

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Expr:  # noqa: N802
        self.generic_visit(node)
        return _filtered(node, "built") if node.ctx == "load" else node

    def visit_Output(self, node: nodes.Output) -> nodes.Output:  # noqa: N802
        self.generic_visit(node)
        node.nodes = [
            _filtered(
                nodes.Const(part.data, lineno=part.lineno) if isinstance(part, nodes.TemplateData) else part,
                "written",
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

    intercepted_binops: frozenset[str] = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        extensions = ["jinja2.ext.loopcontrols", _Generation]
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
        self._current = _Current()
        del self.globals["lipsum"]  # writes as much as it is asked to
        self.globals.update(raise_exception=_raise_exception, strftime_now=_strftime_now)
        self.filters["tojson"] = _tojson
        self.filters.update({name: self._limited(name, original) for name, original in self.filters.items()})
        self.filters.update(
            counted=self._counted, joined=self._joined, written=self._written, built=self._built
        )

    def load(self, source: str) -> Template:
        """Compiles a template.

        Raises:
            TemplateError: Its syntax is wrong.
        """
        check_size(len(source))
        self._current.budget = _Budget()  # what is constant is computed here
        code = self.compile(_Counting().visit(self.parse(source)))
        return self.template_class.from_code(self, code, self.make_globals(None))

    def render(self, template: Template, variables: dict[str, object]) -> str:
        """Renders a template of `load` within the limits.

        Raises:
            SecurityError: It reaches for what it must not, or does not come to an end.
            Exception: Whatever the template's expressions raise.
        """
        self._current.budget = _Budget()
        return template.render(variables)

    def call(__self, __context: Context, __obj: object, *args: object, **kwargs: object) -> object:  # noqa: N805
        """As the sandbox calls, counted; methods of texts must not make them huge."""
        __self._current.budget.step()
        text = getattr(__obj, "__self__", None)
        if isinstance(text, str):
            _check_text_call(text, getattr(__obj, "__name__", ""), args)
        budget = __self._current.budget
        budget.depth += 1
        if budget.depth > MAX_DEPTH:
            raise SecurityError(f"stopped at {MAX_DEPTH} calls within calls")
        result = checked(super().call(__context, __obj, *args, **kwargs))
        budget.depth -= 1
        return result

    def wrap_str_format(self, value: object) -> Callable[..., str] | None:
        """As the sandbox formats, without widths that make a text huge."""
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None
        text = str(getattr(value, "__self__", ""))

        def format_within_limits(*args: object, **kwargs: object) -> str:
            _check_format("{", text, (args, kwargs))
            return str(wrapped(*args, **kwargs))

        return format_within_limits

    def call_binop(self, context: Context, operator: str, left: object, right: object) -> object:
        """An operator of `intercepted_binops`, unless its result would be huge."""
        if operator == "%" and isinstance(left, str):
            _check_format("%", left, right)
        elif operator == "+" and hasattr(left, "__len__") and hasattr(right, "__len__"):
            check_size(len(left) + len(right))
        elif operator == "*":
            _check_product(left, right)
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            _check_bits(left.bit_length() * abs(right))
        return checked(super().call_binop(context, operator, left, right))

    def _limited(self, name: str, original: Callable[..., object]) -> Callable[..., object]:
        """A filter that counts, also where `map` calls it."""
        pass_arg = getattr(original, "jinja_pass_arg", None)
        at = 0 if pass_arg is None else 1

        def within_limits(*args: object, **kwargs: object) -> object:
            value = _check_filter(name, args[at], [*args[at + 1 :], *kwargs.values()])
            result = checked(original(*args[:at], value, *args[at + 1 :], **kwargs))
            self._current.budget.make(result)
            return result

        if pass_arg is not None:
            within_limits.jinja_pass_arg = pass_arg  # type: ignore[attr-defined]
        return within_limits

    @pass_context
    def _counted(self, _context: Context, items: Iterable[object]) -> Iterator[object]:
        budget = self._current.budget
        for item in items:
            budget.step()
            yield item

    @pass_context
    def _built(self, _context: Context, value: object) -> object:
        return checked(value)

    @pass_context
    def _joined(self, _context: Context, values: list[object]) -> str:
        texts = [str(value) for value in values]
        check_size(sum(map(len, texts)))
        return "".join(texts)

    @pass_context
    def _written(self, _context: Context, value: object) -> str:
        return self._current.budget.write(str(value))


def _check_filter(name: str, value: object, options: list[object]) -> object:
    """Refuses what would make something huge.

    Returns:
        The value, with what `join` joins made a list.
    """
    widths = [abs(option) for option in options if isinstance(option, int)]
    if name == "format":
        _check_format("%", str(value), options)
    elif name == "replace":
        _check_text_call(str(value), "replace", tuple(options))
    elif name == "join" and isinstance(value, Iterable):
        items = list(value)
        length = sum(len(item) if isinstance(item, str) else len(str(item)) for item in items)
        check_size(length + len(str(options)) * len(items))
        return items
    elif name in {"indent", "tojson"}:
        check_size(len(str(value)) * (max(widths, default=1) + 1))
    elif name in _SLOW_FILTERS:
        check_size(100 * len(str(value)))
    elif name in {"center", "batch", "slice"}:
        check_size(max(widths, default=0))
    return value


def _check_text_call(text: str, name: str, args: tuple[object, ...]) -> None:
    numbers = [arg for arg in args if isinstance(arg, int)]
    if name in {"center", "ljust", "rjust", "zfill"}:
        check_size(max(numbers, default=0))
    elif name == "expandtabs":
        check_size(text.count("\t") * max(numbers, default=8))
    elif name == "replace" and len(args) >= 2:
        found = text.count(str(args[0]))
        check_size(len(text) + found * len(str(args[1])))
    elif name == "join" and args and hasattr(args[0], "__len__"):
        check_size(len(text) * len(args[0]))


def _check_format(mark: str, text: str, values: object) -> None:
    if _WIDE[mark].search(text):
        raise SecurityError("a format may not ask for widths of 10000 or more, nor take them from arguments")
    if mark in text:
        check_size(len(text) + text.count(mark) * len(str(values)))


def _check_product(left: object, right: object) -> None:
    for one, other in ((left, right), (right, left)):
        if isinstance(one, int) and hasattr(other, "__len__"):
            check_size(abs(one) * len(other))
    if isinstance(left, int) and isinstance(right, int):
        _check_bits(left.bit_length() + right.bit_length())


def _check_bits(bits: int) -> None:
    if bits > _MAX_BITS:
        raise SecurityError(f"stopped at a number of more than {_MAX_BITS} bits")


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)  # local time, as transformers gives it


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as it is, where Jinja's own filter escapes it for HTML."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
