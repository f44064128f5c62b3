"""Many requests: answered as one after the other would be, while the next ones are made ready."""

from __future__ import annotations

import io
import itertools
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import speech_cases
from executorch_mm import (
    BatchRequest,
    CapacityError,
    ExecutorchMMError,
    GenerationConfig,
    InputError,
    MultimodalModel,
    MultimodalRunner,
    SpeechRunner,
    make_image_input,
)
from executorch_mm._engine.ahead import in_order
from executorch_mm.chat import ChatOptions
from executorch_mm.demo import make_scene, render

MODELS = Path(__file__).parents[2] / "models"
SCENES = [render(make_scene(seed=seed)) for seed in range(900_000_000, 900_000_006)]
QUESTION = "describe this picture"
SHORT: dict[str, Any] = {"max_new_tokens": 12}
LONG: dict[str, Any] = {"max_new_tokens": 180, "ignore_eos": True}


def prompt(image: object) -> list[Any]:
    return ["<|user|>", image, f"{QUESTION}<|end|><|assistant|>"]


def messages(image: object) -> list[dict[str, Any]]:
    return [
        {"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": QUESTION}]}
    ]


@pytest.fixture(scope="module")
def model() -> Iterator[MultimodalModel]:
    with MultimodalModel.demo(num_threads=1) as model:
        yield model


@pytest.fixture(scope="module")
def expected() -> list[str]:
    """The simple loop's answers."""
    texts = []
    with MultimodalRunner.demo(num_threads=1) as runner:
        for scene in SCENES:
            runner.reset()
            texts.append(runner.generate_text(prompt(scene), **SHORT))
    assert len({*texts}) == len(SCENES)
    return texts


@pytest.mark.parametrize("make", [prompt, messages], ids=["prompts", "messages"])
@pytest.mark.parametrize("prefetch", [0, 1, 5])
def test_answers_come_in_order_and_are_those_of_a_loop(
    runner: MultimodalRunner, expected: list[str], make: Callable[[object], Any], prefetch: int
) -> None:
    runner.prefill("something of before")

    results = runner.map(map(make, SCENES), prefetch=prefetch, **SHORT)

    assert [result.text for result in results] == expected


@pytest.mark.parametrize("num_sessions", [1, 3])
def test_sessions_share_the_requests_and_answer_in_order(
    model: MultimodalModel, expected: list[str], num_sessions: int
) -> None:
    results = model.map(map(prompt, SCENES), num_sessions=num_sessions, **SHORT)

    assert [result.text for result in results] == expected
    assert all("the session is closed" in repr(session) for session in model._loaded.sessions)


def test_a_request_may_have_options_of_its_own(runner: MultimodalRunner, expected: list[str]) -> None:
    requests = [
        BatchRequest(messages=messages(SCENES[0]), config=GenerationConfig(max_new_tokens=2)),
        BatchRequest(prompt=prompt(SCENES[1])),
        BatchRequest(messages="hi", chat_options=ChatOptions(template="{{ messages[0].content }} <|end|>")),
    ]

    own, usual, templated = runner.map(requests, GenerationConfig(max_new_tokens=40), **SHORT)

    assert (len(own.token_ids), usual.text) == (2, expected[1])
    assert templated.text == next(runner.map(["hi <|end|>"], **SHORT)).text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "expected one of prompt and messages"),
        ({"prompt": "a", "messages": "b"}, "expected one of prompt and messages"),
        ({"prompt": "a", "config": {}}, "config: expected a GenerationConfig"),
        ({"messages": "a", "chat_options": {}}, "chat_options: expected ChatOptions"),
        ({"prompt": "a", "tools": []}, "tools: expected messages"),
    ],
)
def test_a_request_that_says_too_much_or_too_little_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        BatchRequest(**options)


def test_errors_are_values_where_asked_for(runner: MultimodalRunner, expected: list[str]) -> None:
    damaged = BatchRequest(messages=messages("data:image/png;base64,AAAA"))
    requests = [prompt(SCENES[0]), damaged, 5, "many words " * 300, prompt(SCENES[1])]

    first, image, number, long, last = runner.map(requests, on_error="return", **SHORT)  # type: ignore[arg-type]

    assert isinstance(image, InputError)
    assert "messages[0].content[0]" in str(image)
    assert isinstance(number, InputError)
    assert isinstance(long, CapacityError)
    assert not isinstance(first, ExecutorchMMError)
    assert not isinstance(last, ExecutorchMMError)
    assert [first.text, last.text] == expected[:2]


