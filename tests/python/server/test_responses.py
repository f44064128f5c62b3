"""/v1/responses, by OpenAI's own client; calls of tools in it are in test_tools.py."""

from __future__ import annotations

from typing import Any

import pytest

from executorch_mm.demo import QA, Scene
from serving import ask, audio_part, image_part, said

openai = pytest.importorskip("openai")
pytest.importorskip("uvicorn", reason="the extra executorch_mm[server] is not installed")
pytest.importorskip("starlette", reason="the extra executorch_mm[server] is not installed")

from executorch_mm.server.stored import StoredResponse, StoredResponses  # noqa: E402


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


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_conversation_goes_on_from_a_response_that_is_kept(client: Any, is_streamed: bool) -> None:
    first = client.responses.create(
        model="demo", input="how many", instructions="be short", max_output_tokens=4
    )
    options: dict[str, Any] = {"model": "demo", "max_output_tokens": 4}
    messages = [
        {"role": "user", "content": "how many"},
        {"role": "assistant", "content": first.output_text},
        {"role": "user", "content": "and now"},
    ]

    more: Any = {"input": "and now", "previous_response_id": first.id, "metadata": {"a": "b"}, **options}
    if is_streamed:
        second = list(client.responses.create(**more, stream=True))[-1].response
    else:
        second = client.responses.create(**more)
    whole = client.responses.create(input=messages, **options)

    assert second.previous_response_id == first.id
    assert second.metadata == {"a": "b"}
    assert second.usage.input_tokens == whole.usage.input_tokens  # without the first one's instructions
    assert second.output_text == whole.output_text
    again = client.responses.retrieve(second.id)
    assert again.model_dump() == second.model_dump()
    third = client.responses.create(input="?", previous_response_id=second.id, **options)
    assert third.usage.input_tokens > second.usage.input_tokens


def test_a_response_can_be_let_go_or_not_kept(client: Any) -> None:
    options: dict[str, Any] = {"model": "demo", "input": "hi", "max_output_tokens": 1}
    kept = client.responses.create(**options)
    unkept = client.responses.create(**options, store=False)

    client.responses.delete(kept.id)

    for name in (kept.id, unkept.id):
        with pytest.raises(openai.NotFoundError, match="there is no response"):
            client.responses.retrieve(name)
        with pytest.raises(openai.BadRequestError, match="send the whole conversation") as caught:
            client.responses.create(**options, previous_response_id=name)
        assert caught.value.code == "previous_response_not_found"
    with pytest.raises(openai.NotFoundError):
        client.responses.delete(kept.id)


def test_images_of_earlier_turns_count_too(client: Any, questions: list[tuple[Scene, QA]]) -> None:
    url = image_part(questions[0][0])["image_url"]["url"]
    part = {"type": "input_image", "image_url": url}
    options: dict[str, Any] = {"model": "demo", "max_output_tokens": 1}
    first = client.responses.create(input=[{"role": "user", "content": [part]}], **options)

    with pytest.raises(openai.APIStatusError) as caught:
        client.responses.create(
            input=[{"role": "user", "content": [part] * 16}], previous_response_id=first.id, **options
        )

    assert (caught.value.status_code, caught.value.code) == (413, "too_many_media")


def test_what_is_kept_is_bounded_in_number_and_bytes() -> None:
    few = StoredResponses(2, 10**6)
    for name in "abc":
        few.put(name, StoredResponse({"id": name}, []))
        few.get("a")
    assert [few.get(name) is not None for name in "abc"] == [True, False, True]
    few.put("a", StoredResponse({"id": "a", "output": ["x" * 100]}, []))
    assert few.forget("a")
    assert few.forget("c")
    assert not few.forget("c")
    assert (len(few), few.num_bytes) == (0, 0)

    small = StoredResponses(100, 20_000)
    for index in range(100):
        small.put(str(index), StoredResponse({}, [{"content": "\u00e4" * 1000}]))
        assert small.num_bytes <= 20_000
    assert 2 <= len(small) <= 4
    small.put("large", StoredResponse({}, [{"content": "x" * 30_000}]))
    assert small.get("large") is None
    assert len(small) >= 2
    none = StoredResponses(0, 20_000)
    none.put("a", StoredResponse({}, []))
    assert len(none) == 0
