"""Answers told apart: by response templates as transformers does, and by what chat templates write."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_mm import GenerationConfig, GenerationResult, InputError, MultimodalRunner
from executorch_mm._engine.reply import Delta, Reply
from executorch_mm.chat import ChatOptions
from executorch_mm.chat.replies.formats import find_format
from executorch_mm.chat.replies.reader import TemplateReader
from executorch_mm.chat.replies.template import THINKING, ReplyTemplate

DATA = Path(__file__).resolve().parents[2] / "data" / "chat"
# By tools/fixtures/chat/make_replies_golden.py with transformers.
GOLDEN = json.loads((DATA / "replies.json").read_text(encoding="utf-8"))
CASES = {case["name"]: case for case in GOLDEN["cases"]}
HERMES = CASES["plain"]["template"]


def read(
    template: ReplyTemplate, answer: Sequence[str], prompt: str = "", ended_by: str = "", tools: Any = None
) -> tuple[Reply, list[Delta]]:
    reader = TemplateReader(template, template.begun(prompt), tools)
    deltas = [delta for piece in answer for delta in reader.push(piece)]
    deltas += reader.finish(ended_by)
    return reader.reply(), deltas


def calls_of(reply: Reply) -> list[tuple[str, Any]]:
    return [(call.name, call.arguments) for call in reply.tool_calls]


def as_message(reply: Reply) -> dict[str, Any]:
    calls = [
        {"type": "function", "function": {"name": name, "arguments": arguments}}
        for name, arguments in calls_of(reply)
    ]
    parts = {"content": reply.content, "thinking": reply.thinking, "tool_calls": calls}
    return {name: part for name, part in parts.items() if part} | dict(reply.others)


def with_thinking(message: dict[str, Any]) -> dict[str, Any]:
    return {"thinking" if name in THINKING else name: part for name, part in message.items()}


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case["message"] is not None])
def test_answers_are_read_as_transformers_reads_them(name: str) -> None:
    case = CASES[name]
    template = ReplyTemplate.read(case["template"])
    whole, _ = read(template, [case["answer"]], case["prompt"], tools=GOLDEN["tools"])
    single, deltas = read(template, case["answer"], case["prompt"], tools=GOLDEN["tools"])
    assert as_message(whole) == as_message(single) == with_thinking(case["message"])
    assert "".join(delta.content for delta in deltas) == whole.content
    assert "".join(delta.thinking for delta in deltas) == (whole.thinking or "")
    assert [delta.tool_call for delta in deltas if delta.tool_call] == [*single.tool_calls]


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case["message"] is None])
def test_what_transformers_cannot_read_is_content_as_it_was_written(name: str) -> None:
    case = CASES[name]
    reply, deltas = read(ReplyTemplate.read(case["template"]), case["answer"], case["prompt"])
    assert reply.content == case["answer"].strip()
    assert "".join(delta.content for delta in deltas) == reply.content
    assert reply.tool_calls == ()


QWEN_XML = "<tool_call> <function= <parameter="
PARIS = '{"name": "f", "arguments": {"city": "Paris"}}'
FORMATS = {
    "Hermes": ("<tool_call>", f"<tool_call>\n{PARIS}\n</tool_call>", ["f"], "<|im_end|>"),
    "Hermes, two": ("<tool_call>", f"<tool_call>{PARIS}</tool_call>\n" * 2, ["f", "f"], "<|im_end|>"),
    "Qwen XML": (
        QWEN_XML,
        "<tool_call>\n<function=f>\n<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>",
        ["f"],
        "<|im_end|>",
    ),
    "Llama 3": (
        "<|start_header_id|> parameters",
        '{"name": "f", "parameters": {"city": "Paris"}}',
        ["f"],
        "<|eot_id|>",
    ),
    "Llama 3, typed": (
        "<|start_header_id|> parameters",
        (
            '{"type": "function", "name": "f", "parameters": {"city": "Paris"}}; '
            '{"name": "g", "parameters": {"city": "Paris"}}'
        ),
        ["f", "g"],
        "<|eot_id|>",
    ),
    "Llama 3, Python": (
        "<|start_header_id|> parameters",
        '<|python_tag|>brave_search.call(city="Paris")',
        ["brave_search"],
        "<|eom_id|>",
    ),
    "Mistral": ("[TOOL_CALLS]", f"[TOOL_CALLS][{PARIS}, {PARIS}]", ["f", "f"], "</s>"),
    "Mistral, newer": (
        "[TOOL_CALLS]",
        '[TOOL_CALLS]f[ARGS]{"city": "Paris"}[TOOL_CALLS]g[CALL_ID]a1[ARGS]{"city": "Paris"}',
        ["f", "g"],
        "</s>",
    ),
    "FunctionGemma": (
        "<start_function_call>",
        "<start_function_call>call:f{city:<escape>Paris<escape>}<end_function_call>",
        ["f"],
        "<start_function_response>",
    ),
    "Gemma 4": ("<|tool_call>", '<|tool_call>call:f{city:<|"|>Paris<|"|>}<tool_call|>', ["f"], "<turn|>"),
    "LFM2": (
        "<|tool_call_start|>",
        '<|tool_call_start|>[f(city="Paris")]<|tool_call_end|>',
        ["f"],
        "<|im_end|>",
    ),
    "Granite": ("<|tool_call|>", f"<|tool_call|>[{PARIS}]", ["f"], "<|end_of_text|>"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_models_without_a_response_template_are_read_by_what_their_chat_template_writes(name: str) -> None:
    source, answer, names, end = FORMATS[name]
    template = find_format(source, has_tools=True)
    assert template is not None
    for before in ("", "Let me see. ") if "Llama" not in name else ("",):
        for pieces in ([before + answer], before + answer):
            reply, _ = read(template, pieces, ended_by=end)
            assert calls_of(reply) == [(called, {"city": "Paris"}) for called in names]
            assert reply.content == before.strip()
        assert all(len(call.id) == 9 and call.id.isalnum() for call in reply.tool_calls)
    plain, _ = read(template, "No call here.", ended_by=end)
    assert (plain.content, plain.tool_calls) == ("No call here.", ())


def test_formats_are_known_by_the_templates_of_real_models() -> None:
    known = {
        path.stem: None
        if (template := find_format(path.read_text(), has_tools=True)) is None
        else sorted(field.name for field in template.fields)
        for path in (DATA / "templates").glob("*.jinja")
    }
    calls, thinks = ["content", "tool_calls"], ["content", "thinking", "tool_calls"]
    assert known["qwen3"] == known["granite3.3"] == known["lfm2.5-vl"] == thinks
    assert known["llama3.2"] == known["voxtral"] == calls
    assert known["smollm2"] is known["gemma3"] is known["llava-1.5"] is None
    llama = (DATA / "templates" / "llama3.2.jinja").read_text()
    assert find_format(llama, has_tools=False) is None  # JSON is an answer there


ANSWERS = st.lists(
    st.sampled_from(
        [
            "<tool_call>",
            "</tool_call>",
            "<think>",
            "</think>",
            PARIS,
            " ",
            "\n",
            "a",
            "<",
            "<tool",
            "{",
            "<|im_end|>",
        ]
    ),
    max_size=10,
).map("".join)


@given(ANSWERS, st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_answers_are_read_alike_in_whatever_pieces_they_come(answer: str, random: Any) -> None:
    template = ReplyTemplate.read(HERMES)
    whole, _ = read(template, [answer])
    cuts = sorted(random.randint(0, len(answer)) for _ in range(4))
    pieces = [answer[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(answer)], strict=True)]
    in_pieces, deltas = read(template, pieces)
    assert as_message(in_pieces) == as_message(whole)
    assert "".join(delta.content for delta in deltas) == whole.content
    assert "".join(delta.thinking for delta in deltas) == (whole.thinking or "")


def test_text_is_given_out_as_soon_as_it_cannot_be_a_delimiter() -> None:
    reader = TemplateReader(ReplyTemplate.read(HERMES), "")
    assert reader.push(" Hello <tool") == [Delta(content="Hello")]
    assert reader.push("box> ") == [Delta(content=" <toolbox>")]
    assert reader.push("<think>hm") == [Delta(thinking="hm")]
    assert reader.push("</think>") == []


def test_a_text_around_calls_is_kept_whole() -> None:
    reply, _ = read(ReplyTemplate.read(HERMES), f"One.\n<tool_call>{PARIS}</tool_call>\nTwo.")
    assert (reply.content, calls_of(reply)) == ("One.\nTwo.", [("f", {"city": "Paris"})])


def changed(**changes: Any) -> dict[str, Any]:
    template = copy.deepcopy(HERMES)
    template["fields"]["tool_calls"] |= changes
    return template


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ([], r"response_template: expected a mapping, got \[\]"),
        ({}, "response_template.fields: expected a mapping with fields, got None"),
        (HERMES | {"version": 2}, "expected version 1, got 2"),
        (HERMES | {"more": 1}, "response_template: expected .*, got 'more'"),
        (HERMES | {"defaults": 1}, "response_template.defaults: expected a mapping"),
        ({"fields": HERMES["fields"]}, "expected start_anchor or start_anchor_pattern, got neither"),
        (HERMES | {"fields": {"a": {}, "b": {}}}, "expected one without open at most, got a, b"),
        (HERMES | {"fields": {"a": 1}}, "response_template.fields.a: expected a mapping, got 1"),
        (changed(open_pattern="a"), "expected open or open_pattern, got both"),
        (changed(open=""), "expected a text or a list of them, none empty, got ''"),
        (changed(open=[]), "expected a text or a list of them"),
        (
            changed(content="yaml"),
            "tool_calls: expected a content parser of text, int, .*, got 'yaml'",
        ),
        (changed(content_args=3), "expected content_args that are a mapping"),
        (changed(content="xml-inline"), "expected a tag_pattern for xml-inline"),
        (changed(content="xml-inline", content_args={"tag_pattern": "a"}), "expected a group named 'key'"),
        (changed(content_args={"string_delims": [["a"]]}), "expected string_delims that are a list of pairs"),
        (changed(transform="a {content}"), "expected a placeholder alone"),
        (changed(repeats=1), "tool_calls.repeats: expected a bool, got 1"),
        (changed(join=";", repeats=False), "tool_calls.join: expected a text, of a field that repeats"),
        (changed(transform=None, transform_each=True), "expected a transform, which its groups"),
        (changed(size=1), "tool_calls: expected .*, got 'size'"),
    ],
)
def test_templates_that_are_none_are_refused_with_the_field(template: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ReplyTemplate.read(template)


def test_patterns_that_match_nothing_end() -> None:
    fields = {"a": {"open_pattern": "", "close_pattern": ""}, "content": {}}
    template = ReplyTemplate.read({"fields": fields, "start_anchor": "x"})
    with pytest.raises(InputError, match="match nothing at all, again and again"):
        read(template, ["abc"])


class Says:
    """A logits processor that makes an answer of given tokens."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens = iter(tokens)

    def __call__(self, ids: object, logits: np.ndarray) -> None:
        token = next(self._tokens)
        logits[:] = -np.inf
        logits[token] = 0.0


