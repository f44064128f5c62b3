"""Many threads and tasks use sessions over one load for as long as is asked; no token may be wrong.

    python tests/soak/sessions.py [--seconds 60] [--threads 64] [--tasks 200] [--seed 1]

Each thread and each task opens sessions over one of two loads, the shipped model with images and a text model
whose steps share calls, with small caches of prefixes and of images. It asks, forks, streams and leaves,
saves and restores in memory and in files, guesses ahead, stops, is closed while it answers, and is out of
time or cancelled at random moments. What is answered is compared, token by token, with what a runner answers
that has the model for itself. Memory, threads and open files are looked at all the time, and at the end are
what they were after the first quarter. Time in which the process is stopped does not count. Prints tables;
exit code 1 where anything failed. Linux.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import gc
import random
import statistics
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from executorch_mm import (
    BusyError,
    ExecutorchMMError,
    GenerationConfig,
    MultimodalModel,
    MultimodalRunner,
    Session,
    make_token_input,
)
from executorch_mm.demo import make_scene, render
from executorch_mm.inputs import Prompt

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS / "python" / "support"))
from number_tokenizer import NumberTokenizer  # noqa: E402

CONFIG = GenerationConfig(max_new_tokens=12, temperature=0.8, seed=5, ignore_eos=True)
GUESSING = dataclasses.replace(CONFIG, prompt_lookup_num_tokens=4)
IMAGES = [
    *(f"<|user|>{number} circles<|end|><|assistant|>" for number in range(6)),
    *(
        ["<|user|>", render(make_scene(seed=seed)), "how many shapes are there?<|end|><|assistant|>"]
        for seed in (7, 8)
    ),
    "red " * 60,
]
COMMON = [3 + number * number % 53 for number in range(24)]  # what prompts of the text model begin with
TEXTS = [make_token_input([*COMMON[: 24 - number % 3], 5 + number, 9, 5 + number]) for number in range(9)]
CACHES: dict[str, Any] = {"prefix_cache_bytes": 1 << 20, "encoder_cache_bytes": 1 << 20}
GROWTH_MIB = 48  # from a quarter of the time to its end
LOOKS = 40  # at memory, threads and open files
STOPPED_SECONDS = 5.0  # without a breath: the process was stopped


class Use(NamedTuple):
    """What the process has."""

    seconds: float
    mib: float
    threads: int
    files: int


def use(seconds: float) -> Use:
    status = dict(
        line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line
    )
    files = sum(1 for _ in Path("/proc/self/fd").iterdir())
    return Use(seconds, int(status["VmRSS"].split()[0]) / 1024, int(status["Threads"]), files)


class Side:
    """A load, prompts for it, and the two answers to each of a runner that is alone.

    Args:
        loaded: What is shared.
        runner: The same model for itself.
        prompts: For it.
        can_guess: Whether the model checks several tokens in a call.
    """

    def __init__(
        self, loaded: MultimodalModel, runner: MultimodalRunner, prompts: list[Prompt], *, can_guess: bool
    ) -> None:
        self.model = loaded
        self.prompts = prompts
        self.can_guess = can_guess
        self.expected: list[list[list[int]]] = []
        with runner:
            for prompt in prompts:
                runner.reset()
                turns = [runner.generate_result(prompt, CONFIG), runner.generate_result([], CONFIG)]
                self.expected.append([list(turn.token_ids) for turn in turns])


def sides() -> list[Side]:
    """The two loads."""
    path = TESTS / "models" / "kvcache" / "flat.pte"
    return [
        Side(
            MultimodalModel.demo(num_threads=1, **CACHES),
            MultimodalRunner.demo(num_threads=1),
            list(IMAGES),
            can_guess=False,
        ),
        Side(
            MultimodalModel(path, NumberTokenizer(), num_threads=1, **CACHES),
            MultimodalRunner(path, NumberTokenizer(), num_threads=1),
            list(TEXTS),
            can_guess=True,
        ),
    ]


class Soak:
    """What is asked, and what came of it."""

    def __init__(self, seconds: float, folder: Path) -> None:
        self.tries: Counter[str] = Counter()
        self.failures: list[str] = []
        self.lock = threading.Lock()
        self.folder = folder
        self.seconds = seconds
        self.has_ended = False
        self.uses: list[Use] = []
        self.sides = sides()

    def watch(self) -> None:
        """The clock, which stands still while the process is stopped."""
        passed, last = 0.0, time.monotonic()
        while passed < self.seconds:
            time.sleep(0.1)
            now = time.monotonic()
            passed += min(now - last, STOPPED_SECONDS)
            last = now
            if passed >= len(self.uses) * self.seconds / LOOKS:
                self.uses.append(use(passed))
        self.has_ended = True

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

    def answer(self, side: Side, session: Session, rng: random.Random) -> None:
        number = rng.randrange(len(side.prompts))
        config = GUESSING if side.can_guess and rng.random() < 0.3 else CONFIG
        first = session.generate_result(side.prompts[number], config)
        self.same("answers", list(first.token_ids), side.expected[number][0])

    def fork(self, side: Side, session: Session, rng: random.Random) -> None:
        number = rng.randrange(len(side.prompts))
        session.generate_result(side.prompts[number], CONFIG)
        with session.fork() as fork:
            for each in rng.sample([session, fork], 2):
                found = each.generate_result([], CONFIG)
                self.same("forks", list(found.token_ids), side.expected[number][1])

    def save(self, side: Side, session: Session, rng: random.Random) -> None:
        number = rng.randrange(len(side.prompts))
        session.generate_result(side.prompts[number], CONFIG)
        path = self.folder / f"{threading.get_ident()}.emm" if rng.random() < 0.5 else None
        saved = session.save(path)
        session.reset()
        session.generate_result(side.prompts[0], CONFIG, max_new_tokens=2)
        with side.model.session() as other:
            session = rng.choice([session, other])
            session.restore(saved if path is None else path)
            found = session.generate_result([], CONFIG)
        kind = "saved in memory" if path is None else "saved in a file"
        self.same(kind, list(found.token_ids), side.expected[number][1])

    def leave(self, side: Side, session: Session, rng: random.Random) -> None:
        number = rng.randrange(len(side.prompts))
        stream = session.stream(side.prompts[number], CONFIG)
        for _ in range(rng.randrange(1, 5)):
            next(stream, None)
        stream.close()
        if stream.result is not None:
            self.start_of("left", stream.result.token_ids, side.expected[number][0])

    def run_out(self, side: Side, session: Session, rng: random.Random) -> None:
        number = rng.randrange(len(side.prompts))
        found = session.generate_result(side.prompts[number], CONFIG, timeout=rng.random())
        self.start_of("out of time", found.token_ids, side.expected[number][0])

    def stop(self, side: Side, session: Session, rng: random.Random) -> None:
        number, last = rng.randrange(len(side.prompts)), rng.randrange(1, 10)
        calls: list[None] = []

        def count(*_: object) -> None:
            calls.append(None)
            if len(calls) == last:
                session.stop()

        found = session.generate_result(side.prompts[number], CONFIG, logits_processors=[count])
        self.start_of("stopped", found.token_ids, side.expected[number][0])

    def close(self, side: Side, session: Session, rng: random.Random) -> None:
        number = rng.randrange(len(side.prompts))
        doomed = side.model.session()

        def close() -> None:
            with contextlib.suppress(BusyError):  # one that answers stays open
                doomed.close()

        closing = threading.Timer(rng.random() / 2, close)
        closing.start()
        try:
            found = doomed.generate_result(side.prompts[number], CONFIG)
            self.start_of("closed", found.token_ids, side.expected[number][0])
        except ExecutorchMMError:
            self.expect("closed: a typed error", True)
        finally:
            closing.join()
            doomed.close()
        self.answer(side, session, rng)

    def work(self, seed: int) -> None:
        """A thread."""
        rng = random.Random(seed)
        kinds: list[Callable[[Side, Session, random.Random], None]] = [
            self.answer, self.answer, self.fork, self.save, self.leave, self.run_out, self.stop, self.close,
        ]  # fmt: skip
        while not self.has_ended:
            side = rng.choice(self.sides)
            try:
                with side.model.session(priority=rng.randrange(2)) as session:
                    for _ in range(rng.randrange(1, 4)):
                        session.reset()
                        rng.choice(kinds)(side, session, rng)
            except BaseException:  # noqa: BLE001 (the run goes on)
                self.expect("threads: nothing else comes out", False, traceback.format_exc()[-500:])

    async def ask(self, seed: int) -> None:
        """A task."""
        rng = random.Random(seed)
        while not self.has_ended:
            side = rng.choice(self.sides)
            number = rng.randrange(len(side.prompts))
            prompt, expected = side.prompts[number], side.expected[number][0]
            try:
                with side.model.session() as session:
                    if rng.random() < 0.5:
                        found = await session.agenerate_result(prompt, CONFIG)
                        self.same("tasks", list(found.token_ids), expected)
                    else:
                        try:
                            await asyncio.wait_for(session.agenerate_result(prompt, CONFIG), 3 * rng.random())
                        except (asyncio.TimeoutError, TimeoutError):
                            self.expect("tasks: cancelled", True)
                        session.reset()
                        found = await session.agenerate_result(prompt, CONFIG)
                        self.same("cancelled tasks, then", list(found.token_ids), expected)
            except Exception:  # noqa: BLE001
                self.expect("tasks: nothing else comes out", False, traceback.format_exc()[-500:])

    def expect_no_growth(self) -> None:
        """The last quarter has what the second one had."""
        early, late = self.uses[LOOKS // 4 : LOOKS // 2], self.uses[-LOOKS // 4 :]
        for what, allowed in (("mib", GROWTH_MIB), ("threads", 64), ("files", 256)):
            before, after = (statistics.median(getattr(one, what) for one in part) for part in (early, late))
            self.expect(f"{what}: flat", after - before < allowed, f"{before:.0f} became {after:.0f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--threads", type=int, default=64)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return run(Soak(arguments.seconds, Path(folder)), arguments)


def run(soak: Soak, arguments: argparse.Namespace) -> int:
    start = time.monotonic()
    before = use(0)
    threads = [
        threading.Thread(target=soak.work, args=[arguments.seed * 1000 + number])
        for number in range(arguments.threads)
    ]
    for thread in [*threads, watch := threading.Thread(target=soak.watch)]:
        thread.start()

    async def tasks() -> None:
        seeds = range(arguments.seed * 1000 + 500, arguments.seed * 1000 + 500 + arguments.tasks)
        await asyncio.gather(*(soak.ask(seed) for seed in seeds))

    asyncio.run(tasks())
    for thread in [*threads, watch]:
        thread.join()
    soak.expect_no_growth()
    for side in soak.sides:
        info = side.model.cache_info()
        sys.stdout.write(f"{info}\n")
        soak.expect("prefix cache: used", info.prefix_hits > 0)
        soak.expect("requests: none is left", side.model.num_requests == 0, str(side.model.num_requests))
        side.model.close()
    gc.collect()
    after = use(0)
    soak.expect("threads: none is left", after.threads <= before.threads + 1, f"{before} {after}")
    soak.expect("files: none is left", after.files <= before.files, f"{before} {after}")
    sys.stdout.write(f"seed {arguments.seed}: {arguments.threads} threads and {arguments.tasks} tasks, ")
    sys.stdout.write(f"{soak.seconds:.0f} s in {time.monotonic() - start:.0f}\n\n")
    sys.stdout.write("| seconds | MiB | threads | files |\n|---:|---:|---:|---:|\n")
    for one in soak.uses[:: LOOKS // 10]:
        sys.stdout.write(f"| {one.seconds:.0f} | {one.mib:.0f} | {one.threads} | {one.files} |\n")
    sys.stdout.write("\n| promise | tries |\n|---|---:|\n")
    for promise, tries in sorted(soak.tries.items()):
        sys.stdout.write(f"| {promise} | {tries:,} |\n")
    sys.stdout.write("\n".join(soak.failures[:20]) + f"\n{len(soak.failures)} failures\n")
    return 1 if soak.failures else 0


if __name__ == "__main__":
    sys.exit(main())
