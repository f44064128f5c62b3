"""Many threads and tasks use sessions over one load for as long as is asked; no token may be wrong.

    python tests/soak/sessions.py [--seconds 60] [--threads 64] [--tasks 200] [--seed 1]

Each thread and each task opens sessions, asks, forks, streams and leaves, saves and restores, stops, and is
out of time or cancelled at random moments. What is answered is compared, token by token, with what a runner
answers that has the model for itself. At the end memory is what it was after the first quarter. Prints a
table; exit code 1 where anything failed. Linux.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from executorch_mm import GenerationConfig, MultimodalModel, MultimodalRunner, Session
from executorch_mm.demo import make_scene, render
from executorch_mm.inputs import Prompt

CONFIG = GenerationConfig(max_new_tokens=12, temperature=0.8, seed=5, ignore_eos=True)
PROMPTS: list[Prompt] = [
    *(f"<|user|>{number} circles<|end|><|assistant|>" for number in range(6)),
    *(
        ["<|user|>", render(make_scene(seed=seed)), "how many shapes are there?<|end|><|assistant|>"]
        for seed in (7, 8)
    ),
    "red " * 60,
]
GROWTH_MIB = 48  # from a quarter of the time to its end


def resident_mib() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


class Soak:
    """What is asked, and what came of it."""

    def __init__(self, seconds: float) -> None:
        self.tries: Counter[str] = Counter()
        self.failures: list[str] = []
        self.lock = threading.Lock()
        self.end = time.monotonic() + seconds
        # (turn after turn) of each prompt
        self.expected: list[list[list[int]]] = []
        with MultimodalRunner.demo(num_threads=1) as runner:
            for prompt in PROMPTS:
                runner.reset()
                turns = [runner.generate_result(prompt, CONFIG), runner.generate_result([], CONFIG)]
                self.expected.append([list(turn.token_ids) for turn in turns])
        self.model = MultimodalModel.demo(num_threads=1)

    def expect(self, promise: str, holds: bool, what: str = "") -> None:
        with self.lock:
            self.tries[promise] += 1
            if not holds:
                self.failures.append(f"{promise}: {what}")

    def same(self, kind: str, found: object, expected: list[int]) -> None:
        self.expect(f"{kind}: the tokens of a runner that is alone", found == expected, f"{found} {expected}")

    def start_of(self, kind: str, found: object, expected: list[int]) -> None:
        tokens = list(found) if isinstance(found, (tuple, list)) else [-1]
        self.expect(
            f"{kind}: the beginning of those tokens",
            tokens == expected[: len(tokens)],
            f"{tokens} {expected}",
        )

    def answer(self, session: Session, rng: random.Random) -> None:
        number = rng.randrange(len(PROMPTS))
        first = session.generate_result(PROMPTS[number], CONFIG)
        self.same("answers", list(first.token_ids), self.expected[number][0])

    def fork(self, session: Session, rng: random.Random) -> None:
        number = rng.randrange(len(PROMPTS))
        session.generate_result(PROMPTS[number], CONFIG)
        with session.fork() as fork:
            for each in rng.sample([session, fork], 2):
                found = each.generate_result([], CONFIG)
                self.same("forks", list(found.token_ids), self.expected[number][1])

    def save(self, session: Session, rng: random.Random) -> None:
        number = rng.randrange(len(PROMPTS))
        session.generate_result(PROMPTS[number], CONFIG)
        saved = session.save()
        session.reset()
        session.generate_text("what", max_new_tokens=2)
        session.restore(saved)
        found = session.generate_result([], CONFIG)
        self.same("saved and restored", list(found.token_ids), self.expected[number][1])

    def leave(self, session: Session, rng: random.Random) -> None:
        number = rng.randrange(len(PROMPTS))
        stream = session.stream(PROMPTS[number], CONFIG)
        for _ in range(rng.randrange(1, 5)):
            next(stream, None)
        stream.close()
        if stream.result is not None:
            self.start_of("left", stream.result.token_ids, self.expected[number][0])

    def run_out(self, session: Session, rng: random.Random) -> None:
        number = rng.randrange(len(PROMPTS))
        found = session.generate_result(PROMPTS[number], CONFIG, timeout=rng.random())
        self.start_of("out of time", found.token_ids, self.expected[number][0])

    def stop(self, session: Session, rng: random.Random) -> None:
        number, last = rng.randrange(len(PROMPTS)), rng.randrange(1, 10)
        calls: list[None] = []

        def count(*_: object) -> None:
            calls.append(None)
            if len(calls) == last:
                session.stop()

        found = session.generate_result(PROMPTS[number], CONFIG, logits_processors=[count])
        self.start_of("stopped", found.token_ids, self.expected[number][0])

    def work(self, seed: int) -> None:
        """A thread."""
        rng = random.Random(seed)
        kinds: list[Callable[[Session, random.Random], None]] = [
            self.answer, self.answer, self.fork, self.save, self.leave, self.run_out, self.stop,
        ]  # fmt: skip
        while time.monotonic() < self.end:
            try:
                with self.model.session(priority=rng.randrange(2)) as session:
                    for _ in range(rng.randrange(1, 4)):
                        session.reset()
                        rng.choice(kinds)(session, rng)
            except BaseException:  # noqa: BLE001, PERF203 (the run goes on)
                self.expect("threads: nothing else comes out", False, traceback.format_exc()[-500:])

    async def ask(self, seed: int) -> None:
        """A task."""
        rng = random.Random(seed)
        while time.monotonic() < self.end:
            number = rng.randrange(len(PROMPTS))
            try:
                with self.model.session() as session:
                    if rng.random() < 0.5:
                        found = await session.agenerate_result(PROMPTS[number], CONFIG)
                        self.same("tasks", list(found.token_ids), self.expected[number][0])
                    else:
                        with contextlib.suppress(asyncio.TimeoutError, TimeoutError):
                            await asyncio.wait_for(
                                session.agenerate_result(PROMPTS[number], CONFIG), 3 * rng.random()
                            )
                        session.reset()
                        found = await session.agenerate_result(PROMPTS[number], CONFIG)
                        self.same("cancelled tasks, then", list(found.token_ids), self.expected[number][0])
            except Exception:  # noqa: BLE001
                self.expect("tasks: nothing else comes out", False, traceback.format_exc()[-500:])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--threads", type=int, default=64)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    soak = Soak(arguments.seconds)
    start = time.monotonic()
    threads = [
        threading.Thread(target=soak.work, args=[arguments.seed * 1000 + number])
        for number in range(arguments.threads)
    ]
    figures: list[float] = []
    measure = threading.Timer(arguments.seconds / 4, lambda: figures.append(resident_mib()))
    for thread in [*threads, measure]:
        thread.start()

    async def tasks() -> None:
        seeds = range(arguments.seed * 1000 + 500, arguments.seed * 1000 + 500 + arguments.tasks)
        await asyncio.gather(*(soak.ask(seed) for seed in seeds))

    asyncio.run(tasks())
    for thread in [*threads, measure]:
        thread.join()
    last = resident_mib()
    soak.expect("memory: flat", last - figures[0] < GROWTH_MIB, f"{figures[0]:.0f} MiB became {last:.0f}")
    soak.expect("requests: none is left", soak.model.num_requests == 0, str(soak.model.num_requests))
    soak.model.close()
    sys.stdout.write(f"seed {arguments.seed}: {arguments.threads} threads and {arguments.tasks} tasks, ")
    sys.stdout.write(
        f"{time.monotonic() - start:.0f} s, {figures[0]:.0f} MiB after a quarter, {last:.0f} last\n\n"
    )
    sys.stdout.write("| promise | tries |\n|---|---:|\n")
    for promise, tries in sorted(soak.tries.items()):
        sys.stdout.write(f"| {promise} | {tries:,} |\n")
    sys.stdout.write("\n".join(soak.failures[:20]) + f"\n{len(soak.failures)} failures\n")
    return 1 if soak.failures else 0


if __name__ == "__main__":
    sys.exit(main())