@pytest.fixture(scope="module")
def runner() -> Iterator[MultimodalRunner]:
    with MultimodalRunner.demo(num_threads=1) as runner:
        yield runner


TEMPLATE = (
    "{% for message in messages %}<|user|>{{ message.content }}{% endfor %}<|assistant|>"
    "{# <tool_call> <think> #}"
)
ANSWER = f"<think>look at it</think>\nLet me see.\n<tool_call>{PARIS}</tool_call>"
OPTIONS = ChatOptions(template=TEMPLATE)


def saying(runner: MultimodalRunner, answer: str, **options: Any) -> GenerationConfig:
    tokens = [*runner.tokenizer.encode(answer), *sorted(runner.tokenizer.eos_ids)[:1]]
    return GenerationConfig(logits_processors=[Says(tokens)], **options)


def expect_answer(result: GenerationResult | None) -> None:
    assert result is not None
    assert (result.content, result.thinking) == ("Let me see.", "look at it")
    (call,) = result.tool_calls
    assert (call.name, call.arguments) == ("f", {"city": "Paris"})
    assert result.finish_reason == "stop"


def test_a_chat_has_content_thinking_and_calls(runner: MultimodalRunner) -> None:
    result = runner.chat("hi", saying(runner, ANSWER), chat_options=OPTIONS)
    expect_answer(result)
    assert result.text == ANSWER
    (call,) = result.tool_calls
    arguments = {"name": "f", "arguments": '{"city": "Paris"}'}
    assert result.message == {
        "role": "assistant",
        "content": "Let me see.",
        "reasoning_content": "look at it",
        "tool_calls": [{"id": call.id, "type": "function", "function": arguments}],
    }
    assert json.loads(result.to_json())["message"] == result.message
    assert "1 tool call" in repr(result)
    # The message goes on in the conversation.
    runner.chat(
        [{"role": "user", "content": "hi"}, result.message, {"role": "tool", "content": "ok"}],
        max_new_tokens=1,
    )


