"""Batches as they are run: every row has one result, whatever becomes of the processes."""

from __future__ import annotations

import base64
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

import executorch_mm
from executorch_mm import ExecutionError, InputError, ModelLoadError, MultimodalRunner
from executorch_mm.batch import BatchOptions, BatchProgress, pool, run, run_batch, ways
from executorch_mm.demo import make_scene, render

MODEL = Path(executorch_mm.__file__).parent / "models" / "tiny_vlm" / "model.pte"
SCENES = [render(make_scene(seed=seed)) for seed in range(900_000_000, 900_000_008)]
QUESTION = "describe this picture"
ONE: dict[str, Any] = {"workers": 1, "num_threads": 1}
IS_LINUX = sys.platform == "linux"


def write_rows(path: Path, rows: Iterable[dict[str, Any] | str]) -> Path:
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def results_in(path: Path) -> list[dict[str, Any]]:
    text = path.read_text()
    assert text.endswith("\n") or not text
    return [json.loads(line) for line in text.splitlines()]


def id_of(result: dict[str, Any]) -> Any:
    return result.get("custom_id", result["id"])


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    for index, scene in enumerate(SCENES):
        scene.save(folder / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def expected() -> list[str]:
    """What the model says of each image, asked alone."""
    with MultimodalRunner.demo(num_threads=1) as runner:
        return [
            runner.chat([{"role": "user", "content": [scene, QUESTION]}], max_new_tokens=40).text
            for scene in SCENES
        ]


def short(index: int) -> dict[str, Any]:
    return {"id": f"r{index}", "image": f"{index % len(SCENES)}.png", "prompt": QUESTION}


def openai(index: int, **line: Any) -> dict[str, Any]:
    file = io.BytesIO()
    SCENES[index].save(file, "png")
    uri = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    content = [{"type": "image_url", "image_url": {"url": uri}}, {"type": "text", "text": QUESTION}]
    body = {"model": "m", "messages": [{"role": "user", "content": content}], "max_tokens": 40}
    return {"custom_id": f"o{index}", "method": "POST", "url": "/v1/chat/completions", "body": body, **line}


def test_every_row_has_a_result_in_order(tmp_path: Path, media: Path, expected: list[str]) -> None:
    rows = [
        short(0),
        openai(1),
        {"id": 7, "messages": [{"role": "user", "content": "how"}], "max_tokens": 2, "ignore_eos": True},
        {"image": "2.png", "prompt": QUESTION},
        "{broken",
        "",
        {"id": "outside", "image": "../x.png", "prompt": QUESTION},
        {"id": "none", "image": "none.png", "prompt": QUESTION},
        {"id": "wrong", "image": "0.png", "prompt": QUESTION, "temperature": -1},
        {"id": "unknown", "image": "0.png", "prompt": QUESTION, "temprature": 1},
        {"id": "long", "prompt": "many words " * 400},
        openai(3, url="/v1/embeddings"),
        {"id": "r0", "prompt": "again"},
        {"id": [1], "prompt": "a"},
        {"id": "two", "image": ["0.png", "1.png"], "prompt": "Which picture has more shapes?"},
    ]
    told: list[BatchProgress] = []

    end = run_batch(
        write_rows(tmp_path / "in.jsonl", rows),
        tmp_path / "out.jsonl",
        MODEL,
        options=BatchOptions(media_folder=media, **ONE),
        on_progress=told.append,
    )

    results = results_in(tmp_path / "out.jsonl")
    ids = ["r0", "o1", 7, "line 4", "line 5", "outside", "none", "wrong", "unknown", "long", "o3", "line 14"]
    assert [id_of(result) for result in results] == [*ids, "two"]
    by_id = {id_of(result): result for result in results}
    assert (by_id["r0"]["text"], by_id["line 4"]["text"]) == (expected[0], expected[2])
    assert by_id["r0"]["usage"]["completion_tokens"] > 3
    response = by_id["o1"]["response"]
    assert response["status_code"] == 200
    assert response["body"]["object"] == "chat.completion"
    assert response["body"]["choices"][0]["message"]["content"] == expected[1]
    assert by_id["o1"]["error"] is None
    assert by_id[7]["usage"]["completion_tokens"] == 2
    errors = {
        "line 5": ("InputError", "line 5: expected JSON"),
        "outside": ("InputError", "expected a file in"),
        "none": ("InputError", "No such file"),
        "wrong": ("InputError", "temperature: expected 0 or more"),
        "unknown": ("InputError", "temprature: there is no such field"),
        "long": ("CapacityError", "positions"),
        "o3": ("InputError", "url: expected /v1/chat/completions"),
        "line 14": ("InputError", "id: expected a text or an integer"),
    }
    for row, (kind, message) in errors.items():
        assert by_id[row]["error"]["type"] == kind
        assert message in by_id[row]["error"]["message"]
    assert by_id["o3"]["response"]["status_code"] == 400
    assert by_id["o3"]["response"]["body"]["error"]["param"] == "url"
    assert told[-1] == end
    assert (end.num_done, end.total, end.num_errors, end.num_repeated) == (13, 14, len(errors), 1)


def test_a_second_run_does_what_is_left_and_retries_what_it_is_told_to(
    tmp_path: Path, media: Path, expected: list[str]
) -> None:
    late = media / "late.png"
    late.unlink(missing_ok=True)
    rows = [short(0), {"id": "late", "image": "late.png", "prompt": QUESTION}, short(1), short(2)]
    source, target = write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    options = BatchOptions(media_folder=media, max_errors=1, **ONE)
    first = run_batch(source, target, MODEL, options=options)
    lines = target.read_bytes().splitlines(keepends=True)
    target.write_bytes(b"".join(lines[:3]) + lines[3][:-5])  # as a kill leaves it

    second = run_batch(source, target, MODEL, options=options)

    assert (first.num_errors, second.num_errors) == (1, 0)
    assert (second.num_before, second.num_done) == (3, 4)
    assert [result["id"] for result in results_in(target)] == ["r0", "late", "r1", "r2"]
    assert results_in(target)[3]["text"] == expected[2]
    SCENES[3].save(late)
    third = run_batch(source, target, MODEL, options=BatchOptions(media_folder=media, retry_errors=True))
    assert (third.num_before, third.num_errors) == (3, 0)
    assert [result["id"] for result in results_in(target)] == ["r0", "r1", "r2", "late"]
    assert results_in(target)[3]["text"] == expected[3]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]
    assert run_batch(source, target, tmp_path / "none.pte").num_done == 4  # no model is needed


