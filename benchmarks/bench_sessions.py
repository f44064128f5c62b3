"""Many conversations over one load: what they take in memory and time, beside one conversation.

    python benchmarks/bench_sessions.py model.pte tokenizer.json

Each figure stands beside its counterpart of the same run: 8 sessions beside one, rounds of 8 concurrent
answers between rounds of one answer alone.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from executorch_mm import MultimodalModel, Session, make_token_input

SESSIONS, TOKENS, LONG, NEW = 8, 200, 900, 48


def resident_mib() -> float:
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) / 1024


def read(session: Session, count: int, seed: int = 0) -> None:
    session.prefill(make_token_input([100 + (seed * 131 + 7 * i) % 5000 for i in range(count)]))


def memory(model: MultimodalModel) -> dict[str, float]:
    sessions = [model.session() for _ in range(SESSIONS)]
    read(sessions[0], TOKENS)
    for _ in sessions[0].stream([], max_new_tokens=2, ignore_eos=True):
        pass
    one = resident_mib()
    for seed, session in enumerate(sessions[1:], 1):
        read(session, TOKENS, seed)
        for _ in session.stream([], max_new_tokens=2, ignore_eos=True):
            pass
    all_of_them = resident_mib()
    for session in sessions:
        session.close()
    return {"one_mib": one, "eight_mib": all_of_them, "ratio": all_of_them / one}


def fork(model: MultimodalModel) -> dict[str, float]:
    times, growth = [], []
    with model.session() as session:
        read(session, LONG)
        for _ in range(20):
            before = resident_mib()
            start = time.perf_counter()
            child = session.fork()
            times.append((time.perf_counter() - start) * 1e3)
            growth.append(resident_mib() - before)
            child.close()
    return {"median_ms": statistics.median(times), "most_ms": max(times), "growth_mib": max(growth)}


def some_words(model: MultimodalModel) -> list[int]:
    """Tokens that give a piece of text each, whatever the model would say: then pieces can be counted."""
    words = (token for token in range(1000, 9000) if model.tokenizer.decode([token]).strip().isascii())
    found = [token for token in words if model.tokenizer.decode([token]).strip().isalpha()][:NEW]
    if len(found) < NEW:
        raise SystemExit(f"expected a tokenizer with {NEW} words among tokens 1,000 to 9,000")
    return found


def answer(session: Session, words: list[int], waits: list[tuple[float, int]], tokens: Iterator[int]) -> None:
    """Notes between two tokens how long it took and how many of all sessions came."""
    last, before = time.perf_counter(), next(tokens)
    for _ in session.stream([], max_new_tokens=NEW, ignore_eos=True, temperature=0.0, forced_tokens=words):
        now, count = time.perf_counter(), next(tokens)
        waits.append((now - last, count - before))
        last, before = now, count


def speed(model: MultimodalModel, rounds: int) -> dict[str, float]:
    ratios, waits, steps, alone, counts = [], [], [], [], []
    words = some_words(model)
    for _ in range(rounds):
        rates = []
        for count in (1, SESSIONS):
            sessions = [model.session() for _ in range(count)]
            for seed, session in enumerate(sessions):
                read(session, 128, seed)
                answer(session, words, [], itertools.count())
            each: list[list[tuple[float, int]]] = [[] for _ in sessions]
            tokens = itertools.count()
            threads = [
                threading.Thread(target=answer, args=(session, words, waited, tokens))
                for session, waited in zip(sessions, each, strict=True)
            ]
            start = time.perf_counter()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            rates.append(count * NEW / (time.perf_counter() - start))
            if count == 1:
                alone += [wait for wait, _ in each[0][1:]]
                steps.append(statistics.median(wait for wait, _ in each[0][1:]))
            else:
                waits += [wait for pieces in each for wait, _ in pieces[1:]]
                counts += [count for pieces in each for _, count in pieces[1:]]
            for session in sessions:
                session.close()
        ratios.append(rates[1] / rates[0])
    step = statistics.median(steps)
    late, late_alone, late_count = (statistics.quantiles(of, n=100)[98] for of in (waits, alone, counts))
    return {
        "ratio": statistics.median(ratios),
        "step_ms": step * 1e3,
        "step_p99_steps": late_alone / step,
        "wait_p99_steps": late / step,
        "wait_p99_tokens": late_count,
        "wait_most_tokens": max(counts),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with MultimodalModel(given.model, given.tokenizer) as model:
        result = {"memory": memory(model), "fork": fork(model), "speed": speed(model, given.rounds)}
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