def test_a_chat_streams_deltas_and_texts(runner: MultimodalRunner) -> None:
    stream = runner.stream_chat("hi", saying(runner, ANSWER), chat_options=OPTIONS, deltas=True)
    deltas = [*stream]
    assert "".join(delta.content for delta in deltas) == "Let me see."
    assert "".join(delta.thinking for delta in deltas) == "look at it"
    assert [delta.tool_call.name for delta in deltas if delta.tool_call] == ["f"]
    assert len(deltas) > 4
    expect_answer(stream.result)
    texts = runner.stream_chat("hi", saying(runner, ANSWER), chat_options=OPTIONS)
    assert "".join(texts) == ANSWER
    expect_answer(texts.result)


def test_a_task_streams_deltas_too(runner: MultimodalRunner) -> None:
    async def names() -> list[str]:
        stream = runner.astream_chat("hi", saying(runner, ANSWER), chat_options=OPTIONS, deltas=True)
        found = [delta.tool_call.name async for delta in stream if delta.tool_call]
        expect_answer(stream.result)
        return found

    assert asyncio.run(names()) == ["f"]


def test_deltas_of_a_model_without_a_format_are_its_text(runner: MultimodalRunner) -> None:
    stream = runner.stream_chat("how many?", max_new_tokens=4, deltas=True)
    assert "".join(delta.content for delta in stream) == stream.result.text == stream.result.content
    assert stream.result.tool_calls == ()
    assert stream.result.thinking is None
    assert stream.result.message == {"role": "assistant", "content": stream.result.text}


