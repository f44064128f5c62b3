"""Sessions over one model that take a step together: one call, each one's own tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from executorch_mm import CapacityError, InputError
from executorch_mm._engine.batch import Conversation, step_together

FOLDER = Path(__file__).resolve().parents[2] / "models" / "kvcache"
# Made by tools/fixtures/kvcache/make_models.py with torch: prompts of 1 to 8 tokens, answers of 12.
OTHERS = json.loads((FOLDER / "expected.json").read_text())["flat"]["others"]


def load(name: str = "flat", **options: Any) -> Conversation:
    return Conversation.load(FOLDER / f"{name}.pte", **options)


@pytest.mark.parametrize("dtype", [None, "float16", "int8"])
def test_eight_conversations_in_one_call_have_the_tokens_of_one_at_a_time(dtype: str | None) -> None:
    first = load(kv_cache_dtype=dtype)
    sessions = [first, *(first.another() for _ in OTHERS[1:])]
    alone = first.another()
    expected = []
    for session, (prompt, _) in zip(sessions, OTHERS, strict=True):
        session.read(prompt)
        alone.session.reset()
        alone.read(prompt)
        expected.append(alone.answer(12))
    together = [step_together(sessions) for _ in range(12)]
    assert [list(tokens) for tokens in zip(*together, strict=True)] == expected
    if dtype is None:
        assert expected == [answer for _, answer in OTHERS]


def test_forks_of_one_prompt_go_their_own_ways_in_one_call() -> None:
    trunk = load()
    prompt, trunk_answer = OTHERS[7]
    trunk.read(prompt)
    branches = [trunk.fork() for _ in range(3)]
    for branch, token in zip(branches, (3, 40, 17), strict=True):
        branch.read([token])
    expected = []
    for token in (3, 40, 17):
        alone = trunk.fork()
        alone.read([token])
        expected.append(alone.answer(6))
    rows = [step_together([trunk, *branches]) for _ in range(6)]
    assert [list(tokens) for tokens in zip(*rows, strict=True)] == [trunk_answer[:6], *expected]


def test_a_batch_that_is_none_changes_nothing() -> None:
    session, stranger, fixed = load(), load(), load("one_token")
    other = session.another()
    for each in (session, stranger, fixed, other):
        each.read([5, 9])
        each.answer(1)
    fixed_twin = fixed.another()
    fixed_twin.read([5])
    for members, message in (
        ([], "expected a sampler for each of 1 or more sessions"),
        ([session, session], "expected each session once"),
        ([session, stranger], "expected conversations with one model"),
        ([fixed, fixed], "expected each session once"),
    ):
        with pytest.raises(InputError, match=message):
            step_together(members)
    fixed_twin.answer(1)
    with pytest.raises(InputError, match="forward takes one conversation at a time"):
        step_together([fixed, fixed_twin])
    assert [each.session.position for each in (session, other)] == [2, 2]
    tokens = step_together([session, other])
    assert tokens[0] == tokens[1]


def test_a_full_conversation_stops_the_batch_before_the_call() -> None:
    session = load(max_context_len=4)
    other = session.another()
    session.read([5, 9, 2, 7])
    other.read([5])
    for each in (session, other):
        each.answer(1)
    with pytest.raises(CapacityError):
        step_together([session, other])
    assert (session.session.position, other.session.position) == (4, 1)
    assert len(step_together([other])) == 1


def test_more_tokens_than_a_call_takes_are_refused() -> None:
    session = load()
    sessions = [session, *(session.another() for _ in range(8))]
    for each in sessions:
        each.read([5])
        each.answer(1)
    with pytest.raises(InputError, match="expected 1 to 8 tokens, got 9"):
        step_together(sessions)
    assert len(step_together(sessions[:8])) == 8
