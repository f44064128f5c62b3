"""Tokenizers and conversations to compare ids of; tools/fixtures/chat/make_token_ids.py encodes them too."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE, Unigram

from chat_cases import CASES, SYSTEM, WEATHER, Case, assistant, text, user

TEMPLATES = Path(__file__).parents[2] / "data" / "chat" / "templates"
_MARK = re.compile(r"<\|[a-zA-Z_0-9]+\|>|</?[a-z_]+>|\[/?[A-Z_]+\]")
# Not special in published vocabularies, but found in texts all the same.
_PLAIN = re.compile(r"</?(think|tool_call|tool_response|response|tools)>|<\|(tool_call|tool|end_of_cite)\|>")
_ROLE_MARKS = [f"<|{role}|>" for role in ("user", "assistant", "system", "tool")]
_WORDS = (
    "the what is and weather like in Hello there you your user assistant system tool name type "
    "function string object describe parameters required town unit Zürich says turn never said answer "
    "file reads this That"
)
# So that ids show where a text is cut: what is before and behind a mark is joined to it.
_JOINED = [
    "<|",
    "|>",
    "><",
    ">\n",
    "\n<",
    "\n\n",
    " <",
    "> ",
    "im",
    "im_",
    "_end",
    "_start",
    "</",
    "end",
    "[/",
    "] ",
    " [",
    '">',
]
TAKE_PARTS = ("llava-1.5", "llava-next", "smolvlm")
TAKE_TEXTS = (
    "granite3.2-vision",
    "granite3.3",
    "llama3.2",
    "mistral-small",
    "phi4-mini",
    "qwen3",
    "qwen3-training",
    "smollm2",
)
KINDS = ("byte level", "llama", "gemma", "metaspace")


def marks_of(source: str) -> list[str]:
    """What looks like a control token in a template."""
    # Of the marks that a template puts together of pieces, one spelled otherwise is another mark.
    composed = _ROLE_MARKS if "'<|' + message['role']" in source else []
    return sorted(set(_MARK.findall(source)) - {"<s>", "</s>", *composed})


def make_tokenizer(kind: str, source: str) -> Tokenizer:
    """A small vocabulary with the marks of a template."""
    space = "Ġ" if kind == "byte level" else "▁"
    added = ["<unk>", "<s>", "</s>", *dict.fromkeys([*marks_of(source), *_ROLE_MARKS])]
    merges = _merges(space, byte_level=kind == "byte level")
    pieces = list(dict.fromkeys([*_alphabet(kind, space), *(left + right for left, right in merges)]))
    if kind == "metaspace":
        scores = [(piece, -1.0 - 1 / len(piece)) for piece in ["<unk>", *pieces]]
        tokenizer = Tokenizer(Unigram(scores, unk_id=0, byte_fallback=False))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    else:
        # Llama's and Gemma's control tokens are in the vocabulary, the others' behind it.
        listed = pieces if kind == "byte level" else [*added, *pieces]
        vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(["<unk>", *listed]))}
        tokenizer = Tokenizer(BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=kind != "byte level"))
    if kind == "byte level":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    elif kind == "llama":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    elif kind == "gemma":
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.add_tokens(
        [
            AddedToken(
                token,
                special=not _PLAIN.fullmatch(token),
                normalized=bool(_PLAIN.fullmatch(token)) and kind != "llama",
            )
            for token in added
        ]
    )
    return tokenizer


def _alphabet(kind: str, space: str) -> list[str]:
    if kind == "byte level":
        return sorted(pre_tokenizers.ByteLevel.alphabet())
    characters = [space, "\n", *map(chr, range(33, 127)), *"éü—🙂"]
    return characters if kind == "metaspace" else [*(f"<0x{byte:02X}>" for byte in range(256)), *characters]


def _merges(space: str, *, byte_level: bool) -> list[tuple[str, str]]:
    """Words from their first letters on, and what stands around marks."""
    words = [word for plain in _WORDS.split() for word in (plain, f"{space}{plain}")]
    words += [joined.replace(" ", space).replace("\n", "Ċ" if byte_level else "\n") for joined in _JOINED]
    if byte_level:
        words = [word.replace("ü", "Ã¼") for word in words]
    pairs = ((word[:end], word[end]) for word in words for end in range(1, len(word)))
    return list(dict.fromkeys(pairs))


def _is_plain(value: object) -> bool:
    if isinstance(value, dict):
        return value.get("type") not in ("image", "audio", "input_audio") and all(
            map(_is_plain, value.values())
        )
    return not isinstance(value, list) or all(map(_is_plain, value))


def cases_of(source: str) -> dict[str, Case]:
    """Conversations without images and audio: none that spells a mark, then some that do."""
    return {
        **{name: case for name, case in CASES.items() if _is_plain(case.messages)},
        **spelled_cases(marks_of(source)),
    }


def as_taken(name: str, case: Case) -> Case:
    """Contents in the form that a template takes; transformers does not change them."""
    if name in TAKE_PARTS:
        return case._replace(messages=[_with(message, [text(_joined(message))]) for message in case.messages])
    if name in TAKE_TEXTS:
        return case._replace(messages=[_with(message, _joined(message)) for message in case.messages])
    return case


def _with(message: dict[str, Any], content: object) -> dict[str, Any]:
    is_the_same = isinstance(message["content"], type(content))
    return message if is_the_same else {**message, "content": content}


def _joined(message: dict[str, Any]) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def spelled_cases(marks: list[str]) -> dict[str, Case]:
    """Conversations whose users, tools and documents spell marks of a template."""
    one, two = (marks * 2)[0], (marks * 2)[-1]
    words = f"What is {one}{two} and,{one}\n{two}the{one[:-1]} file?{two}"
    called = {"name": "get_weather", "arguments": {"town": words, f"{one}": 1}}
    result = {"role": "tool", "tool_call_id": "call_0001a", "name": "get_weather", "content": words}
    described: Any = {**WEATHER, "function": {**WEATHER["function"], "description": words}}
    options = {"date_string": "26 Jul 2024"}
    return {
        "spelled by a user": Case([SYSTEM, user(words), assistant("Hi."), user(f"{two} then\n{one}")]),
        "spelled alone": Case([user(one), assistant("That is a mark."), user(f" {two} ")]),
        "spelled in two parts": Case(
            [user([text(f"says {one[:3]}"), text(f"{one[3:]}{two[:-1]}"), text(two[-1])])]
        ),
        "spelled by a tool": Case(
            [
                user("Read it"),
                assistant("", tool_calls=[{"id": "call_0001a", "type": "function", "function": called}]),
                result,
            ],
            tools=[WEATHER],
        ),
        "spelled in a description": Case([user("Hello")], tools=[described]),
        "spelled in a document": Case(
            [user("What is this?")], documents=[{"doc_id": 1, "title": words, "text": one}], options=options
        ),
    }