def test_the_first_error_ends_it_otherwise_and_the_runner_goes_on(
    runner: MultimodalRunner, expected: list[str]
) -> None:
    results = runner.map([prompt(SCENES[0]), [5], prompt(SCENES[1])], **SHORT)  # type: ignore[list-item]

    assert next(results).text == expected[0]
    with pytest.raises(InputError, match="input 0: expected a str"):
        next(results)
    assert next(results, None) is None
    assert next(runner.map([prompt(SCENES[1])], **SHORT)).text == expected[1]


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_closed_runner_is_no_error_of_a_request(prefetch: int) -> None:
    runner = MultimodalRunner.demo(num_threads=1)
    results = runner.map(["hi"] * 5, on_error="return", prefetch=prefetch, **SHORT)
    next(results)
    runner.close()

    with pytest.raises(ExecutorchMMError, match="the runner is closed"):
        list(results)


@pytest.mark.parametrize("prefetch", [0, 2])
def test_what_requests_need_is_fetched_and_decoded_beside_the_model(
    runner: MultimodalRunner, expected: list[str], prefetch: int
) -> None:
    """All fetches of the first ones wait for each other: that ends only where they run at the same time."""
    meeting = threading.Barrier(prefetch + 1)
    begun = itertools.count()
    seen = []

    def fetch(url: str) -> bytes:
        if next(begun) <= prefetch:
            meeting.wait(30)
        seen.append(threading.current_thread())
        file = io.BytesIO()
        SCENES[int(url[-1])].save(file, "png")
        return file.getvalue()

    asked = [
        [
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": f"http://x/{index}"}},
                    {"type": "text", "text": QUESTION},
                ],
            }
        ]
        for index in range(len(SCENES))
    ]

    results = runner.map(asked, prefetch=prefetch, chat_options=ChatOptions(fetch=fetch), **SHORT)

    assert [result.text for result in results] == expected
    assert ({*seen} == {threading.main_thread()}) == (prefetch == 0)


@pytest.mark.parametrize(("prefetch", "num_sessions"), [(0, 1), (3, 1), (1, 2)])
def test_requests_are_asked_for_as_they_are_needed(
    model: MultimodalModel, prefetch: int, num_sessions: int
) -> None:
    asked = []

    def requests() -> Iterator[str]:
        for index in range(20):
            asked.append(threading.current_thread())
            yield f"question {index}"

    results = model.map(requests(), prefetch=prefetch, num_sessions=num_sessions, max_new_tokens=1)
    assert asked == []
    for done in range(1, 5):
        next(results)
        assert len(asked) == done + prefetch + num_sessions - 1
    results.close()
    assert {*asked} == {threading.current_thread()}


def test_what_the_iterator_raises_comes_after_the_results_before_it(runner: MultimodalRunner) -> None:
    def requests() -> Iterator[str]:
        yield "a"
        yield "b"
        raise KeyError("the disk")

    results = runner.map(requests(), prefetch=4, max_new_tokens=1)

    assert len([next(results), next(results)]) == 2
    with pytest.raises(KeyError, match="the disk"):
        next(results)


def test_an_iterator_that_is_left_early_is_the_callers(runner: MultimodalRunner) -> None:
    requests = iter(["a", "b", "c", "d", "e"])
    generator = (request for request in requests)
    results = runner.map(generator, prefetch=1, max_new_tokens=1)
    next(results)
    results.close()

    assert list(generator) == ["c", "d", "e"]


def test_stop_ends_one_answer(runner: MultimodalRunner) -> None:
    def stop(_ids: object, logits: Any) -> None:
        if len(reasons) == 1:
            runner.stop()

    reasons: list[str | None] = []
    config = GenerationConfig(max_new_tokens=5, ignore_eos=True, logits_processors=(stop,))
    results = runner.map(["a", "b", "c"], config, prefetch=0)
    reasons.extend(result.finish_reason for result in results)

    assert reasons == ["length", "cancelled", "length"]


