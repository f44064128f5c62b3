"""The conversations that the golden tests of chat templates render; make_golden.py renders them too."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

NOW = datetime(2026, 11, 23, 14, 5)  # for templates that print the date
SPECIAL_TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


class Case(NamedTuple):
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    documents: list[dict[str, Any]] | None = None
    add_generation_prompt: bool = True
    options: dict[str, Any] = {"date_string": "26 Jul 2024"}  # noqa: RUF012


def user(content: object) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: object, **more: object) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


IMAGE = {"type": "image"}
AUDIO = {"type": "audio"}
INPUT_AUDIO = {"type": "input_audio"}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Says what the weather is like — in a town's <own> words & units.",
        "parameters": {
            "type": "object",
            "properties": {
                "town": {"type": "string", "description": "Its name, such as Zürich"},
                "unit": {"type": "string", "enum": ["C", "F"]},
            },
            "required": ["town"],
        },
    },
}
CALL = {
    "id": "call_0001a",
    "type": "function",
    "function": {"name": "get_weather", "arguments": {"town": "Zürich", "unit": "C"}},
}
TOOL_TALK = [
    user("What is the weather like in Zürich?"),
    assistant("", tool_calls=[CALL]),
    {"role": "tool", "tool_call_id": "call_0001a", "name": "get_weather", "content": '{"celsius": 4}'},
]
SYSTEM = {"role": "system", "content": "Be brief."}
SYSTEM_PARTS = {"role": "system", "content": [text("Be brief.")]}

CASES = {
    "text": Case([user("Hello there")]),
    "text, no generation prompt": Case([user("Hello"), assistant("Hi.")], add_generation_prompt=False),
    "system": Case([SYSTEM, user("Hello")]),
    "turns": Case([user(" What is 2 + 2? "), assistant("4\n"), user('And "3 < 4"?\nReally? é 🙂')]),
    "parts": Case([user([text("Hello "), text("there")])]),
    "parts and system": Case(
        [SYSTEM_PARTS, user([text("Hello")]), assistant([text("Hi")]), user([text("?")])]
    ),
    "image": Case([user([IMAGE, text("What is this?")])]),
    "image behind the text": Case([user([text("What is this?"), IMAGE])]),
    "images in one turn": Case([user([text("Compare "), IMAGE, text(" with "), IMAGE, text(".")])]),
    "images in two turns": Case(
        [user([IMAGE, text("This?")]), assistant([text("A cat.")]), user([IMAGE, IMAGE, text("And these?")])]
    ),
    "images are counted": Case([user([IMAGE, IMAGE, text("?")])], options={"add_vision_id": True}),
    "audio": Case([user([AUDIO, text("What is said?")])]),
    "audio and turns": Case([user([AUDIO]), assistant([text("Rain.")]), user([text("Then?"), AUDIO])]),
    "audio by OpenAI's name": Case([user([INPUT_AUDIO, text("What is said?")])]),
    "tools": Case([SYSTEM, user("What is the weather like in Zürich?")], tools=[WEATHER]),
    "tool call and answer": Case(TOOL_TALK, tools=[WEATHER]),
    "tool call, answered": Case([*TOOL_TALK, assistant("4 degrees."), user("Thanks")], tools=[WEATHER]),
    "thinking": Case(
        [user("2 + 2?"), assistant("4", reasoning_content="Two and two."), user("3 + 3?")],
        options={"enable_thinking": False, "thinking": True, "date_string": "26 Jul 2024"},
    ),
    "documents": Case(
        [user("What is it about?")],
        documents=[{"doc_id": 1, "title": "Cats", "text": "They purr."}],
        options={"date_string": "26 Jul 2024"},
    ),
    "roles out of order": Case([assistant("Hi"), assistant("Hi")]),
}
