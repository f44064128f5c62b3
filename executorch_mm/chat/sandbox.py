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
from typing import NoReturn, cast

from jinja2 import Template, TemplateError, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

MAX_STEPS = 500_000  # passes of loops and calls
MAX_SECONDS = 1.0  # of the thread's processor time
MAX_CHARS = 10_000_000  # of any text or list, and written in all
_MAX_BITS = 4096  # of a whole number
# Widths of 10000 or more in a format, or that are arguments.
_WIDE = {"%": re.compile(r"%[^a-zA-Z%]*(\*|\d{5})"), "{": re.compile(r"\{[^}]*(\{|\d{5})")}
_SIZED_FILTERS = ("center", "indent", "batch", "slice", "replace", "format", "wordwrap", "truncate", "join")


class _Budget:
    """What one rendering may still use."""

    def __init__(self) -> None:
        self._steps = 0
        self._chars = 0
        self._end = time.thread_time() + MAX_SECONDS

    def step(self) -> None:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise SecurityError(f"stopped after {MAX_STEPS} passes of loops and calls")
        if self._steps % 64 == 0 and time.thread_time() > self._end:
            raise SecurityError(f"stopped after {MAX_SECONDS:g} s")

    def write(self, text: str) -> str:
        self._chars += len(text)
        check_size(self._chars)
        self.step()
        return text


class _Current(threading.local):
    budget = _Budget()


def check_size(size: int) -> None:
    """Refuses texts and lists that are too long.

    Raises:
        SecurityError: `size` is above `MAX_CHARS`.
    """
    if size > MAX_CHARS:
        raise SecurityError(f"stopped at a text or list of more than {MAX_CHARS} characters or items")


class _Counting(NodeTransformer):
    """Sends what loops pass over, what is written and what ~ joins through filters that count."""

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802
        self.generic_visit(node)
        node.iter = _filtered(node.iter, "counted")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Expr:  # noqa: N802
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), "joined")

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

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        extensions = ["jinja2.ext.loopcontrols", _Generation]
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
        self._current = _Current()
        del self.globals["lipsum"]  # writes as much as it is asked to
        self.globals.update(raise_exception=_raise_exception, strftime_now=_strftime_now)
        self.filters.update({name: self._sized(self.filters[name]) for name in _SIZED_FILTERS})
        self.filters.update(tojson=_tojson, counted=self._counted, joined=self._joined, written=self._written)

    def load(self, source: str) -> Template:
        """Compiles a template.

        Raises:
            TemplateError: Its syntax is wrong.
        """
        check_size(len(source))
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
        return super().call(__context, __obj, *args, **kwargs)

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
        return super().call_binop(context, operator, left, right)

    @pass_context
    def _counted(self, _context: Context, items: Iterable[object]) -> Iterator[object]:
        budget = self._current.budget
        for item in items:
            budget.step()
            yield item

    @pass_context
    def _joined(self, _context: Context, values: list[object]) -> str:
        texts = [str(value) for value in values]
        check_size(sum(map(len, texts)))
        return "".join(texts)

    @pass_context
    def _written(self, _context: Context, value: object) -> str:
        return self._current.budget.write(str(value))

    def _sized(self, original: Callable[..., object]) -> Callable[..., object]:
        """A filter that is told lengths or texts to put in, unless what it makes would be huge."""
        eval_context = getattr(original, "jinja_pass_arg", None)

        def within_limits(*args: object, **kwargs: object) -> object:
            value, given = (args[1], args[2:]) if eval_context else (args[0], args[1:])
            options = (*given, *kwargs.values())
            size = len(value) if isinstance(value, (str, list, tuple)) else 1
            numbers = [abs(option) for option in options if isinstance(option, int)]
            if original.__name__ == "do_format":
                _check_format("%", str(value), options)
            elif original.__name__ == "do_indent":
                check_size((str(value).count("\n") + 1) * max(numbers, default=1) + size)
            elif original.__name__ in {"do_replace", "sync_do_join", "do_join"}:
                check_size((size + 1) * max((len(str(option)) for option in options), default=1))
            else:
                check_size(max(numbers, default=0))
            return original(*args, **kwargs)

        if eval_context is not None:
            within_limits.jinja_pass_arg = eval_context  # type: ignore[attr-defined]
        return within_limits


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
