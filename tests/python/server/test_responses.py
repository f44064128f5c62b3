"""/v1/responses, by OpenAI's own client; calls of tools in it are in test_tools.py."""

from __future__ import annotations

from typing import Any

import pytest

from executorch_mm.demo import QA, Scene
from serving import ask, audio_part, image_part, said

openai = pytest.importorskip("openai")


def test_a_response_says_what_a_completion_says(client: Any, questions: list[tuple[Scene, QA]]) -> None:
    scene, _ = questions[0]
    image = image_part(scene)
    chat = client.chat.completions.create(model="demo", messages=said("describe this image:", image))
    text = chat.choices[0].message.content
    url = {"type": "input_image", "image_url": image["image_url"]["url"]}
    options: dict[str, Any] = {
        "model": "demo",
        "input": [{"role": "user", "content": [url, {"type": "input_text", "text": "describe this image:"}]}],
    }

    whole = client.responses.create(**options)
    events = list(client.responses.create(**options, stream=True))
    with client.responses.stream(**options) as stream:
        final = stream.get_final_response()

    assert whole.output_text == final.output_text == text
    assert whole.status == "completed"
    assert whole.usage.input_tokens == chat.usage.prompt_tokens
    assert whole.usage.output_tokens == chat.usage.completion_tokens
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == text
    assert [event.type for event in events if "delta" not in event.type] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].response.output_text == text


def test_options_of_a_response_are_those_of_a_chat(client: Any) -> None:
    heard = {
        "role": "user",
        "content": [audio_part(), {"type": "input_text", "text": "what numbers do you hear?"}],
    }

    cut = client.responses.create(model="demo", input=[heard], max_output_tokens=1)

    assert (cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert client.responses.create(model="demo", input=[heard]).output_text == "three one four"
    plain = client.responses.create(model="demo", input="hi")
    told = client.responses.create(model="demo", input="hi", instructions="be short")
    assert plain.usage.input_tokens < told.usage.input_tokens


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"input": [3]}, "input[0]"),
        ({"input": [{"type": "item_reference"}]}, "input[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input[0].content[0].type"),
        ({"previous_response_id": "a"}, "previous_response_id"),
        ({"background": True}, "background"),
        ({"tools": [{"type": "web_search"}]}, "tools[0]"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"messages": []}, "messages"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], param: str, server: Any) -> None:
    answer = ask(server.url, "/v1/responses", {"model": "demo", "input": "hi", **fields})

    assert (answer.status, answer.json["error"]["param"]) == (400, param)
