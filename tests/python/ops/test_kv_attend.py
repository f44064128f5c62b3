"""kvcache::update_and_attend and its cache against a float64 reference: several sequences, forks, rings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kv_reference import Sequence
from oplib import INVALID_ARGUMENT, OK, KvCache, OpLibrary, Result, Tensor

ATTEND = "kvcache::update_and_attend.out"
FLOAT, HALF = 6, 5  # c10::ScalarType
# A float16 cache is exact about what it holds; int8 rows may round a tie the other way.
TOLERANCE = {"float32": 2e-5, "float16": 2e-5, "int8": 2e-2}
RANDOM = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
GOLDEN = Path(__file__).parents[2] / "data" / "kvcache" / "scenes.npz"


def attend(
    ops: OpLibrary,
    q: np.ndarray[Any, Any],
    k: np.ndarray[Any, Any],
    v: np.ndarray[Any, Any],
    positions: object,
    layer: int = 0,
    scale: float = 0.25,
) -> tuple[np.ndarray[Any, Any], Result]:
    out = np.full((*q.shape[:3], v.shape[3]), np.nan, np.float32)
    result = ops.call(ATTEND, [q, k, v, np.asarray(positions).reshape(-1, 1), layer, scale, FLOAT, out])
    return out, result


class Machine:
    """Drives the kernel and the reference with the same steps."""

    def __init__(
        self,
        ops: OpLibrary,
        cache: KvCache,
        layers: list[tuple[int, int, int, int]],
        group: int,
        store: str,
        seed: int,
    ) -> None:
        self.ops, self.cache, self.layers, self.group, self.store = ops, cache, layers, group, store
        self.rng = np.random.default_rng(seed)
        self.sequences: dict[int, list[Sequence]] = {}

    def add(self) -> int:
        name = self.cache.add()
        self.sequences[name] = [Sequence() for _ in self.layers]
        return name

    def length(self, name: int) -> int:
        return len(self.sequences[name][0].keys)

    def fork(self, name: int, length: int) -> int:
        fork = self.cache.fork(name, length)
        self.sequences[fork] = [layer.fork(length) for layer in self.sequences[name]]
        return fork

    def step(self, spans: list[tuple[int, int, int]]) -> None:
        """Runs (sequence, first position, tokens) through every layer and compares."""
        self.cache.begin_step([(name, tokens) for name, _, tokens in spans])
        total = sum(tokens for _, _, tokens in spans)
        positions = [p for _, first, tokens in spans for p in range(first, first + tokens)]
        for number, (heads, key_size, value_size, window) in enumerate(self.layers):

            def made(heads: int, size: int) -> np.ndarray[Any, Any]:
                return self.rng.standard_normal((1, heads, total, size)).astype(np.float32)

            q, k, v = made(heads * self.group, key_size), made(heads, key_size), made(heads, value_size)
            out, result = attend(self.ops, q, k, v, positions, number)
            assert (result.code, result.log) == (OK, "")
            at = 0
            for name, first, tokens in spans:
                part = np.s_[0, :, at : at + tokens]
                expected = self.sequences[name][number].step(
                    q[part], k[part], v[part], first, scale=0.25, window=window, store=self.store
                )
                np.testing.assert_allclose(out[part], expected, rtol=0, atol=TOLERANCE[self.store])
                at += tokens


@RANDOM
@given(
    seed=st.integers(0, 2**32 - 1),
    store=st.sampled_from(list(TOLERANCE)),
    group=st.integers(1, 4),
    heads=st.integers(1, 3),
    size=st.sampled_from([4, 7, 16, 40]),
    value_size=st.sampled_from([None, None, 5, 33]),
    window=st.sampled_from([0, 1, 3, 17]),
)
def test_random_steps_forks_and_rewinds_give_each_sequence_its_own_attention(
    ops: OpLibrary,
    seed: int,
    store: str,
    group: int,
    heads: int,
    size: int,
    value_size: int | None,
    window: int,
) -> None:
    max_write = 9
    layers = [(heads, size, value_size or size, 0), (heads, size, value_size or size, window)]
    with ops.kv_cache(layers, capacity=200, max_write=max_write, store=store) as cache:
        machine = Machine(ops, cache, layers, group, store, seed)
        rng = np.random.default_rng(seed + 1)
        highest = {machine.add(): 0}
        for _ in range(25):
            names = list(machine.sequences)
            action = rng.integers(0, 6)
            if action == 0 and len(names) < 5:
                highest[machine.add()] = 0
            elif action == 1 and len(names) < 5:
                source = int(rng.choice(names))
                length = machine.length(source)
                highest[machine.fork(source, length)] = highest[source]
            elif action == 2 and len(names) > 2:
                gone = names[int(rng.integers(len(names)))]
                cache.remove(gone)
                del machine.sequences[gone]
            else:
                chosen = rng.permutation(names)[: int(rng.integers(1, len(names) + 1))]
                spans = []
                for name in map(int, chosen):
                    first = machine.length(name)
                    if rng.random() < 0.3:  # as far back as a ring promises
                        first = int(rng.integers(max(0, highest[name] - max_write), first + 1))
                    tokens = int(rng.integers(1, max_write + 1)) if rng.random() < 0.5 else 1
                    if first + tokens > 200:
                        continue
                    spans.append((name, first, tokens))
                    highest[name] = max(highest[name], first + tokens)
                if spans:
                    machine.step(spans)
                    for name, first, tokens in spans:
                        assert cache.length(name) == first + tokens


@pytest.mark.parametrize("store", ["float32", "float16", "int8"])
@pytest.mark.parametrize("window", [0, 50])
def test_long_prompts_and_single_tokens_on_every_instruction_set(
    each_isa: OpLibrary, store: str, window: int
) -> None:
    layers = [(2, 64, 64, window)]
    with each_isa.kv_cache(layers, store=store) as cache:
        machine = Machine(each_isa, cache, layers, 3, store, 5)
        one, other = machine.add(), machine.add()
        machine.step([(one, 0, 300), (other, 0, 7)])
        machine.step([(other, 7, 1), (one, 300, 1)])
        fork = machine.fork(one, 301)
        machine.step([(one, 301, 40), (fork, 301, 1), (other, 8, 130)])
        machine.step([(fork, 302, 1), (one, 341, 1), (other, 138, 1)])


def test_a_fork_copies_nothing_and_the_one_who_writes_first_leaves_the_others_rows_alone(
    ops: OpLibrary,
) -> None:
    layers = [(1, 8, 8, 0)]
    with ops.kv_cache(layers) as cache:
        machine = Machine(ops, cache, layers, 1, "float32", 1)
        trunk = machine.add()
        machine.step([(trunk, 0, 100)])
        forks = [machine.fork(trunk, 60) for _ in range(3)]
        machine.step([(fork, 60, 2) for fork in forks])
        machine.step([(trunk, 50, 20)])  # over rows that the forks have too
        machine.step([(fork, 62, 1) for fork in forks] + [(trunk, 70, 1)])
        for fork in forks:
            cache.remove(fork)
        machine.step([(trunk, 71, 1)])
        assert cache.bytes(trunk) == 72 * 2 * 8 * 4


def test_a_chain_of_forks_stays_right_and_short(ops: OpLibrary) -> None:
    layers = [(2, 16, 16, 0)]
    with ops.kv_cache(layers) as cache:
        machine = Machine(ops, cache, layers, 2, "float32", 2)
        name = machine.add()
        machine.step([(name, 0, 4)])
        for _ in range(25):
            kept = name
            name = machine.fork(name, machine.length(name))
            machine.step([(kept, machine.length(kept), 1)])
            machine.step([(name, machine.length(name), 2)])
        machine.step([(name, machine.length(name), 1)])


def test_threads_and_one_thread_agree_to_the_bit(ops: OpLibrary) -> None:
    rng = np.random.default_rng(3)
    q, k, v = (rng.standard_normal((1, heads, 8, 64)).astype(np.float32) for heads in (8, 4, 4))
    prompt = [rng.standard_normal((1, heads, 400, 64)).astype(np.float32) for heads in (8, 4, 4)]
    outs = []
    for threads in (1, 4):
        ops.set_threads(threads)
        with ops.kv_cache([(4, 64, 64, 0)]) as cache:
            names = [cache.add() for _ in range(8)]
            for name in names:
                cache.begin_step([(name, 400)])
                assert attend(ops, *prompt, positions=np.arange(400))[1].code == OK
            cache.begin_step([(name, 1) for name in names])
            outs.append(attend(ops, q, k, v, [400] * 8)[0])
    np.testing.assert_array_equal(*outs)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_batch_takes_its_sequences_row_by_row(ops: OpLibrary, dtype: str) -> None:
    rng = np.random.default_rng(4)
    q, k, v = (rng.standard_normal((3, heads, 2, 8)).astype(dtype) for heads in (4, 2, 2))
    with ops.kv_cache([(2, 8, 8, 0)]) as cache:
        names = [cache.add() for _ in range(3)]
        cache.begin_step([(name, 2) for name in names])
        out = np.zeros((3, 4, 2, 8), np.float32)
        # One position for each token of the step, shared by the batch.
        result = ops.call(ATTEND, [q, k, v, np.array([[0], [1]]), 0, 0.5, FLOAT, out])
        assert (result.code, result.log) == (OK, "")
    for b in range(3):
        expected = Sequence().step(q[b], k[b], v[b], 0, scale=0.5, window=0, store="float32")
        np.testing.assert_allclose(out[b], expected, atol=2e-5)


def test_a_shared_layer_that_is_served_again_in_a_step_writes_the_same_rows(ops: OpLibrary) -> None:
    rng = np.random.default_rng(6)
    q, k, v = (rng.standard_normal((1, 2, 3, 8)).astype(np.float32) for _ in range(3))
    with ops.kv_cache([(2, 8, 8, 0)]) as cache:
        name = cache.add()
        cache.begin_step([(name, 3)])
        first, _ = attend(ops, q, k, v, [0, 1, 2])
        again, result = attend(ops, q, k, v, [0, 1, 2])
        assert result.code == OK
        np.testing.assert_array_equal(first, again)
        assert cache.length(name) == 3


def test_what_a_later_token_of_a_prompt_holds_does_not_reach_earlier_ones(ops: OpLibrary) -> None:
    rng = np.random.default_rng(7)
    q, k, v = (rng.standard_normal((1, 1, 40, 8)).astype(np.float32) for _ in range(3))
    k[0, 0, 30], v[0, 0, 31] = np.nan, np.inf
    with ops.kv_cache([(1, 8, 8, 0)]) as cache:
        cache.begin_step([(cache.add(), 40)])
        out, result = attend(ops, q, k, v, np.arange(40))
    assert result.code == OK
    assert np.isfinite(out[0, 0, :30]).all()
    assert np.isnan(out[0, 0, 30:]).all()


@pytest.mark.parametrize("name", ["flat", "ring", "forks", "float16"])
def test_steps_match_torch(ops: OpLibrary, name: str) -> None:
    # Made by tools/fixtures/kvcache/make_scenes.py with torch's scaled_dot_product_attention.
    with np.load(GOLDEN) as scenes:
        scene = {key.partition("/")[2]: scenes[key] for key in scenes.files if key.startswith(f"{name}/")}
    layer = tuple(int(number) for number in scene["layer"])
    with ops.kv_cache([layer], store="float16" if name == "float16" else "float32") as cache:
        for _ in range(int(scene["num_sequences"])):
            cache.add()
        for step in range(int(scene["num_steps"])):
            for sequence, length in scene[f"{step}/forks"]:
                cache.fork(int(sequence), int(length))
            cache.begin_step([(int(s), int(n)) for s, n in scene[f"{step}/spans"]])
            q, k, v, positions = (scene[f"{step}/{key}"] for key in ("q", "k", "v", "positions"))
            out, result = attend(ops, q, k, v, positions, scale=float(scene["scale"]))
            assert (result.code, result.log) == (OK, "")
            np.testing.assert_allclose(out, scene[f"{step}/out"], rtol=0, atol=2e-5)


def parts(**changes: object) -> dict[str, Any]:
    rng = np.random.default_rng(8)
    made = {
        "q": rng.standard_normal((1, 4, 2, 8)).astype(np.float32),
        "k": rng.standard_normal((1, 2, 2, 8)).astype(np.float32),
        "v": rng.standard_normal((1, 2, 2, 8)).astype(np.float32),
        "position": np.array([[0], [1]]),
        "layer": 0,
        "scale": 1.0,
        "out_dtype": FLOAT,
        "out": np.zeros((1, 4, 2, 8), np.float32),
    }
    return made | changes


F32 = np.float32
WRONG = {
    "heads that do not divide": (parts(q=np.zeros((1, 3, 2, 8), F32)), "Hq a multiple of Hkv"),
    "another number of tokens": (parts(k=np.zeros((1, 2, 3, 8), F32)), "key [B, Hkv, S, D]"),
    "integers": (parts(v=np.zeros((1, 2, 2, 8), np.int32)), "Float, Half or BFloat16"),
    "a layout": (parts(k=Tensor(np.zeros((1, 2, 2, 8), F32), dim_order=(0, 2, 1, 3))), "contiguous"),
    "too few positions": (parts(position=np.array([[0]])), "a position for each token"),
    "two positions a token": (parts(position=np.zeros((2, 2), np.int64)), "a position for each token"),
    "float positions": (parts(position=np.zeros((2, 1), F32)), "a position for each token"),
    "an unknown layer": (parts(layer=1), "for layer 1 of the cache 0 heads"),
    "a negative layer": (parts(layer=-1), "for layer -1 of the cache 0 heads"),
    "another head size": (
        parts(q=np.zeros((1, 4, 2, 9), F32), k=np.zeros((1, 2, 2, 9), F32), out=np.zeros((1, 4, 2, 8), F32)),
        "for layer 0 of the cache 2 heads of 8 and 8",
    ),
    "a scale": (parts(scale=float("inf")), "a finite scale"),
    "an output of another dtype": (parts(out_dtype=HALF), "as out_dtype 5 says"),
    "an output of another shape": (parts(out=np.zeros((4, 2, 8), F32)), "take the result's shape"),
    "a gap": (parts(position=np.array([[1], [2]])), "expected a position in 0..0, got 1"),
    "a negative position": (parts(position=np.array([[-1], [0]])), "expected a position in 0..0, got -1"),
    "positions that jump": (parts(position=np.array([[0], [2]])), "expected position 1 after 0, got 2"),
    "a huge position": (parts(position=np.array([[2**62], [0]])), "expected a position in 0..0"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_call_is_one_error_and_changes_nothing(ops: OpLibrary, case: str) -> None:
    wrong, message = WRONG[case]
    with ops.kv_cache([(2, 8, 8, 0)], capacity=10) as cache:
        name = cache.add()
        cache.begin_step([(name, 2)])
        result = ops.call(ATTEND, list(wrong.values()))
        assert result.code == INVALID_ARGUMENT
        assert len(result.errors) == 1
        assert result.errors[0].startswith("kvcache::update_and_attend: ")
        assert message in result.errors[0]
        assert cache.length(name) == 0
        assert ops.call(ATTEND, list(parts().values())).code == OK


def test_without_a_cache_or_a_step_the_call_fails(ops: OpLibrary) -> None:
    result = ops.call(ATTEND, list(parts().values()))
    assert "was run without one" in result.errors[0]
    with ops.kv_cache([(2, 8, 8, 0)]) as cache:
        assert "no step was begun" in ops.call(ATTEND, list(parts().values())).errors[0]
        name = cache.add()
        for spans, message in {
            ((name, 1),): "expected 1 tokens in this step, got 2",
            ((name, 1), (name, 1)): "comes twice in a step",
            ((name, 3),): "expected at most 2 tokens of the next sequence, got 3",
            ((name, 0), (name, 2)): "expected positions for all tokens",
        }.items():
            cache.begin_step(spans)
            assert message in ops.call(ATTEND, list(parts().values())).errors[0]
        assert cache.length(name) == 0


def test_the_capacity_is_a_bound_and_the_last_position_works(ops: OpLibrary) -> None:
    with ops.kv_cache([(2, 8, 8, 0)], capacity=3) as cache:
        name = cache.add()
        cache.begin_step([(name, 2)])
        assert ops.call(ATTEND, list(parts().values())).code == OK
        cache.begin_step([(name, 2)])
        result = ops.call(ATTEND, list(parts(position=np.array([[2], [3]])).values()))
        assert "expected at most 3 positions, got 2 from 2 on" in result.errors[0]
        cache.begin_step([(name, 2)])
        assert ops.call(ATTEND, list(parts(position=np.array([[1], [2]])).values())).code == OK


def test_a_ring_refuses_a_position_whose_window_is_gone(ops: OpLibrary) -> None:
    layers = [(1, 8, 8, 4)]
    with ops.kv_cache(layers, max_write=2) as cache:
        machine = Machine(ops, cache, layers, 1, "float32", 9)
        name = machine.add()
        for position in range(40):
            machine.step([(name, position, 1)])
        q = np.zeros((1, 1, 1, 8), np.float32)
        cache.begin_step([(name, 1)])
        result = attend(ops, q, q, q, [10])[1]
        assert "where a window of 4 is still there, got 10" in result.errors[0]
        assert cache.length(name) == 40
        machine.step([(name, 38, 2)])
