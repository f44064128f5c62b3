"""The limits of the template sandbox, tried with miniatures: the limits are lowered."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from executorch_mm.chat import ChatTemplate, sandbox_limits
from executorch_mm.errors import InputError

LOOP = "{% set ns = namespace(x=START) %}{% for n in range(40) %}{% set ns.x = STEP %}{% endfor %}{{ ns.x }}"


def render(source: str, **variables: object) -> str:
    return ChatTemplate(source).render([{"role": "user", "content": "hello"}], options=variables)


def loop(start: str, step: str) -> str:
    return LOOP.replace("START", start).replace("STEP", step)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that a few kilobytes reach."""
    for name, value in {
        "MAX_CHARS": 4000,
        "MAX_BYTES": 60_000,
        "MAX_STEPS": 2000,
        "MAX_WIDTH": 50,
        "MAX_SOURCE": 2000,
        "MAX_DEPTH": 20,
    }.items():
        monkeypatch.setattr(sandbox_limits, name, value)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "source",
    [
        # sums and products of growing values
        loop("'ab'", "ns.x + ns.x"),
        loop("'ab'", "ns.x * 2"),
        loop("[1]", "ns.x + ns.x"),
        loop("[1]", "[ns.x, ns.x] | sum(start=[])"),
        loop("'ab'", "ns.x ~ ns.x"),
        loop("'ab'", "ns.x | replace('a', 'aab')"),
        # integers of any length
        loop("3", "ns.x * ns.x"),
        loop("3", "ns.x + ns.x * ns.x"),
        loop("9", "ns.x ** 2"),
        loop("-7", "ns.x - ns.x * ns.x * 3"),
        "{{ ('9' * 400) | int }}",
        "{{ 2 ** 2000 }}",
        "{{ [9223372036854775807, 9223372036854775807, 9223372036854775807] | sum }}",
        # chains of namespaces and dictionaries
        loop("1", "namespace(a=ns.x, b=ns.x)"),
        loop("1", "{'a': ns.x, 'b': ns.x}"),
        loop("1", "dict(a=ns.x, b=ns.x)"),
        loop("1", "(ns.x, ns.x)"),
        "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}",
        "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns ~ '' }}",
        "{% set ns = namespace() %}{% set ns.a = ns %}{{ '%s' % ns }}",
        # methods and filters that take a width, an indent, a separator or a table
        "{{ 'a'.translate({97: 'b' * 99}) }}",
        "{{ 'a\t'.expandtabs(900) }}",
        "{{ 'a'.ljust(900) }}",
        "{{ 'a'.zfill(900) }}",
        "{{ 'a b' | wordwrap(1) }}",
        "{{ [[1]] | tojson(indent=900) }}",
        "{{ [1, 2] | tojson(separators=(',' * 900, ':')) }}",
        "{{ range(300) | list | tojson(separators=(',' * 40, ':')) }}",
        "{{ ('a' * 60) | truncate(20, true, '.' * 900) }}",
        "{{ '%900d' % 1 }}",
        "{{ '%.900f' % 1.5 }}",
        "{{ ('%40d' * 90) | format(*range(90)) }}",
        "{{ '{:900}'.format(1) }}",
        "{{ '{:{}}'.format(1, 9) }}",
        "{{ '{a:>{b}}'.format_map({'a': 1, 'b': 2}) }}",
        "{{ strftime_now('%900Y') }}",
        "{{ strftime_now('%-900d') }}",
        "{{ ('a' * 80).join(range(90) | map('string')) }}",
        "{{ range(90) | join('a' * 80) }}",
        "{{ ('b\n' * 900) | indent(40) }}",
        "{{ 'a'.strip('b' * 900) }}",
        "{{ 'a' | trim('b' * 900) }}",
        "{{ [1] | batch(900, 'x') | list }}",
        "{{ 'a' | urlize }}",
        "{{ 'a' | pprint }}",
        "{{ 'a' | center(900) }}",
        # many variables, slices, macros
        "".join(f"{{% set v{n} = 'a' * 3900 %}}" for n in range(40)),
        "{% set big = 'a' * 3900 %}{% for n in range(40) %}{% set x = big[1:] %}{% endfor %}",
        "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(12) }}",
        # no end, and what is written on the way
        "{% for a in range(90) %}{% for b in range(90) %}{% endfor %}{% endfor %}",
        "{% for a in range(90) %}{{ 'a' * 90 }}{% endfor %}",
        # length and nesting of the source
        "a" * 2001,
        "{{ " + "[" * 70 + "]" * 70 + " }}",
        "{% if true %}" * 70 + "{% endif %}" * 70,
    ],
)
def test_a_miniature_of_each_kind_is_refused(source: str) -> None:
    start = time.thread_time()
    with pytest.raises(InputError, match=r"^chat template: "):
        render(source)
    assert time.thread_time() - start < 0.5