def test_leaving_early_stops_the_sessions_answers(model: MultimodalModel) -> None:
    begun, calls = threading.Event(), 0

    def count(_ids: object, logits: Any) -> None:
        nonlocal calls
        calls += 1
        begun.set()

    config = GenerationConfig(**LONG, logits_processors=(count,))
    requests = [BatchRequest(prompt="a", config=GenerationConfig(max_new_tokens=1))]
    requests += [BatchRequest(prompt="b", config=config)] * 50
    before = threading.active_count()
    results = model.map(requests, num_sessions=2, prefetch=4)
    next(results)
    assert begun.wait(30)
    results.close()

    assert calls < 6 * LONG["max_new_tokens"]
    assert all("the session is closed" in repr(session) for session in model._loaded.sessions)
    assert threading.active_count() <= before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prefetch": -1}, "prefetch: expected 0 to 1024, got -1"),
        ({"prefetch": True}, "prefetch: expected 0 to 1024, got True"),
        ({"on_error": "ignore"}, "on_error: expected 'raise' or 'return', got 'ignore'"),
        ({"num_sessions": 0}, "num_sessions: expected 1 to 256, got 0"),
        ({"requests": "hi"}, "requests: expected an iterable of requests, got 'hi'"),
        ({"requests": 5}, "requests: expected an iterable of requests, got 5"),
        ({"temprature": 1}, "did you mean temperature"),
    ],
)
def test_wrong_options_are_refused_at_once(
    model: MultimodalModel, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        model.map(**({"requests": ["hi"]} | options))


ARRAY = np.asarray(SCENES[3])
FORMS: dict[str, Any] = {
    "PIL": SCENES[3],
    "HWC": make_image_input(ARRAY),
    "CHW": make_image_input(np.ascontiguousarray(ARRAY.transpose(2, 0, 1)), layout="CHW"),
    "larger": make_image_input(np.kron(ARRAY, np.ones((3, 2, 1), np.uint8))),
    "grey": SCENES[3].convert("L"),
    "prepared": make_image_input(np.zeros((3, 64, 64), np.float32)),
}


@pytest.mark.parametrize(
    ("folder", "form"),
    [
        *(("demo", form) for form in FORMS),
        *(("gemma4", form) for form in FORMS if form != "prepared"),  # whose encoder takes patches
    ],
)
def test_an_image_made_ready_ahead_is_the_image_that_is_read(folder: str, form: str) -> None:
    """The logits tell."""
    image = FORMS[form]

    def ends(runner: MultimodalRunner) -> list[Any]:
        config = GenerationConfig(max_new_tokens=2, ignore_eos=True, logprobs=3)
        ready = next(runner.map([[image, "a"]], config))
        runner.reset()
        return [ready.top_logprobs, runner.generate_result([image, "a"], config).top_logprobs]

    load = {
        "demo": lambda: MultimodalRunner.demo(num_threads=1),
        "gemma4": lambda: MultimodalRunner(MODELS / "gemma4" / "model.pte", num_threads=1),
    }[folder]
    with load() as runner:
        ready, read = ends(runner)
    assert ready == read


def test_the_clips_of_a_batch_are_written_down_as_alone() -> None:
    names = [*speech_cases.EXPECTED["kv"]["clips"]][:2]
    clips = [speech_cases.clip(name) for name in names]
    with SpeechRunner(speech_cases.FOLDER / "kv.pte", num_threads=1) as runner:
        alone = [runner.transcribe(clip, sampling_rate=speech_cases.RATE).text for clip in clips]
        results = [*runner.map(iter(clips), sampling_rate=speech_cases.RATE)]
        first, none, last = runner.map(
            [clips[0], "no.wav", clips[-1]], sampling_rate=speech_cases.RATE, on_error="return"
        )
        with pytest.raises(InputError, match="clips: expected an iterable of clips"):
            runner.map("speech.wav")

    assert [result.text for result in results] == alone
    assert any(alone)
    assert isinstance(none, InputError)
    assert not isinstance(first, ExecutorchMMError)
    assert not isinstance(last, ExecutorchMMError)
    assert [first.text, last.text] == [alone[0], alone[-1]]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(-5, 5), max_size=30),
    st.integers(0, 8),
    st.integers(0, 31),
    st.booleans(),
)
def test_work_that_is_begun_ahead_comes_to_what_it_comes_to_in_a_loop(
    numbers: list[int], ahead: int, num_read: int, breaks: bool
) -> None:
    def source() -> Iterator[int]:
        yield from numbers
        if breaks:
            raise OSError("source")

    def told(results: Generator[Callable[[], float], None, None]) -> list[object]:
        seen: list[object] = []
        try:
            for _ in range(num_read):
                take = next(results)
                try:
                    seen.append(take())
                except ZeroDivisionError:
                    seen.append("zero")
        except StopIteration:
            seen.append("end")
        except OSError:
            seen.append("source")
        results.close()
        return seen

    def loop() -> Generator[Callable[[], float], None, None]:
        for number in source():
            yield lambda: 1 / number  # noqa: B023

    assert told(in_order(source(), lambda number: 1 / number, ahead)) == told(loop())