def test_a_row_that_names_a_file_needs_a_folder(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", [short(0), openai(1)])

    end = run_batch(source, tmp_path / "out.jsonl", MODEL, options=BatchOptions(**ONE))

    refused, answered = results_in(tmp_path / "out.jsonl")
    assert end.num_errors == 1
    assert "--media-folder says which files" in refused["error"]["message"]
    assert answered["error"] is None


def test_more_errors_than_may_be_end_the_run_and_what_was_done_is_there(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", [{"id": index, "prompt": 5} for index in range(200)])

    with pytest.raises(ExecutionError, match=r"max_errors: more than 3 rows have failed, .* prompt"):
        run_batch(source, tmp_path / "out.jsonl", MODEL, options=BatchOptions(max_errors=3, **ONE))

    assert [result["id"] for result in results_in(tmp_path / "out.jsonl")] == [0, 1, 2, 3]


def test_a_model_that_cannot_be_loaded_is_the_error_of_its_loading(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", [short(0)])
    (tmp_path / "model.pte").write_bytes(b"no program")

    with pytest.raises(ModelLoadError, match=r"model\.pte"):
        run_batch(source, tmp_path / "out.jsonl", tmp_path / "model.pte", MODEL.parent)

    assert (tmp_path / "out.jsonl").read_bytes() == b""


def test_the_faster_way_is_found_out_and_said(
    tmp_path: Path, media: Path, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_TRIAL_SECONDS", 0.05)
    monkeypatch.setattr(run, "_TRIAL_ROWS", 2)
    monkeypatch.setattr(ways, "num_cores", lambda: 2)
    monkeypatch.setattr(run, "num_cores", lambda: 2)
    source = write_rows(tmp_path / "in.jsonl", map(short, range(90)))

    end = run_batch(source, tmp_path / "out.jsonl", MODEL, options=BatchOptions(media_folder=media))

    assert re.fullmatch(
        r"(2 processes with 1 thread each|1 process with 2 threads) \(\S+ rows/s; "
        r"(1 process with 2 threads|2 processes with 1 thread each): \S+\)",
        end.processes,
    )
    results = results_in(tmp_path / "out.jsonl")
    assert [result["id"] for result in results] == [f"r{index}" for index in range(90)]
    assert [result["text"] for result in results] == [expected[index % len(SCENES)] for index in range(90)]


@pytest.mark.parametrize(
    ("options", "cores", "rows", "found"),
    [
        ({"workers": 3}, 2, 1000, [(3, 1)]),
        ({"workers": 3, "num_threads": 2}, 2, 1000, [(3, 2)]),
        ({"workers": 1}, 2, 1000, [(1, None)]),
        ({"num_threads": 2}, 4, 1000, [(1, 2)]),
        ({}, 1, 1000, [(1, None)]),
        ({}, 4, 3, [(1, None)]),
        ({}, 4, 100, [(4, 1)]),
        ({}, 4, 1000, [(1, 4), (4, 1)]),
        ({}, 4, None, [(1, 4), (4, 1)]),
    ],
)
def test_the_ways_that_are_tried(
    options: dict[str, Any],
    cores: int,
    rows: int | None,
    found: list[tuple[int, int | None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ways, "num_cores", lambda: cores)
    files = run.find_model(MODEL)

    assert ways.ways(BatchOptions(**options), files, rows) == found
    monkeypatch.setattr(os, "sysconf", lambda _name: 1000)  # a megabyte of memory
    assert ways.ways(BatchOptions(), files, 10**6) == [(1, None)]


@pytest.fixture
def dying(monkeypatch: pytest.MonkeyPatch) -> None:
    start = pool.start_python
    monkeypatch.setattr(pool, "start_python", lambda _module, *rest: start("batch_dying_worker", *rest))


@pytest.mark.usefixtures("dying")
@pytest.mark.parametrize(
    ("keep_order", "guilty"),
    [(True, {0: signal.SIGSEGV, 20: -3, 21: signal.SIGKILL}), (False, {30: signal.SIGABRT})],
)
def test_a_row_that_ends_its_process_is_an_error_of_that_row_alone(
    tmp_path: Path, keep_order: bool, guilty: dict[int, int]
) -> None:
    rows: list[dict[str, Any]] = [{"id": index, "text": f"row {index}"} for index in range(60)]
    for index, how in guilty.items():
        rows[index]["dies"] = int(how)
    source = write_rows(tmp_path / "in.jsonl", rows)

    end = run_batch(
        source, tmp_path / "out.jsonl", MODEL, options=BatchOptions(workers=2, keep_order=keep_order)
    )

    results = results_in(tmp_path / "out.jsonl")
    ids = [result["id"] for result in results]
    assert (ids if keep_order else sorted(ids)) == list(range(60))
    failed = {result["id"]: result["error"] for result in results if "error" in result}
    assert {*failed} == {*guilty}
    assert all(error["type"] == "ExecutionError" for error in failed.values())
    said = {index: error["message"].rpartition("with ")[2] for index, error in failed.items()}
    assert said == {
        index: f"signal {int(how)}" if how > 0 else f"exit code {-how}" for index, how in guilty.items()
    }
    assert all(result["text"] == f"row {result['id']}" for result in results if "text" in result)
    assert end.num_errors == len(guilty)


@pytest.mark.usefixtures("dying")
def test_a_long_batch_takes_no_more_memory_than_a_window_of_it(tmp_path: Path) -> None:
    """The first row holds the others up; what is read ahead meanwhile is bounded."""
    taken: list[int] = []
    source = write_rows(tmp_path / "in.jsonl", ({"id": index, "text": "x" * 100_000} for index in range(200)))
    feed_take = pool.Feed.take

    def take(feed: pool.Feed, *, waits: bool) -> Any:
        row = feed_take(feed, waits=waits)
        if row is not None:
            taken.append(row.number - feed._num_done)
        return row

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool.Feed, "take", take)
        run_batch(source, tmp_path / "out.jsonl", MODEL, options=BatchOptions(workers=2))

    assert [len(result["text"]) for result in results_in(tmp_path / "out.jsonl")] == [100_000] * 200
    assert len(taken) == 200
    assert max(taken) <= 2 * run._ROWS_A_PROCESS + 1


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "executorch_mm", "batch", *map(str, arguments)]


@pytest.mark.skipif(not IS_LINUX, reason="only Linux tells who a process's children are")
@pytest.mark.parametrize("seed", range(int(os.environ.get("BATCH_KILLS", "2"))))
def test_a_kill_at_any_moment_leaves_whole_lines_and_no_processes(
    tmp_path: Path, media: Path, expected: list[str], seed: int
) -> None:
    count = 24
    source, target = write_rows(tmp_path / "in.jsonl", map(short, range(count))), tmp_path / "out.jsonl"
    asked = command(source, "-o", target, "-m", MODEL, "--media-folder", media, "--workers", 2, "--quiet")
    moment = random.Random(seed).uniform(0.1, 2.0)
    with subprocess.Popen(asked) as process:
        time.sleep(moment)
        task = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        children = task.read_text().split() if task.exists() else []
        process.kill()
    for _ in range(100):
        if not any(_runs(child) for child in children):
            break
        time.sleep(0.1)
    else:
        pytest.fail("a process has outlived its batch")

    done = subprocess.run(asked, check=False, timeout=60)

    assert done.returncode == 0
    results = results_in(target)
    assert [result["id"] for result in results] == [f"r{index}" for index in range(count)]
    assert [result["text"] for result in results] == [expected[i % len(SCENES)] for i in range(count)]


def _runs(child: str) -> bool:
    try:
        return Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_ctrl_c_ends_it_and_its_processes(tmp_path: Path, media: Path) -> None:
    source, target = write_rows(tmp_path / "in.jsonl", map(short, range(2000))), tmp_path / "out.jsonl"
    asked = command(source, "-o", target, "-m", MODEL, "--media-folder", media, "--workers", 2)
    with subprocess.Popen(asked, stderr=subprocess.PIPE, text=True) as process:
        while not (target.exists() and target.stat().st_size):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()

    assert process.returncode == 130
    assert said.splitlines() == ["2 processes with 1 thread each", "executorch-mm: interrupted"]
    assert 0 < len(results_in(target)) < 2000


def test_ctrl_c_that_comes_in_a_destructor_ends_it_too(
    tmp_path: Path, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There Python can only report what is raised."""
    lost: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda told: lost.append(told.exc_type))

    class Pressed:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    def look(progress: BatchProgress) -> None:
        if not lost:
            Pressed()

    source, target = write_rows(tmp_path / "in.jsonl", map(short, range(200))), tmp_path / "out.jsonl"
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run_batch(
            source, target, MODEL, options=BatchOptions(media_folder=media, workers=1), on_progress=look
        )

    assert lost == [KeyboardInterrupt]
    assert len(results_in(target)) < 200
    assert signal.getsignal(signal.SIGINT) is before


def test_rows_may_come_on_standard_input_and_results_go_to_standard_output(
    media: Path, expected: list[str]
) -> None:
    rows = "".join(json.dumps({**short(index), "prompt": None}) + "\n" for index in range(3))
    asked = command("-", "-o", "-", "-m", MODEL, "--media-folder", media, "--prompt", QUESTION)

    done = subprocess.run([*asked, "--workers", "1"], input=rows, check=False, capture_output=True, text=True)

    assert (done.returncode, [json.loads(line)["text"] for line in done.stdout.splitlines()]) == (
        0,
        expected[:3],
    )
    assert re.fullmatch(r"1 process\n3 rows done, 0 errors, \S+ rows/s\n", done.stderr)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"endpoint": "images"}, "endpoint: expected chat, embeddings, transcriptions or None"),
        ({"media_folder": "/none"}, "media_folder: expected a folder or None"),
        ({"config": {"temperature": -1}}, "temperature: expected 0 or more"),
        ({"config": {"temprature": 1}}, "did you mean temperature"),
        ({"config": {"stop": {1}}}, "config: expected values that JSON can hold"),
        ({"config": {"top_k": 5}, "endpoint": "embeddings"}, "config: expected none for embeddings"),
        ({"config": {"language": "en"}, "endpoint": "chat"}, "language: there is no such option"),
        ({"config": 5}, "config: expected a mapping of fields"),
        ({"prompt": 5}, "prompt: expected a text or None"),
        ({"workers": 0}, "workers: expected 1 to 256 or 'auto', got 0"),
        ({"workers": "all"}, "workers: expected 1 to 256 or 'auto', got 'all'"),
        ({"num_threads": 0}, "num_threads: expected 1 to"),
        ({"max_errors": -1}, "max_errors: expected 0 to"),
        ({"keep_order": 1}, "keep_order: expected True or False"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        BatchOptions(**options)


def test_options_of_speech_and_of_chats_are_known_where_the_first_row_decides() -> None:
    assert BatchOptions(config={"language": "en"}).config == {"language": "en"}
    assert BatchOptions(config={"top_k": 5}).config == {"top_k": 5}