def test_an_answer_that_is_cut_or_stopped_is_told_apart_as_far_as_it_goes(runner: MultimodalRunner) -> None:
    cut = runner.chat("hi", saying(runner, ANSWER, max_new_tokens=6), chat_options=OPTIONS)
    assert cut.content == ""
    assert cut.thinking
    assert "look at it".startswith(cut.thinking)
    stopped = runner.chat("hi", saying(runner, ANSWER, stop=["me"]), chat_options=OPTIONS)
    assert (stopped.content, stopped.thinking, stopped.stopped_by) == ("Let", "look at it", "me")
    in_call = runner.chat("hi", saying(runner, ANSWER, stop=["Paris"]), chat_options=OPTIONS)
    assert in_call.tool_calls == ()
    assert in_call.content == 'Let me see.\n<tool_call>{"name": "f", "arguments": {"city": "'


def test_a_template_of_the_model_or_the_user_says_how_answers_are_read(
    runner: MultimodalRunner, demo_folder: Path, tmp_path: Path
) -> None:
    own = {"fields": {"content": {}, "sums": {"open": "<sum>", "close": "</sum>", "content": "json"}}}
    own |= {"start_anchor": "<|assistant|>"}
    said = "Six. <sum>[1, 2]</sum>"
    options = ChatOptions(response_template=own)
    result = runner.chat("hi", saying(runner, said), chat_options=options)
    assert result.message == {"role": "assistant", "content": "Six.", "sums": [1, 2]}
    plain = ChatOptions(template=TEMPLATE, response_template=False)
    assert runner.chat("hi", saying(runner, ANSWER), chat_options=plain).content == ANSWER
    for file in demo_folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    config = json.loads((demo_folder / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").unlink()
    for response_template in (own, {"fields": 3}):
        text = json.dumps(config | {"response_template": response_template})
        (tmp_path / "tokenizer_config.json").write_text(text)
        with MultimodalRunner(tmp_path / "model.pte", tmp_path, num_threads=1) as other:
            if response_template is own:
                assert other.chat("hi", saying(other, said)).message["sums"] == [1, 2]
                continue
            with pytest.raises(InputError, match=r"response_template\.fields: expected a mapping"):
                other.chat("hi", max_new_tokens=1)
            other.chat("hi", max_new_tokens=1, chat_options=ChatOptions(response_template=False))


def test_several_answers_are_told_apart_each(runner: MultimodalRunner) -> None:
    tokens = runner.tokenizer.encode("<think>a</think>b")
    result = runner.chat(
        "hi",
        logits_processors=[Says(tokens * 2)],
        num_return_sequences=2,
        temperature=1.0,
        max_new_tokens=len(tokens),
        chat_options=OPTIONS,
    )
    assert [(one.content, one.thinking) for one in (result, *result.alternatives)] == [("b", "a")] * 2


class Thinks:
    """A logits processor by which the model never stops thinking by itself, but says "ok" afterwards."""

    def __init__(self, runner: MultimodalRunner) -> None:
        self._say = iter([*runner.tokenizer.encode("ok"), min(runner.tokenizer.eos_ids)])
        self._thought = runner.tokenizer.encode("a")[0]
        self._decode = runner.tokenizer.decode
        self._num_before: int | None = None

    def __call__(self, ids: np.ndarray, logits: np.ndarray) -> None:
        if self._num_before is None:
            self._num_before = len(ids)
        said = self._decode([int(token) for token in ids[self._num_before :]])
        token = next(self._say) if "</think>" in said else self._thought
        logits[:] = -np.inf
        logits[token] = 0.0


@pytest.mark.parametrize("budget", [0, 1, 5])
def test_thinking_ends_when_its_budget_is_used_up(runner: MultimodalRunner, budget: int) -> None:
    template = TEMPLATE.replace("<|assistant|>", "<|im_start|>assistant\n<think>")
    options = ChatOptions(template=template, thinking_budget=budget)
    result = runner.chat("hi", logits_processors=[Thinks(runner)], chat_options=options, max_new_tokens=40)
    assert result.thinking == ("a" * budget or None)
    assert (result.content, result.finish_reason) == ("ok", "stop")
    stream = runner.stream_chat(
        "hi", logits_processors=[Thinks(runner)], chat_options=options, max_new_tokens=40, deltas=True
    )
    assert "".join(delta.content for delta in stream) == "ok"


def test_thinking_without_a_budget_goes_on(runner: MultimodalRunner) -> None:
    result = runner.chat(
        "hi",
        saying(runner, "<think>" + "a" * 9 + "</think>ok"),
        chat_options=ChatOptions(template=TEMPLATE, thinking_budget=100),
    )
    assert (result.thinking, result.content) == ("a" * 9, "ok")
    logprobs = runner.chat(
        "hi",
        logits_processors=[Thinks(runner)],
        chat_options=ChatOptions(
            template=TEMPLATE.replace("<|assistant|>", "<|im_start|>assistant\n<think>"), thinking_budget=2
        ),
        logprobs=0,
        max_new_tokens=40,
    )
    assert len(logprobs.logprobs or ()) == len(logprobs.token_ids)
    assert logprobs.content == "ok"


@pytest.mark.parametrize("budget", [-1, True, 2.5, "3", 2**70])
def test_a_budget_that_is_none_is_refused(runner: MultimodalRunner, budget: Any) -> None:
    with pytest.raises(InputError, match="thinking_budget: expected 0 or more tokens, or None"):
        ChatOptions(thinking_budget=budget)


def test_a_model_that_does_not_think_has_no_budget(runner: MultimodalRunner) -> None:
    with pytest.raises(InputError, match="thinking_budget: expected a model whose files say what ends"):
        runner.chat("hi", chat_options=ChatOptions(thinking_budget=3), max_new_tokens=1)
