"""Chat templates: where they are found, what they may use, and what stops them."""

from __future__ import annotations

import json
import re
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from executorch_mm import MultimodalRunner
from executorch_mm.chat import ChatOptions, ChatTemplate
from executorch_mm.chat.template_files import TemplateFiles
from executorch_mm.errors import InputError

HELLO = [{"role": "user", "content": "hello"}]


def render(source: str, **options: object) -> str:
    return ChatTemplate(source).render(HELLO, options=options)


# What templates may use.


def test_blocks_leave_no_lines_and_loops_break_and_continue() -> None:
    source = (
        "{% for n in range(9) %}\n"
        "    {% if n == 1 %}\n{% continue %}\n{% endif %}\n"
        "    {% if n == 3 %}\n{% break %}\n{% endif %}\n"
        "{{ n }}\n"
        "{% endfor %}"
    )
    assert render(source) == "0\n2\n"


def test_tojson_writes_what_html_would_escape() -> None:
    assert render("{{ x | tojson }}", x={"é": "<&>'", "a": 1}) == '{"é": "<&>\'", "a": 1}'
    assert (
        render("{{ x | tojson(indent=2, sort_keys=true) }}", x={"b": 1, "a": 2})
        == '{\n  "a": 2,\n  "b": 1\n}'
    )
    assert render("{{ x | tojson(ensure_ascii=true) }}", x="é") == '"\\u00e9"'
    assert render("{{ x | tojson(separators=(',', ':')) }}", x={"a": [1, 2]}) == '{"a":[1,2]}'


def test_the_date_is_todays() -> None:
    before = datetime.now().strftime("%d %b %Y")
    rendered = render("{{ strftime_now('%d %b %Y') }}")
    assert rendered in {before, datetime.now().strftime("%d %b %Y")}


@pytest.mark.parametrize(
    "source",
    [
        "{{ strftime_now(FORM) }}",
        "{% macro today() %}{{ strftime_now(FORM) }}{% endmacro %}{{ today() }}",
        "{% if strftime_now is defined %}{% set date = strftime_now(FORM) %}{% endif %}{{ date }}",
        "{% for m in messages %}{{ strftime_now(FORM) }}{% endfor %}",
        "{% set ask = strftime_now %}{{ ask(FORM) }}",
    ],
)
def test_the_date_is_the_one_that_is_given(source: str) -> None:
    template = ChatTemplate(source.replace("FORM", "'%d %b %Y %H:%M'"))
    assert template.render(HELLO, now=datetime(1999, 12, 31, 23, 59)) == "31 Dec 1999 23:59"
    summer = datetime(2024, 7, 1, 12, tzinfo=timezone(timedelta(hours=2), "CEST"))
    assert ChatTemplate("{{ strftime_now('%H %Z') }}").render(HELLO, now=summer) == "12 CEST"


@pytest.mark.parametrize("form", ["'%999999999d'", "'%010d'", "'%d' * 1000", "5"])
def test_a_date_that_is_given_is_written_within_limits(form: str) -> None:
    template = ChatTemplate("{{ strftime_now(" + form + ") }}")
    for now in (None, datetime(1999, 12, 31)):
        with pytest.raises(InputError, match=r"^chat template: "):
            template.render(HELLO, now=now)


def test_prompts_with_a_date_repeat(runner: MultimodalRunner) -> None:
    source = "{{ strftime_now('%S%f') }} {{ messages[0].content }}"
    histories = []
    for now in (datetime(2024, 1, 1), datetime(2024, 1, 1), datetime(2024, 1, 1, second=1)):
        runner.reset()
        runner.chat(HELLO, chat_options=ChatOptions(template=source, now=now), max_new_tokens=1)
        histories.append(runner.history)
    assert histories[0] == histories[1] != histories[2]


def test_a_date_can_be_a_variable_too() -> None:
    source = "{{ date_string if date_string is defined else strftime_now('%Y') }}"
    assert render(source, date_string="then") == "then"
    assert ChatTemplate(source).render(HELLO, now=datetime(1999, 1, 1)) == "1999"


