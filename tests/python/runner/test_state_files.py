"""Conversations in files: what comes back in another process, and files that are damaged, cut or foreign.

The references are the same runners without a file between.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

import state_worker
from executorch_mm import (
    InputError,
    MultimodalRunner,
    StateFileError,
    make_token_input,
)
from executorch_mm._files.sealed_file import SealedFile, write_sealed
from executorch_mm.demo import make_scene, render
from number_tokenizer import NumberTokenizer
from state_worker import LLAMA, LONG, go_on
from stateful_models import MODELS, STATEFUL, load_stateful


def worker(*arguments: str) -> list[str]:
    """The command of another process; see support/state_worker.py."""
    return [sys.executable, state_worker.__file__, *arguments]


def run_worker(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(worker(*arguments), capture_output=True, text=True, timeout=300, check=False)


def refused(message: str) -> AbstractContextManager[object]:
    return pytest.raises(StateFileError, match=message)


def test_every_kind_of_state_goes_on_in_another_process_bit_for_bit(tmp_path: Path) -> None:
    files: list[tuple[str, str]] = []
    expected = []
    for index, path in enumerate(STATEFUL):
        with load_stateful(path) as runner:
            # After a prompt, an answer, and an answer that was taken back in part.
            runner.prefill(make_token_input(LONG))
            if index % 3 > 0:
                runner.generate_text([], max_new_tokens=3, ignore_eos=True)
            if index % 3 > 1 and not runner.contract.is_recurrent and not runner.contract.ring_rows:
                runner.rewind(11)
                runner.prefill(make_token_input([9]))
            files.append((str(path), str(tmp_path / f"{index}.emm")))
            runner.save(files[-1][1])
            expected.append(go_on(runner))
    kinds = {kind for path, _ in files for kind in json_kinds(path)}
    assert kinds >= {"flat", "ring", "whole", "int8"}  # what the models are there for
    done = run_worker("restore", json.dumps(files))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(json.dumps(expected))


def test_what_another_process_has_forked_and_saved_goes_on_here(llama: MultimodalRunner, saved: Path) -> None:
    """The references are one conversation that did the same here."""
    shutil.copy(saved, saved.with_name("first.emm"))
    done = run_worker("parted", str(saved.parent))
    assert done.returncode == 0, done.stderr
    for name in ("fork", "other"):
        llama.restore(saved)
        if name == "fork":
            llama.generate_result([], state_worker.SEEDED)
        else:
            llama.prefill(make_token_input([9, 8]))
        expected = go_on(llama)
        llama.restore(saved.with_name(f"{name}.emm"))
        assert go_on(llama) == expected


def json_kinds(path: str) -> set[str]:
    with load_stateful(Path(path)) as runner:
        return {word for kind, dtype, _ in runner.contract.state_layout(1) for word in (kind, dtype)}


def test_a_chat_about_an_image_goes_on_without_looking_at_it_again(tmp_path: Path) -> None:
    image = render(make_scene(7))
    messages: list[Any] = [
        {
            "role": "user",
            "content": [{"type": "image", "image": image}, {"type": "text", "text": "how many shapes?"}],
        }
    ]
    with MultimodalRunner.demo() as runner:
        answer = runner.chat(messages, max_new_tokens=8).text
        runner.save(tmp_path / "chat.emm")
        messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": "what colour?"}]
        expected = runner.chat(messages, max_new_tokens=8)
    with MultimodalRunner.demo() as other:
        other.restore(tmp_path / "chat.emm")
        got = other.chat(messages, max_new_tokens=8)
        assert (got.text, got.stats.num_prompt_tokens) == (expected.text, expected.stats.num_prompt_tokens)
        assert got.stats.encode_image_ns == 0
        # Another image is another conversation.
        messages[0]["content"][0]["image"] = render(make_scene(8))
        assert other.chat(messages, max_new_tokens=8).stats.encode_image_ns > 0


def test_a_snapshot_lets_a_chat_go_on_without_looking_again_too(runner: MultimodalRunner) -> None:
    messages: list[Any] = [{"role": "user", "content": [{"type": "image", "image": render(make_scene(7))}]}]
    runner.chat(messages, max_new_tokens=4)
    snapshot = runner.save()
    runner.reset()
    runner.restore(snapshot)
    assert runner.chat(messages, max_new_tokens=4).stats.encode_image_ns == 0


@pytest.fixture(scope="module")
def llama() -> Any:
    with MultimodalRunner(LLAMA, NumberTokenizer()) as runner:
        yield runner


@pytest.fixture
def saved(llama: MultimodalRunner, tmp_path: Path) -> Path:
    llama.reset()
    llama.prefill(make_token_input(LONG))
    llama.save(tmp_path / "chat.emm")
    llama.reset()
    llama.prefill(make_token_input([9]))  # what has to be left as it is
    return tmp_path / "chat.emm"


def test_every_cut_and_every_flipped_bit_is_refused(llama: MultimodalRunner, saved: Path) -> None:
    whole = saved.read_bytes()
    chance = random.Random(17)
    # The beginning and the end of the file byte by byte, and places in between.
    places = {*range(1000), *chance.sample(range(len(whole)), 400), *range(len(whole) - 20, len(whole))}
    damaged = [whole[:end] for end in places]
    for place in places:
        changed = bytearray(whole)
        changed[place] ^= 1 << chance.randrange(8)
        damaged.append(bytes(changed))
    damaged += [whole + b"x", whole + whole, b"", os.urandom(4096)]
    for content in damaged:
        saved.write_bytes(content)
        with refused(r"chat\.emm: "):
            llama.restore(saved)
    assert llama.history == [9]
    saved.write_bytes(whole)
    llama.restore(saved)
    assert llama.history == LONG


@pytest.mark.parametrize("has_threads", [True, False])
def test_damage_anywhere_in_a_large_file_is_found_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_threads: bool
) -> None:
    if not has_threads:
        monkeypatch.setattr(
            threading.Thread, "start", Mock(side_effect=RuntimeError("can't start new thread"))
        )
    path = tmp_path / "large.emm"
    body = np.random.default_rng(17).integers(0, 256, (6 << 20) + 5, np.uint8)
    write_sealed(path, 1, {}, [body.data])
    with SealedFile(path, 1) as file:
        assert np.array_equal(file.body(), body)
    with path.open("r+b") as written:
        start = path.stat().st_size - body.size
        for place in (0, 1 << 20, (3 << 20) - 1, body.size - 1):
            written.seek(start + place)
            written.write(bytes([body[place] ^ 4]))
            written.flush()
            with SealedFile(path, 1) as file, refused("the checksum of its content is another"):
                file.body()
            written.seek(start + place)
            written.write(bytes([body[place]]))
            written.flush()
        with SealedFile(path, 1) as file, refused("it has become shorter"):
            written.truncate(start + (5 << 20))
            file.body()
    assert not [thread for thread in threading.enumerate() if thread.name == "checksum"]


def resealed(path: Path, body: bytes | None = None, **changes: object) -> None:
    """What somebody writes who knows the format: another header or content, with a right checksum."""
    with SealedFile(path, 1) as file:
        content = bytes(file.body()) if body is None else body
        header = {name: value for name, value in file.header.items() if name != "body_sha256"}
    write_sealed(path, 1, header | changes, [memoryview(content)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"position": 1 << 62}, "position: the model has room for"),
        ({"position": -1}, "position: expected a number"),
        ({"position": True}, "position: expected a number"),
        ({"position": 20.0}, "position: expected a number"),
        ({"position": 19}, "content has"),
        ({"written": 19}, "0 <= position <= written"),
        ({"written": 1 << 62}, "written: the model has room for"),
        ({"num_pending": 1 << 40}, "num_pending: the model has room for"),
        ({"num_logits": 5}, "num_logits: expected 0 or"),
        ({"dtype": "float16"}, "content has"),
        ({"dtype": "complex"}, "dtype: expected one of"),
        ({"dtype": None}, "dtype: expected a text"),
        ({"media": ["zz"]}, "media: "),
        ({"media": [[]]}, "media: "),
        ({"media": ["00"] * 21}, "media: expected a list"),
        ({"model": "0" * 64}, "another model"),
        ({"tokenizer": "0" * 64}, "another tokenizer"),
        ({"method": "backward"}, "the method backward"),
    ],
)
def test_a_header_that_no_runner_wrote_is_refused_before_memory_is_taken(
    llama: MultimodalRunner, saved: Path, changes: dict[str, object], message: str
) -> None:
    resealed(saved, **changes)
    with refused(message):
        llama.restore(saved)
    assert llama.history == [9]


@pytest.mark.parametrize("token", [-2, 1 << 40, 64])
def test_tokens_that_the_model_does_not_have_are_refused(
    llama: MultimodalRunner, saved: Path, token: int
) -> None:
    with SealedFile(saved, 1) as file:
        body = file.body()
    resealed(saved, bytes([*token.to_bytes(8, "little", signed=True), *body[8:]]))
    with refused("expected token ids below 64"):
        llama.restore(saved)
    assert llama.history == [9]


def test_a_file_of_another_kind_is_refused_as_one(llama: MultimodalRunner, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "text").write_text("a text that is longer than the first bytes of a saved conversation" * 9)
    for name, message in (
        ("nothing", "cannot be read: No such file"),
        ("pipe", "expected a regular file"),
        (".", "cannot be read: Is a directory"),
        ("text", "another kind of file"),
    ):
        with refused(message):
            llama.restore(tmp_path / name)


def test_another_models_conversation_is_refused(saved: Path) -> None:
    with load_stateful(MODELS / "export_llm" / "qwen3.pte") as other:
        with refused("another model"):
            other.restore(saved)
        assert other.position == 0


class OtherTokenizer(NumberTokenizer):
    """One token has another name."""

    def id_to_token(self, token_id: int) -> str | None:
        return "forty" if token_id == 40 else str(token_id)


def test_another_tokenizers_conversation_is_refused(saved: Path) -> None:
    with MultimodalRunner(LLAMA, OtherTokenizer()) as other, refused("another tokenizer"):
        other.restore(saved)


def test_the_model_is_known_by_its_content_wherever_it_lies(saved: Path, tmp_path: Path) -> None:
    content = LLAMA.read_bytes()
    (tmp_path / "copy.pte").write_bytes(content)
    for model in (tmp_path / "copy.pte", content):
        with MultimodalRunner(model, NumberTokenizer()) as other:
            other.restore(saved)
            assert other.history == LONG


def test_a_model_whose_file_has_changed_since_is_not_taken_for_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "model.pte"
    shutil.copy(LLAMA, path)
    with MultimodalRunner(path, NumberTokenizer()) as runner:
        runner.prefill(make_token_input(LONG))
        path.unlink()
        shutil.copy(MODELS / "export_llm" / "qwen3.pte", path)
        with refused("the file has changed"):
            runner.save(tmp_path / "chat.emm")
    assert not (tmp_path / "chat.emm").exists()


def test_methods_that_share_their_cache_share_its_files_and_others_do_not(tmp_path: Path) -> None:
    for name, is_shared in (("shared_adapters", True), ("own_adapters", False)):
        path = MODELS / "exports" / f"{name}.pte"
        with MultimodalRunner(path, NumberTokenizer()) as runner:
            runner.prefill(make_token_input(LONG[:9]))
            runner.save(tmp_path / name)
        with MultimodalRunner(path, NumberTokenizer(), method="lora_forward") as other:
            if is_shared:
                other.restore(tmp_path / name)
                assert other.history == LONG[:9]
                continue
            with refused(r"method base_forward.*use_method\(\) first"):
                other.restore(tmp_path / name)


def test_a_smaller_context_refuses_a_longer_conversation(saved: Path) -> None:
    with MultimodalRunner(LLAMA, NumberTokenizer(), max_context_len=16) as small, refused("room for 16"):
        small.restore(saved)


def test_a_process_that_is_killed_while_saving_leaves_the_old_file(
    llama: MultimodalRunner, saved: Path
) -> None:
    before = saved.read_bytes()
    assert run_worker("killed", str(saved)).returncode == -signal.SIGKILL
    assert saved.read_bytes() == before
    llama.restore(saved)
    assert llama.history == LONG


@pytest.mark.slow
def test_a_process_that_is_killed_behind_any_call_of_the_system_leaves_one_of_the_two_files(
    llama: MultimodalRunner, saved: Path
) -> None:
    before = saved.read_bytes()
    calls: list[str] = []
    while (done := run_worker("killed_behind", json.dumps([str(saved), len(calls) + 1]))).returncode != 0:
        assert done.returncode == -signal.SIGKILL, done.stderr
        calls.append(done.stdout.strip())
        is_old = "replace" not in calls
        assert (saved.read_bytes() == before) == is_old, calls
        llama.restore(saved)
        assert llama.history == (LONG if is_old else LONG[:3]), calls
    order = [call for index, call in enumerate(calls) if calls.index(call) == index]
    assert order[:4] == ["open", "write", "fsync", "replace"]
    # What was left beside it is in nobody's way.
    llama.save(saved)
    llama.restore(saved)


def test_a_process_that_is_killed_at_any_moment_leaves_a_whole_file(
    llama: MultimodalRunner, saved: Path
) -> None:
    chance = random.Random(3)
    for _ in range(4):
        with subprocess.Popen(worker("forever", str(saved)), stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "saved\n"
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(chance.uniform(0, 0.05))
            process.kill()
        llama.restore(saved)
        assert llama.position in (5, 10, 15, 20)


def test_a_full_disk_is_an_error_and_leaves_the_old_file_alone(saved: Path) -> None:
    before = saved.read_bytes()
    assert len(before) > 4096
    done = run_worker("no_room", str(saved))
    assert done.returncode == 0, done.stderr
    message, history = done.stdout.splitlines()
    assert "chat.emm: cannot be written: File too large" in message
    assert json.loads(history) == LONG
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["chat.emm"]


def test_a_file_is_its_owners_alone_and_links_are_followed(llama: MultimodalRunner, saved: Path) -> None:
    link = saved.with_name("link")
    link.symlink_to(saved)
    llama.save(link)
    assert link.is_symlink()
    assert saved.stat().st_mode & 0o777 == 0o600
    llama.reset()
    llama.restore(saved)
    assert llama.history == [9]


@pytest.mark.parametrize(
    ("name", "message"), [("no_folder/chat.emm", "cannot be written: No such file"), (".", "something else")]
)
def test_a_place_that_takes_no_file_is_refused(
    llama: MultimodalRunner, tmp_path: Path, name: str, message: str
) -> None:
    with refused(message):
        llama.save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_rounded_caches_take_less_room_and_come_back_nearly_the_same(
    llama: MultimodalRunner, saved: Path, dtype: Any
) -> None:
    llama.restore(saved)
    exact = state_of(llama)
    path = saved.with_name("small.emm")
    llama.save(path, dtype=dtype)
    llama.reset()
    llama.restore(path)
    got = state_of(llama)
    if dtype == "float16":
        # IEEE 754: 11 bits of a number, so half of the last place.
        assert np.abs(got - exact).max() <= np.abs(exact).max() * 2**-11
        assert np.array_equal(got, exact.astype(np.float16).astype(np.float32))
    else:
        assert np.abs(got - exact).max() <= np.abs(exact).max() / 127 / 2 * 1.0001
    ratio = {"float16": 2, "int8": 32 * 4 / 36}[dtype]
    rest = saved.stat().st_size - 4 * exact.size
    assert path.stat().st_size == pytest.approx(rest + 4 * exact.size / ratio, abs=40)
    assert llama.history == LONG


def state_of(runner: MultimodalRunner) -> np.ndarray:
    return np.concatenate(runner.save()._state.state).view(np.float32)


def test_a_dtype_that_is_unknown_or_without_a_file_is_refused(
    llama: MultimodalRunner, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"dtype: expected one of float32, float16, int8, got 'bfloat16'"):
        llama.save(tmp_path / "chat.emm", dtype="bfloat16")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="expected a path with 'int8'"):
        llama.save(dtype="int8")
    assert list(tmp_path.iterdir()) == []


def test_numbers_that_float16_does_not_hold_are_refused_rather_than_changed(
    llama: MultimodalRunner, saved: Path
) -> None:
    with SealedFile(saved, 1) as file:
        body = bytearray(file.body())
    body[-4:] = np.float32(70_000).tobytes()
    resealed(saved, bytes(body))
    llama.restore(saved)
    with pytest.raises(InputError, match="float16 does not hold the numbers"):
        llama.save(saved, dtype="float16")
    llama.save(saved)
    llama.restore(saved)
    assert state_of(llama)[-1] == 70_000