@pytest.mark.usefixtures("small")
def test_the_limits_are_of_one_rendering_not_of_all() -> None:
    template = ChatTemplate("{% for n in range(50) %}{{ 'a' * 50 }}{% endfor %}")
    for _ in range(30):
        assert template.render([{"role": "user", "content": "x"}]) == "a" * 2500


# What Python says of the same expression, on the left and on the right.
@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ 'a-b-c'.split('-') | join('+') }}", "+".join(["a", "b", "c"])),
        ("{{ ' x '.strip() ~ 'ab'.upper() ~ 'AB'.lower() }}", " x ".strip() + "AB" + "ab"),
        ("{{ 'key: value'.partition(': ')[2] }}", "value"),
        ("{{ {'b': 1, 'a': [1, {'c': None}]} | tojson }}", json.dumps({"b": 1, "a": [1, {"c": None}]})),
        ("{{ {'b': 1} | tojson(indent=2) }}", json.dumps({"b": 1}, indent=2)),
        ("{{ {'b': 1} | tojson(separators=(',', ':')) }}", json.dumps({"b": 1}, separators=(",", ":"))),
        ("{{ '%05.1f|%-4s|%d%%' % (2.25, 'a', 3) }}", "%05.1f|%-4s|%d%%" % (2.25, "a", 3)),  # noqa: UP031
        ("{{ '{} {:>4} {{}}'.format('a', 'b') }}", "{} {:>4} {{}}".format("a", "b")),
        ("{{ [3, 1, 2] | sort | map('string') | join(',') }}", "1,2,3"),
        ("{{ [1, 2.5] | sum }} {{ 7 // 2 }} {{ -7 % 3 }} {{ 2 ** 10 }}", f"{3.5} {7 // 2} {-7 % 3} {2**10}"),
        ("{{ 'abcdef'[1:-1] }}{{ [1, 2, 3][::-1] | join }}", "abcdef"[1:-1] + "321"),
        ("{{ 'a\nb' | indent(2, true) }}", "  a\n  b"),
        ("{% for k, v in {'x': 1}.items() %}{{ k }}{{ v }}{{ loop.cycle('p', 'q') }}{% endfor %}", "x1p"),
        ("{% set c = joiner(', ') %}{% for x in 'abc' %}{{ c() }}{{ x }}{% endfor %}", "a, b, c"),
        ("{{ missing | default('none') }}{{ missing }}", "none"),
        (
            "{{ none }} {{ true }} {{ 1.0 }} {{ [1, 'a'] }} {{ {'a': 1} }}",
            "None True 1.0 [1, 'a'] {'a': 1}",
        ),
    ],
)
def test_what_templates_do_is_what_python_does(source: str, expected: str) -> None:
    assert render(source) == expected


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("method", lambda: render("{{ 'a'.encode() }}")),
        ("class", lambda: render("{{ ''.__class__() }}")),
        ("object", lambda: render("{{ f() }}", f="text")),
    ],
)
def test_what_no_template_needs_is_not_called(name: str, call: Callable[[], str]) -> None:
    with pytest.raises(InputError, match=r"^chat template: .*(unsafe|not callable|undefined)"):
        call()


def test_a_long_conversation_takes_a_fraction_of_what_there_is() -> None:
    source = (
        "{% for m in messages %}{{ '<' ~ m.role ~ '>' + m.content | trim | replace('x', 'y') }}{% endfor %}"
    )
    messages = [{"role": "user", "content": "word " * 20_000}] * 20
    start = time.thread_time()
    assert len(ChatTemplate(source).render(messages)) == 20 * (6 + 99_999)
    assert time.thread_time() - start < 0.5


# What follows each other is not in each other: Gemma 4's template sets 60 variables.


def test_long_templates_are_no_deep_ones() -> None:
    sets = "".join(f"{{% set x{n} = ['a', 'b'] | join(d='-') %}}" for n in range(200))
    conditions = "{{ 'c' if x1 else 'd' }}" * 200
    loops = "{% for n in [1] if n %}{% if n %}{% elif x2 %}{% endif %}{% endfor %}" * 200
    macros = "{% macro m() %}{% set y %}e{% endset %}{{ y }}{% endmacro %}{{ m() }}" * 200
    assert render(sets + conditions + loops + macros) == "c" * 200 + "e" * 200


@pytest.mark.parametrize(
    "source",
    [
        "{% set x %}" * 61 + "{% endset %}" * 61,
        "{% set x | upper %}" * 61 + "{% endset %}" * 61,
        "{% filter default(x=1) %}" * 61 + "{% endfilter %}" * 61,
        "{% if x %}" * 61 + "{% endif %}" * 61,
        "{{ " + "1 if 0 else " * 61 + "2 }}",
        "{% set x = " + "1 if 0 else " * 61 + "2 %}",
        "{{ " + "[" * 61 + "]" * 61 + " }}",
    ],
)
def test_deep_ones_are_stopped_before_they_are_compiled(source: str) -> None:
    with pytest.raises(InputError, match="recursion of more than 60"):
        render(source)
