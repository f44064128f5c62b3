"""Conversations: messages in both forms, images in their places, what is read again, answers."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from executorch_mm import (
    BusyError,
    CapacityError,
    GenerationConfig,
    MultimodalInput,
    MultimodalRunner,
    make_audio_input,
    make_image_input,
    make_token_input,
)
from executorch_mm._engine.prefix_reuse import ChatPrompt, PrefixCache
from executorch_mm.chat import ChatOptions, ChatTemplate
from executorch_mm.chat.control_tokens import ControlTokens
from executorch_mm.chat.messages import read_messages
from executorch_mm.chat.placeholders import render_conversation
from executorch_mm.chat.quoting import PromptText
from executorch_mm.demo import make_scene, render
from executorch_mm.demo.questions import NUMBERS
from executorch_mm.errors import InputError

TEMPLATES = Path(__file__).parents[2] / "data" / "chat" / "templates"
COUNT = {"type": "text", "text": "how many shapes are there?"}
GREEDY = GenerationConfig(max_new_tokens=40)
WAV = bytes.fromhex(
    "524946462c00000057415645666d74201000000001000100803e0000007d0000020010006461746108000000"
) + bytes(8)


def user(*parts: object) -> dict[str, object]:
    return {"role": "user", "content": list(parts)}


def png(seed: int) -> bytes:
    file = io.BytesIO()
    render(make_scene(seed)).save(file, "PNG")
    return file.getvalue()


def count(seed: int) -> str:
    return NUMBERS[len(make_scene(seed).shapes)]


# Messages.


def image_forms(folder: Path) -> list[dict[str, Any]]:
    data = png(7)
    (folder / "scene.png").write_bytes(data)
    path, text = str(folder / "scene.png"), base64.b64encode(data).decode()
    uri = f"data:image/png;base64,{text}"
    return [
        {"type": "image", "image": Image.open(io.BytesIO(data))},
        {"type": "image", "image": np.asarray(Image.open(io.BytesIO(data)))},
        {"type": "image", "image": folder / "scene.png"},
        {"type": "image", "image": io.BytesIO(data)},
        {"type": "image", "path": path},
        {"type": "image", "path": folder / "scene.png"},
        {"type": "image", "base64": text},
        {"type": "image", "url": uri},
        {"type": "image", "image": make_image_input(Image.open(io.BytesIO(data)))},
        {"type": "image_url", "image_url": {"url": uri, "detail": "low"}},
    ]


def test_images_come_in_every_form_of_both_apis(runner: MultimodalRunner, tmp_path: Path) -> None:
    answers = []
    for form in image_forms(tmp_path):
        runner.reset()
        answers.append(runner.chat([user(form, COUNT)], GREEDY).text)
    assert answers == [count(7)] * len(answers)


def test_a_url_is_fetched_by_the_callers_function_alone(runner: MultimodalRunner) -> None:
    message = user({"type": "image_url", "image_url": {"url": "https://images.invalid/7.png"}}, COUNT)
    with pytest.raises(InputError, match=r"^messages\[0\]\.content\[0\]\.image_url: .*fetch"):
        runner.chat([message])
    fetched: list[str] = []

    def fetch(url: str) -> bytes:
        fetched.append(url)
        return png(7)

    assert runner.chat([message], GREEDY, chat_options=ChatOptions(fetch=fetch)).text == count(7)
    assert fetched == ["https://images.invalid/7.png"]


def test_audio_clips_come_in_every_form_of_both_apis(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(WAV)
    text = base64.b64encode(WAV).decode()
    forms: list[dict[str, object]] = [
        {"type": "input_audio", "input_audio": {"data": text, "format": "wav"}},
        {"type": "audio", "audio": tmp_path / "a.wav"},
        {"type": "audio", "audio": io.BytesIO(WAV)},
        {
            "type": "audio",
            "audio": iter([np.zeros(2, np.int16)] * 2),
            "sampling_rate": 16000,
        },
        {"type": "audio", "path": str(tmp_path / "a.wav")},
        {"type": "audio", "base64": text},
        {"type": "audio", "url": f"data:audio/wav;base64,{text}"},
        {"type": "audio_url", "audio_url": {"url": f"data:audio/wav;base64,{text}"}},
        {"type": "audio", "audio": np.zeros(4, np.int16), "sampling_rate": 16000},
    ]
    conversation = read_messages([user(*forms)])
    assert conversation.messages[0]["content"] == [{"type": "audio"}] * len(forms)
    assert [str(audio.value) for audio in conversation.media] == [
        "Waveform(num_samples=4, sampling_rate=16000)"
    ] * len(forms)


def test_a_text_is_one_message_of_the_user(runner: MultimodalRunner) -> None:
    text = COUNT["text"]
    assert runner.chat(text, GREEDY).text == runner.chat([user(text)], GREEDY).text
    assert read_messages("hello").messages == [{"role": "user", "content": "hello"}]


def test_a_video_is_its_frames() -> None:
    frames = [render(make_scene(seed)) for seed in (1, 2)]
    conversation = read_messages([user({"type": "video", "video": frames}, COUNT)])
    assert conversation.messages[0]["content"] == [{"type": "image"}, {"type": "image"}, COUNT]
    assert [one.value for one in conversation.media] == frames


def test_tool_calls_and_other_fields_reach_the_template() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": [1, "é"]}'}}
    messages = [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "4"},
    ]
    source = "{% for m in messages %}{{ m | tojson }}\n{% endfor %}"
    rendered = ChatTemplate(source).render(read_messages(messages).messages).splitlines()
    assert '"function": {"name": "f", "arguments": "{\\"x\\": [1, \\"é\\"]}"}' in rendered[0]
    assert "content" not in rendered[0]  # transformers leaves out what is None
    assert rendered[1] == '{"role": "tool", "tool_call_id": "1", "content": "4"}'
    assert call["function"]["arguments"] == '{"x": [1, "é"]}'  # type: ignore[index]


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        (5, "messages: expected a text or a list of messages, got int"),
        ([], "messages: expected at least one"),
        (["hello"], "messages[0]: expected a mapping with role and content, got str"),
        ([{"content": "x"}], "messages[0].role: expected a text"),
        ([{"role": "user"}], "messages[0].content: expected a text or a list of parts, got nothing"),
        (
            [{"role": "user", "content": 5}],
            "messages[0].content: expected a text or a list of parts",
        ),
        ([user("a"), user("b", 5)], "messages[1].content[1]: expected a mapping with a type, got int"),
        ([user({"type": "smell"})], "messages[0].content[0].type: expected text, image, image_url"),
        ([user({"type": "text"})], "messages[0].content[0].text: expected a text, got NoneType"),
        (
            [user({"type": "image"})],
            "content[0]: expected one of image, url, path, base64, got none",
        ),
        ([user({"type": "image", "url": "a", "path": "b"})], "content[0]: expected one of image"),
        ([user({"type": "image_url", "image_url": {}})], "content[0].image_url.url: expected"),
        (
            [user({"type": "image", "path": "/no/such.png"})],
            "content[0].image: expected a file that is there and is an image of a kind that is read, got",
        ),
        ([user({"type": "image", "base64": "??"})], "messages[0].content[0].base64: expected base64"),
        (
            [user({"type": "input_audio", "input_audio": {"data": 5}})],
            "content[0].input_audio.data: expected",
        ),
        ([user({"type": "input_audio"})], "content[0].input_audio: expected a mapping"),
        ([user({"type": "video", "video": "film.mp4"})], "content[0].video: expected its frames"),
        (
            [{"role": "assistant", "tool_calls": {"function": {"name": "f"}}}],
            "messages[0].tool_calls: expected a list, got dict",
        ),
        (
            [{"role": "assistant", "tool_calls": ["f"]}],
            "messages[0].tool_calls[0]: expected a mapping, got str",
        ),
    ],
)
def test_a_wrong_message_is_named_by_place_and_field(messages: Any, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        read_messages(messages)


# Places.


class Words:
    """A tokenizer that knows some control tokens; nothing else of it is asked for."""

    def __init__(self, *tokens: str) -> None:
        self._tokens = tokens
        self.vocab_size = len(tokens)

    def is_special(self, token_id: int) -> bool:
        return True

    def id_to_token(self, token_id: int) -> str:
        return self._tokens[token_id]

    def token_to_id(self, token: str) -> int | None:
        return self._tokens.index(token) if token in self._tokens else None


Place = Callable[..., list[str | MultimodalInput]]
ONE, TWO = (make_image_input(np.full((4, 4, 3), value, np.uint8)) for value in (1, 2))
AUDIO = make_audio_input(np.zeros((1, 2, 3), np.float32))


def placed(name: str, messages: list[dict[str, object]], *tokens: str) -> list[str | MultimodalInput]:
    source = (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")
    template = ChatTemplate(source, {"bos_token": "<s>", "eos_token": "</s>"})
    return texts_of(template, messages, *tokens)


def texts_of(
    template: ChatTemplate, messages: list[dict[str, object]], *tokens: str
) -> list[str | MultimodalInput]:
    tokenizer: Any = Words(*tokens)
    control = ControlTokens.of(tokenizer, template.facts.literals)
    parts = render_conversation(template, read_messages(messages), tokenizer, control=control)
    return [part.text if isinstance(part, PromptText) else part for part in parts]


FAKE, GLOBAL = "<fake_token_around_image>", "<global-img>"
SOI, EOI = "\n\n<start_of_image>", "<end_of_image>\n\n"


@pytest.mark.parametrize(
    ("name", "tokens", "before", "between", "after"),
    [
        (
            "smolvlm",
            [FAKE, GLOBAL],
            FAKE + GLOBAL,
            FAKE + "and" + FAKE + GLOBAL,
            FAKE + "?<end_of_utterance>",
        ),
        ("llava-next", [], "[INST] ", "\n", "\nand? [/INST]"),  # images first, then the texts
        (
            "gemma3",
            ["<end_of_image>"],
            "\n\n<start_of_image>",
            "<end_of_image>\n\nand\n\n<start_of_image>",
            "<end_of_image>\n\n?",
        ),
        (
            "qwen2.5-vl",
            [],
            "<|vision_start|>",
            "<|vision_end|>and<|vision_start|>",
            "<|vision_end|>?<|im_end|>",
        ),
        (
            "lfm2.5-vl",
            ["<|image_start|>"],
            "<|image_start|>",
            "<|image_end|>and<|image_start|>",
            "<|image_end|>?",
        ),
        ("llama3.2-vision", [], "user<|end_header_id|>\n\n", "and", "?<|eot_id|>"),
        (
            "qwen2-vl",
            [],
            "<|vision_start|>",
            "<|vision_end|>and<|vision_start|>",
            "<|vision_end|>?<|im_end|>",
        ),
        ("phi4-mini", [], "<|user|>", "and", "?<|end|>"),  # texts only: placed where they are
        ("smollm2", [], "<|im_start|>user\n", "and", "?<|im_end|>"),
    ],
)
def test_images_stand_where_the_template_wants_them(
    name: str, tokens: list[str], before: str, between: str, after: str
) -> None:
    head, one, middle, two, tail = placed(name, [user(ONE, "and", TWO, "?")], *tokens)
    assert (one, middle, two) == (ONE, between, TWO)
    assert isinstance(head, str)
    assert isinstance(tail, str)
    assert head.endswith(before)
    assert tail.startswith(after)


def test_audio_and_images_keep_their_places_beside_each_other() -> None:
    source = (
        "{% for part in messages[0].content %}{% if part.type == 'text' %}{{ part.text }}"
        "{% else %}<|{{ part.type }}|>{% endif %}{% endfor %}"
    )
    parts = texts_of(ChatTemplate(source), [user(AUDIO, "a", ONE, "b", AUDIO, TWO)])
    assert parts == [AUDIO, "a", ONE, "b", AUDIO, TWO]


def test_a_template_that_knows_audio_by_openais_name_gets_it() -> None:
    parts = placed("voxtral", [user(AUDIO, "What is said?")], "[BEGIN_AUDIO]")
    assert parts == ["<s>[INST][BEGIN_AUDIO]", AUDIO, "What is said?[/INST]"]
    with pytest.raises(InputError, match="Only text, input_audio and audio_url chunks are supported"):
        placed("voxtral", [user(ONE, "What is this?")])


def test_a_template_that_puts_images_first_gets_them_first() -> None:
    parts = placed("llava-1.5", [user("Compare", ONE, "and", TWO)])
    assert parts == ["USER: ", ONE, "\n", TWO, "\nCompare and ASSISTANT:"]


def test_what_the_template_writes_around_an_image_is_not_written_twice() -> None:
    image = "<|image_start|><image><|image_end|>"
    source = f"{{% for part in messages[0].content %}}{{{{ part.text or '{image}' }}}}{{% endfor %}}"
    parts = texts_of(ChatTemplate(source), [user(ONE, "what?")], "<|image_start|>")
    assert parts == ["<|image_start|>", ONE, "<|image_end|>what?"]


@pytest.mark.parametrize(
    ("name", "tokens", "placeholder"),
    [
        ("smolvlm", [FAKE, GLOBAL, "<image>"], "<image>"),
        ("smolvlm", [FAKE, GLOBAL], "<image>"),  # where it is no token either
        ("qwen2.5-vl", ["<|image_pad|>"], "<|image_pad|>"),
        ("llama3.2-vision", [], "<|image|>"),
        ("gemma3", ["<end_of_image>"], "<start_of_image>"),
        ("phi4-mini", [], "<|image_1|>"),
    ],
)
def test_a_placeholder_in_a_text_is_not_taken_for_an_image(
    name: str, tokens: list[str], placeholder: str
) -> None:
    words = f"what does {placeholder} mean?"
    before, image, after = placed(name, [user(words, ONE, words)], *tokens)
    assert image == ONE
    assert words in str(before)
    assert str(after).count(placeholder) == 1
    (text,) = placed(name, [user(words)], *tokens)
    assert words in str(text)


def test_a_template_that_leaves_an_image_out_is_an_error() -> None:
    with pytest.raises(InputError, match="a place for each of 1 images"):
        texts_of(ChatTemplate("{{ messages[0].role }}"), [user(ONE)])


def test_texts_are_given_as_the_template_takes_them() -> None:
    parts = placed("smolvlm", [{"role": "user", "content": "Hello"}])  # knows only lists of parts
    assert parts == ["<|im_start|>User: Hello<end_of_utterance>\nAssistant:"]
    (text,) = placed("smollm2", [user("Hello ", {"type": "text", "text": "there"})])  # knows only texts
    assert "user\nHello there<|im_end|>" in str(text)


# Answers.


def ask(*parts: object) -> list[dict[str, object]]:
    return [user(*parts, COUNT)]


def test_a_chat_with_an_image_is_answered(runner: MultimodalRunner) -> None:
    result = runner.chat([user({"type": "image", "image": render(make_scene(seed=7))}, COUNT)])
    assert result.text == count(7)
    assert result.finish_reason == "stop"
    assert result.stats == runner.stats


def test_a_stream_gives_the_pieces_of_the_answer(runner: MultimodalRunner) -> None:
    messages = [user(render(make_scene(7)), "describe the picture")]
    whole = runner.chat(messages, GREEDY).text
    pieces = list(runner.stream_chat(messages, GREEDY))
    assert len(pieces) > 3
    assert "".join(pieces) == whole


def test_options_change_the_answer(runner: MultimodalRunner) -> None:
    messages = [user(render(make_scene(7)), "describe the picture")]
    assert len(runner.chat(messages, GREEDY, max_new_tokens=2).token_ids) == 2


def test_only_what_is_new_is_read(runner: MultimodalRunner) -> None:
    messages = ask(render(make_scene(7)))
    first = runner.chat(messages, GREEDY)
    prompt = first.stats.num_prompt_tokens
    assert (first.stats.num_cached_tokens, runner.position) == (0, prompt + len(first.token_ids) - 1)
    again = runner.chat(messages, GREEDY).stats
    # Its last token was read, for the logits.
    assert (again.num_prompt_tokens, again.num_cached_tokens) == (prompt, prompt - 1)
    rate = 1 / (again.encode_seconds + again.prefill_seconds)
    assert again.prefill_tokens_per_second == pytest.approx(rate)
    assert f"prompt: {prompt} tokens ({prompt - 1} cached), " in str(again)

    messages += [{"role": "assistant", "content": first.text}, user("what colour is the largest shape?")]
    second = runner.chat(messages, GREEDY)
    runner.reset()
    fresh = runner.chat(messages, GREEDY)
    assert second.text == fresh.text
    assert second.stats.num_prompt_tokens == fresh.stats.num_prompt_tokens
    assert second.stats.num_cached_tokens > prompt - 3
    assert fresh.stats.num_cached_tokens == 0
    assert "cached" not in str(fresh.stats)


def test_what_goes_on_behind_a_conversation_is_a_prompt_of_its_own(runner: MultimodalRunner) -> None:
    runner.chat(ask(render(make_scene(7))), GREEDY)
    runner.prefill("red")
    stats = runner.stats
    # The token that ended the answer is read first.
    assert stats.num_prompt_tokens == len(runner.tokenizer.encode("red")) + 1
    assert stats.num_cached_tokens == 0


def test_a_prompt_that_was_not_read_counts_nothing(runner: MultimodalRunner) -> None:
    messages = ask(render(make_scene(7)))
    runner.chat(messages, GREEDY)
    messages[0]["content"].append({"type": "text", "text": " and why? " * 10})
    timed_out = runner.chat(messages, GREEDY, timeout=1e-6).stats
    assert timed_out.finish_reason == "timeout"
    assert (timed_out.num_prompt_tokens, timed_out.num_cached_tokens) == (0, 0)


def test_answers_to_one_prompt_have_the_same_counts_of_it(runner: MultimodalRunner) -> None:
    messages = ask(render(make_scene(7)))
    runner.chat(messages, GREEDY)
    result = runner.chat(messages, max_new_tokens=3, temperature=1.0, num_return_sequences=2)
    for answer in (result, *result.alternatives):
        assert answer.stats.num_cached_tokens == answer.stats.num_prompt_tokens - 1


def test_another_image_is_read_and_the_same_one_is_not(runner: MultimodalRunner) -> None:
    assert runner.chat(ask(render(make_scene(7))), GREEDY).text == count(7)
    other = next(seed for seed in range(8, 50) if count(seed) != count(7))
    answer = runner.chat(ask(render(make_scene(other))), GREEDY)
    assert answer.text == count(other)
    assert answer.stats.encode_image_ns > 0
    again = runner.chat(ask({"type": "image", "base64": base64.b64encode(png(other))}), GREEDY)
    assert again.text == count(other)
    assert again.stats.encode_image_ns == 0


def test_what_else_ran_on_the_runner_does_not_matter(runner: MultimodalRunner) -> None:
    other = next(seed for seed in range(8, 50) if count(seed) != count(7))
    messages = ask(render(make_scene(7)))
    assert runner.chat(messages, GREEDY).text == count(7)
    snapshot = runner.save()
    runner.reset()
    # The same tokens and as many positions, with another image among them.
    runner.generate_text(
        ["<|user|>", render(make_scene(other)), f"{COUNT['text']}<|end|><|assistant|>"], GREEDY
    )
    assert runner.chat(messages, GREEDY).text == count(7)
    runner.chat(ask(render(make_scene(other))), GREEDY)
    runner.restore(snapshot)
    assert runner.chat(ask(render(make_scene(other))), GREEDY).text == count(other)
    runner.generate_text("and now something else", GREEDY)
    assert runner.chat(messages, GREEDY).text == count(7)


@pytest.mark.parametrize("behind", ["", "red"])
def test_an_image_that_was_cut_by_rewind_is_read_again(runner: MultimodalRunner, behind: str) -> None:
    messages = ask(render(make_scene(7)), render(make_scene(8)))
    fresh = runner.chat(messages, GREEDY)
    positions = runner.chat(messages, GREEDY, max_new_tokens=1).stats.num_prompt_tokens
    first_image = len(runner.tokenizer.encode("<|user|>"))
    for position in range(1, first_image + 33):
        runner.rewind(position)
        if behind:
            runner.prefill(behind)
        again = runner.chat(messages, GREEDY, max_new_tokens=1)
        is_cut = first_image < position < first_image + 32
        assert again.token_ids == fresh.token_ids[:1]
        assert again.stats.num_prompt_tokens == positions
        assert runner.position == positions
        assert again.stats.num_cached_tokens == (first_image if is_cut else position)


def test_images_beside_each_other_are_told_apart(runner: MultimodalRunner) -> None:
    one, two = render(make_scene(7)), render(make_scene(8))
    both = runner.chat(ask(one, two), GREEDY)
    swapped = runner.chat(ask(two, one), GREEDY)
    read = swapped.stats.num_prompt_tokens - swapped.stats.num_cached_tokens
    assert read > 2 * 16  # both
    runner.reset()
    assert runner.chat(ask(two, one), GREEDY).text == swapped.text
    runner.reset()
    assert runner.chat(ask(one, two), GREEDY).text == both.text


def test_the_beginning_of_text_is_written_once(runner: MultimodalRunner) -> None:
    bos = runner.tokenizer.bos_id
    config = GenerationConfig(max_new_tokens=1, num_bos=1)
    runner.chat([user("hello")], config)
    assert runner.history.count(bos) == 1
    source = "{{ bos_token }}{% for m in messages %}<|user|>{{ m.content }}<|end|><|assistant|>{% endfor %}"
    runner.chat([{"role": "user", "content": "hello"}], config, chat_options=ChatOptions(template=source))
    assert runner.history.count(bos) == 1
    runner.chat([user("hello")], config, num_bos=0)
    assert runner.history.count(bos) == 0


def test_a_processor_s_models_begin_as_their_tokenizer_says(demo_folder: Path, tmp_path: Path) -> None:
    for name in ("model.pte", "tokenizer.json", "chat_template.jinja", "preprocessor_config.json"):
        (tmp_path / name).symlink_to(demo_folder / name)
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "<|bos|>", "add_bos_token": true}')
    with MultimodalRunner.from_pretrained(tmp_path, num_threads=1) as runner:
        for num_bos in (0, 1):
            runner.chat(ask(render(make_scene(7))), max_new_tokens=1, num_bos=num_bos)
            assert runner.history[0] == runner.tokenizer.bos_id
            assert runner.history.count(runner.history[0]) == 1


class OneWay:
    """A session that cannot go back, as those of models with a recurrent state."""

    def __init__(self, history: list[int], pending_tokens: list[int]) -> None:
        self.history = history
        self.pending_tokens = pending_tokens

    @property
    def position(self) -> int:
        return len(self.history)

    def rewind(self, position: int) -> None:
        raise InputError(f"rewind: expected 0 or {self.position}, got {position}")

    def reset(self) -> None:
        self.history = []


def tokens_to_read(session: Any, ids: list[int]) -> list[list[int]]:
    parts = PrefixCache().to_read(ChatPrompt((make_token_input(ids),)), session)
    return [np.asarray(part.value).tolist() for part in parts]


def test_a_model_that_cannot_go_back_starts_again_only_where_it_has_to() -> None:
    session = OneWay([1, 2, 3], pending_tokens=[])
    assert tokens_to_read(session, [1, 2, 3, 4, 5]) == [[4, 5]]
    assert session.history == [1, 2, 3]
    assert tokens_to_read(session, [1, 2, 9]) == [[1, 2, 9]]
    assert session.history == []


def test_what_the_model_has_said_and_not_read_is_read_once() -> None:
    session = OneWay([1, 2, 3], pending_tokens=[4, 5])
    assert tokens_to_read(session, [1, 2, 3, 4, 5, 6]) == [[6]]
    assert tokens_to_read(session, [1, 2, 3, 4, 6, 7]) == [[1, 2, 3, 4, 6, 7]]


@pytest.mark.parametrize("max_new_tokens", [2, 40])
def test_a_second_turn_reads_what_a_fresh_runner_does(runner: MultimodalRunner, max_new_tokens: int) -> None:
    answer = runner.chat(ask(render(make_scene(7))), GREEDY, max_new_tokens=max_new_tokens).text
    messages = [*ask(render(make_scene(7))), {"role": "assistant", "content": answer}, user(COUNT)]
    second = runner.chat(messages, GREEDY)
    history = runner.history
    runner.reset()
    assert runner.chat(messages, GREEDY).token_ids == second.token_ids
    assert runner.history == history


def test_a_chat_that_fails_leaves_the_runner_usable(runner: MultimodalRunner) -> None:
    messages = ask(render(make_scene(7)))
    with pytest.raises(CapacityError):
        runner.chat([user("red " * 1000)], GREEDY)
    with pytest.raises(InputError, match="audio"):
        runner.chat([user(AUDIO, "what?")], GREEDY, chat_options=ChatOptions(template=TEXT_ONLY))
    with contextlib.closing(runner.stream_chat(messages, GREEDY)) as pieces:
        next(pieces)
    assert runner.chat(messages, GREEDY).text == count(7)


TEXT_ONLY = "{% for m in messages %}<|user|>{{ m.content + '<|end|>' }}{% endfor %}<|assistant|>"


def test_a_stream_in_progress_keeps_others_out(runner: MultimodalRunner) -> None:
    pieces = runner.stream_chat([user(render(make_scene(7)), "describe the picture")], GREEDY)
    next(pieces)
    with pytest.raises(BusyError):
        runner.chat([user("hello")], GREEDY)
    pieces.close()


def test_a_model_without_a_template_says_so_and_takes_one(demo_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "model.pte").symlink_to(demo_folder / "model.pte")
    (tmp_path / "tokenizer.json").symlink_to(demo_folder / "tokenizer.json")
    with MultimodalRunner(tmp_path / "model.pte", num_threads=1) as bare:
        assert not bare.has_chat_template
        with pytest.raises(InputError, match=r"chat_options=ChatOptions\(template=\.\.\.\)"):
            bare.chat([user("hello")], GREEDY)
        template = (demo_folder / "chat_template.jinja").read_text(encoding="utf-8")
        assert bare.chat([user("hello")], GREEDY, chat_options=ChatOptions(template=template)).text


# Async.


def test_async_twins_give_the_same_answer(runner: MultimodalRunner) -> None:
    messages = [user(render(make_scene(7)), "describe the picture")]

    async def both() -> tuple[str, str]:
        whole = await runner.achat(messages, GREEDY)
        return whole.text, "".join([piece async for piece in runner.astream_chat(messages, GREEDY)])

    whole, streamed = asyncio.run(both())
    assert whole == streamed == runner.chat(messages, GREEDY).text


def test_a_cancelled_task_ends_the_request(runner: MultimodalRunner) -> None:
    messages = [user(render(make_scene(7)), "describe the picture")]

    async def cancel() -> None:
        task = asyncio.create_task(runner.achat(messages, GenerationConfig(ignore_eos=True)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert runner.chat(ask(render(make_scene(7))), GREEDY).text == count(7)


def test_leaving_an_async_stream_early_frees_the_runner(runner: MultimodalRunner) -> None:
    async def leave() -> None:
        pieces = runner.astream_chat([user(render(make_scene(7)), "describe the picture")], GREEDY)
        assert await anext(pieces)
        await pieces.aclose()

    asyncio.run(leave())
    assert runner.chat(ask(render(make_scene(7))), GREEDY).text == count(7)