def test_generation_marks_change_nothing_but_the_scope() -> None:
    source = (
        "{% set x = 1 %}{% generation %}[{{ messages[0].content }}]{% set x = 2 %}{% endgeneration %}{{ x }}"
    )
    assert render(source) == "[hello]1"


def test_loop_variables_work_on_counted_loops() -> None:
    source = (
        "{% for n in [5, 6, 7] if n != 6 %}{{ loop.index }}/{{ loop.length }}{{ loop.last }} {% endfor %}"
    )
    assert render(source) == "1/2False 2/2True "


def test_special_tokens_and_options_are_variables() -> None:
    template = ChatTemplate("{{ bos_token }}{{ mode }}{{ tools is none }}", {"bos_token": "<s>"})
    assert template.render(HELLO, options={"mode": "short"}) == "<s>shortTrue"


# What stops them.


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{% for %}", "unexpected|[Ee]xpected"),
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages[0].content + 1 }}", "concatenate"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ cycler.__init__.__globals__ }}", "unsafe"),
        ("{{ (messages | attr('__class__')).x }}", "unsafe|undefined"),
        ("{{ lipsum.__globals__ }}", "undefined"),
        ("{{ '{0.__class__.x}'.format(1) }}", "unsafe|undefined"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ messages[0].update({'role': 'x'}) }}", "unsafe"),
        ("{% include 'other' %}", "loader"),
        ("{% set messages.x = 1 %}", "namespace"),
        ("{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", "recursion"),
        ("{% for n in [1] %}" * 60 + "{% endfor %}" * 60, "nested blocks"),
    ],
)
def test_a_template_that_fails_or_reaches_out_is_an_input_error(source: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^chat template: .*({message})"):
        render(source)


DOUBLE = "{% set ns = namespace(x='a') %}{% for n in range(99) %}{% set ns.x = DOUBLED %}{% endfor %}"


@pytest.mark.parametrize(
    "source",
    [
        "{% for n in range(10**9) %}x{% endfor %}",
        "{% for n in range(99999) %}{% for m in range(99999) %}{% endfor %}{% endfor %}",
        "{% for n in range(99999) %}{% for m in range(99999) if false %}{% endfor %}{% endfor %}",
        "{% for n in range(99999) %}{{ range(99999) | list | length }}{% endfor %}",
        "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
        "{% for n in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
        DOUBLE.replace("DOUBLED", "ns.x + ns.x"),
        DOUBLE.replace("DOUBLED", "ns.x ~ ns.x"),
        DOUBLE.replace("DOUBLED", "ns.x * 9"),
        DOUBLE.replace("DOUBLED", "[ns.x, ns.x] | join"),
        DOUBLE.replace("DOUBLED", "ns.x.replace('a', 'aaa')"),
        DOUBLE.replace("DOUBLED", "ns.x | replace('a', 'aaa')"),
        DOUBLE.replace("DOUBLED", "'%s%s' % (ns.x, ns.x)"),
        DOUBLE.replace("DOUBLED", "'{0}{0}'.format(ns.x)"),
        "{% set n = namespace(x=3) %}{% for i in range(99) %}{% set n.x = n.x * n.x %}{% endfor %}",
        "{{ 3 ** 99999999 }}",
        "{{ 'a' * 999999999 }}",
        "{{ '%999999999d' % 1 }}",
        "{{ '%*d' % (999999999, 1) }}",
        "{{ '{:>999999999}'.format(1) }}",
        "{{ '{:>{}}'.format(1, 999999999) }}",
        "{{ 'a'.center(999999999) }}",
        "{{ 'a' | center(999999999) }}",
        "{{ 'a' | indent(999999999, true) }}",
        DOUBLE.replace("DOUBLED", "[ns.x, ns.x]") + "{{ ns.x }}",
        DOUBLE.replace("DOUBLED", "dict(a=ns.x, b=ns.x)") + "{{ ns.x | tojson }}",
        DOUBLE.replace("DOUBLED", "namespace(a=ns.x, b=ns.x)") + "{{ [ns.x] }}",
        "{{ range(99999) | map('center', 9000000) | list }}",
        DOUBLE.replace("DOUBLED", "[ns.x, 'a' * 999999]"),
        "{% macro m(x) %}{{ m(x[1:]) }}{% endmacro %}{{ m('a' * 9999999) }}",
        "{{ {'a': 1} | tojson(indent=999999999) }}",
        "{% set x %}{% for n in range(99999) %}{{ 'a' * 9999 }}{% endfor %}{% endset %}",
    ],
)
def test_a_template_without_an_end_is_stopped_within_seconds(source: str) -> None:
    start = time.thread_time()
    with pytest.raises(InputError, match=r"^chat template: "):
        render(source)
    assert time.thread_time() - start < 3


def test_what_templates_do_to_long_conversations_is_within_the_limits() -> None:
    source = "{% for m in messages %}{{ '<' ~ m.role ~ '>' + m.content | trim + '%s' % '\n' }}{% endfor %}"
    messages = [{"role": "user", "content": " word " * 100}] * 5000
    assert len(ChatTemplate(source).render(messages)) == 5000 * (len("<user>\n") + 598)


def test_objects_with_methods_are_not_handed_to_templates(tmp_path: Path) -> None:
    template = ChatTemplate("{{ path.unlink() }}")
    file = tmp_path / "kept"
    file.touch()
    with pytest.raises(InputError):
        template.render(HELLO, options={"path": file})
    assert file.exists()


# Where they are found.


def read(*folders: Path) -> dict[str, str]:
    return dict(TemplateFiles.read(folders).templates)


def test_templates_are_found_where_models_are_published_with_them(tmp_path: Path) -> None:
    empty, config, processor, jinja = (tmp_path / name for name in ("empty", "config", "processor", "jinja"))
    for folder in (empty, config, processor, jinja):
        folder.mkdir()
    (config / "tokenizer_config.json").write_text('{"chat_template": "of the configuration"}')
    (processor / "chat_template.json").write_text('{"chat_template": "of the processor"}')
    (processor / "tokenizer_config.json").write_text('{"chat_template": "of the configuration"}')
    (jinja / "chat_template.jinja").write_text("of the file")
    (jinja / "tokenizer_config.json").write_text('{"chat_template": "of the configuration"}')
    assert read(empty) == {}
    assert read(config) == {"default": "of the configuration"}
    assert read(processor) == {"default": "of the processor"}
    assert read(jinja) == {"default": "of the file"}
    assert read(empty, config, jinja) == {"default": "of the configuration"}


def test_named_templates_are_chosen_by_name_and_by_tools(tmp_path: Path) -> None:
    entries = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "with tools"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": entries}))
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "rag.jinja").write_text("with documents")
    files = TemplateFiles.read([tmp_path])
    assert files.choose(None, has_tools=False) == "plain"
    assert files.choose(None, has_tools=True) == "with tools"
    assert files.choose("rag", has_tools=True) == "with documents"
    assert files.choose("{{ 1 }}", has_tools=False) == "{{ 1 }}"


def test_without_a_template_for_the_case_the_message_says_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected chat_template\.jinja"):
        TemplateFiles().choose(None, has_tools=False)
    with pytest.raises(
        InputError,
        match=r"ChatOptions\(template=\.\.\.\) with the name of one of this model's templates: rag, tool_use",
    ):
        TemplateFiles({"tool_use": "x", "rag": "y"}).choose(None, has_tools=False)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("chat_template.json", "[]"),
        ("chat_template.json", "{"),
        ("tokenizer_config.json", '{"chat_template": [{"name": "default"}]}'),
        ("tokenizer_config.json", '{"chat_template": ["text"]}'),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=re.escape(str(tmp_path / name))):
        TemplateFiles.read([tmp_path])


def test_special_tokens_are_read_in_both_spellings(tmp_path: Path) -> None:
    config = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "pad_token": None, "add_bos_token": True}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    files = TemplateFiles.read([tmp_path])
    assert files.special_tokens == {"bos_token": "<s>", "eos_token": "</s>"}
    assert files.adds_bos
