"""Uses models in every hard way for as long as is asked, and says which promise was broken how often.

    python tests/soak/soak.py [--seconds 60] [--seed 1]

Rounds follow each other with threads, tasks, signals at random moments, forks, cancellations, closes, little
memory, few descriptors, full disks and killed processes. After each round the runner answers as a fresh one
did at the beginning; at the end its memory is what it was after the first rounds. Prints a table; exit code 1
where anything failed. Linux.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import executorch_mm
from executorch_mm import (
    BusyError,
    ExecutorchMMError,
    ForkError,
    GenerationConfig,
    IsolatedProcessError,
    MultimodalRunner,
)
from executorch_mm.demo import make_scene, render

FOLDER = Path(executorch_mm.__file__).parent / "models" / "tiny_vlm"
PROMPT = ["<|user|>", render(make_scene(seed=7)), "how many shapes are there?<|end|><|assistant|>"]
CONFIG = GenerationConfig(max_new_tokens=12)
SETTLED = 12  # rounds after which memory is measured for the first time
GROWTH_MIB = 48  # that the run may end with besides
CHILD_SECONDS = 120
UNSHARE = ["unshare", "--mount", "--map-root-user"]


class Interrupted(BaseException):
    """What the timer's signal raises."""


def answer(runner: MultimodalRunner) -> str:
    runner.reset()
    return runner.generate_text(PROMPT, CONFIG)


def resident_mib() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


class Soak:
    """The rounds, and what came of them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.tries: Counter[str] = Counter()
        self.failures: dict[str, list[str]] = {}
        self.runner = MultimodalRunner.demo(num_threads=1)
        self.expected = answer(self.runner)

    def expect(self, promise: str, holds: bool, what: str = "") -> None:
        self.tries[promise] += 1
        if not holds:
            self.failures.setdefault(promise, []).append(what)
            sys.stdout.write(f"FAILED {promise}: {what}\n")

    def round(self) -> None:
        kinds: list[Callable[[], None]] = [
            self.threads,
            self.tasks,
            self.signals,
            self.forks,
            self.callbacks,
            self.closes,
            self.isolated,
            self.children,
        ]
        kind = self.random.choice(kinds)
        try:
            kind()
        except BaseException:  # noqa: BLE001 (the run goes on, and tells in the end)
            self.expect(f"{kind.__name__}: nothing else comes out", False, traceback.format_exc()[-500:])
        same = "after each round the runner answers as a fresh one"
        try:
            self.expect(same, answer(self.runner) == self.expected, kind.__name__)
        except ExecutorchMMError as error:
            self.expect(same, False, f"{kind.__name__}: {error}")

    def _use(self, rng: random.Random) -> None:
        runner = self.runner
        uses: list[Callable[[], object]] = [
            lambda: runner.generate_text("how many", max_new_tokens=rng.randrange(1, 6)),
            lambda: runner.prefill("a red circle"),
            runner.reset,
            lambda: runner.rewind(rng.randrange(0, 4)),
            lambda: runner.restore(runner.save()),
            runner.stop,
            lambda: next(runner.stream("how many", max_new_tokens=9)),
            lambda: runner.position + len(runner.history),
            lambda: runner.generate_text([], max_new_tokens=1),
        ]
        rng.choice(uses)()

    def threads(self) -> None:
        unexpected: list[BaseException] = []

        def work(seed: int) -> None:
            rng = random.Random(seed)
            for _ in range(60):
                try:
                    self._use(rng)
                except ExecutorchMMError:  # noqa: PERF203
                    pass  # busy, full, an empty prompt, a position that is not there
                except StopIteration:
                    pass  # an answer without a token, after stop()
                except BaseException as error:  # noqa: BLE001
                    unexpected.append(error)

        threads = [threading.Thread(target=work, args=(self.random.getrandbits(32),)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        self.expect(
            "threads: typed errors only, and no thread waits for ever",
            not unexpected and not any(map(threading.Thread.is_alive, threads)),
            str(unexpected[:2]),
        )

    def tasks(self) -> None:
        async def request(delay: float) -> str:
            await asyncio.sleep(delay)
            if self.random.random() < 0.5:
                return await self.runner.agenerate_text("how many", max_new_tokens=4)
            async with contextlib.aclosing(self.runner.astream("how many", max_new_tokens=8)) as pieces:
                async for piece in pieces:
                    return piece
            return ""

        async def main() -> list[object]:
            tasks = [asyncio.create_task(request(self.random.random() / 50)) for _ in range(20)]
            for task in self.random.sample(tasks, 8):
                asyncio.get_running_loop().call_later(self.random.random() / 10, task.cancel)
            return list(await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 60))

        results = asyncio.run(main())
        wrong = [
            result
            for result in results
            if not isinstance(result, (str, asyncio.CancelledError, ExecutorchMMError))
        ]
        self.expect("tasks: each ends, cancelled or with its answer", not wrong, str(wrong[:2]))

    def signals(self) -> None:
        def interrupt(_number: int, _frame: FrameType | None) -> None:
            raise Interrupted

        before = signal.signal(signal.SIGALRM, interrupt)
        wrong = []
        try:
            for _ in range(15):
                try:
                    try:
                        signal.setitimer(signal.ITIMER_REAL, self.random.random() / 40)
                        self._use(self.random)
                        for _ in self.runner.stream("how many", max_new_tokens=6):
                            pass
                    finally:
                        signal.setitimer(signal.ITIMER_REAL, 0)
                except Interrupted:  # noqa: PERF203
                    pass
                except BusyError as error:
                    wrong.append(error)
                except (ExecutorchMMError, StopIteration):
                    pass
        finally:
            signal.signal(signal.SIGALRM, before)
        self.expect("signals: an interruption leaves the runner free", not wrong, str(wrong[:2]))

    def forks(self) -> None:
        stream = self.runner.stream("how many", max_new_tokens=5, ignore_eos=True)
        next(stream, None)
        process = os.fork()
        if process == 0:
            code = 1
            with contextlib.suppress(BaseException):
                try:
                    self.runner.generate_text("a")
                except ForkError:
                    code = 0
            os._exit(code)
        _, status = os.waitpid(process, 0)
        stream.close()
        self.expect("forks: a child is refused, and its parent goes on", status == 0, str(status))

    def callbacks(self) -> None:
        class Own(Exception):  # noqa: N818
            pass

        kinds = [Own, StopIteration, MemoryError, GeneratorExit, KeyboardInterrupt]
        wrong = []
        for kind in kinds:

            def raising(*_: object, kind: type[BaseException] = kind) -> None:
                raise kind("mine")

            name = self.random.choice(["token_callback", "progress", "processor"])
            options = {"logits_processors": [raising]} if name == "processor" else {name: raising}
            try:
                self.runner.generate("how many", max_new_tokens=3, **options)  # type: ignore[arg-type]
            except (kind, ExecutorchMMError):
                pass
            except BaseException as error:  # noqa: BLE001
                wrong.append((name, kind, error))
        self.expect("callbacks: what they raise comes out, or a typed error", not wrong, str(wrong[:2]))

    def closes(self) -> None:
        runner = MultimodalRunner(FOLDER / "model.pte", num_threads=1)
        stream = runner.stream("how many", max_new_tokens=50, ignore_eos=True)
        next(stream, None)
        outcomes = []

        def close() -> None:
            try:
                runner.close()
                outcomes.append("closed")
            except BusyError:
                outcomes.append("busy")

        closer = threading.Thread(target=close)
        closer.start()
        closer.join(60)
        stream.close()
        runner.close()
        try:
            runner.generate_text("a")
            outcomes.append("answered")
        except ExecutorchMMError:
            pass
        self.expect("closes: refused while in use, final afterwards", outcomes == ["busy"], str(outcomes))

    def isolated(self) -> None:
        before = _children()
        runner = MultimodalRunner(FOLDER / "model.pte", num_threads=1, isolate=True)
        (process,) = _children() - before
        same = answer(runner) == self.expected
        number = self.random.choice([signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS])
        timer = threading.Timer(self.random.random() / 20, os.kill, (process, number))
        timer.start()
        said = False
        for _ in range(2000):
            try:
                answer(runner)
            except IsolatedProcessError:  # noqa: PERF203
                said = True
                break
        timer.join()
        runner.close()
        gone = not _children() - before
        self.expect(
            "isolated models: the same answer, and a killed process is a typed error",
            same and said and gone,
            f"{same=} {said=} {gone=}",
        )

    def children(self) -> None:
        """What changes a whole process happens in one of its own."""
        kind = self.random.choice(sorted(CHILDREN))
        if kind == "full_tmpfs" and not can_mount():
            kind = "full_disk"
        number = self.random.randrange(1000)
        command = [sys.executable, __file__, "--child", kind, str(number)]
        if kind == "full_tmpfs":
            command = [*UNSHARE, *command]
        done = subprocess.run(command, capture_output=True, text=True, timeout=CHILD_SECONDS, check=False)
        outcome = done.stdout.strip().splitlines()[-1:] or [""]
        holds = done.returncode == 0 and outcome[0].startswith("ok")
        self.expect(
            f"{CHILDREN[kind].__doc__}",
            holds,
            f"{kind} {number}: {done.returncode} {done.stdout[-200:]} {done.stderr[-300:]}",
        )


def _children() -> set[int]:
    tasks = Path("/proc/self/task").glob("*/children")
    found: set[int] = set()
    for task in tasks:
        with contextlib.suppress(OSError):  # a thread that has ended
            found |= {int(number) for number in task.read_text().split()}
    return found


def _limited(limit: int, least: int, step: int) -> Iterator[str]:
    """Loads and answers under a limit that is raised again, until there is enough."""
    hard = resource.getrlimit(limit)[1]
    fresh = answer(MultimodalRunner.demo(num_threads=1))
    for value in range(least, least + 60 * step, step):
        resource.setrlimit(limit, (value, hard))
        try:
            with MultimodalRunner.demo(num_threads=1) as runner:
                text = answer(runner)
        except (ExecutorchMMError, MemoryError) as error:
            yield type(error).__name__
            continue
        finally:
            resource.setrlimit(limit, (hard, hard))
        assert text == fresh, text
        yield "answer"
        return


def little_memory(number: int) -> str:
    """little memory: loading and answering end in MemoryError, a typed error or the answer"""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    return " ".join(_limited(resource.RLIMIT_AS, pages + (number % 16 << 17), 3 << 20))


def few_descriptors(number: int) -> str:
    """few descriptors: loading ends in a typed error or the answer"""
    del number
    return " ".join(_limited(resource.RLIMIT_NOFILE, len(list(Path("/proc/self/fd").iterdir())) - 1, 1))


def full_disk(number: int) -> str:
    """full disks: what cannot be written is a typed error, and what was there stays"""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with tempfile.TemporaryDirectory() as folder, MultimodalRunner.demo(num_threads=1) as runner:
        path = Path(folder) / "chat.emm"
        runner.prefill("a red circle")
        runner.save(path)
        good = path.read_bytes()
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        outcomes = []
        for size in (0, 1 + number % 4096, 65_536):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
            try:
                runner.save(path)
                outcomes.append("saved")
            except ExecutorchMMError as error:
                outcomes.append(type(error).__name__)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
            assert path.read_bytes() == good
        profiled = MultimodalRunner(FOLDER / "model.pte", num_threads=1, profile_path="/dev/full")
        profiled.generate_text("a", max_new_tokens=1)
        try:
            profiled.close()
            outcomes.append("wrote to a full device")
        except ExecutorchMMError as error:
            outcomes.append(type(error).__name__)
        assert outcomes[-1] == "InputError", outcomes
        assert os.listdir(folder) == ["chat.emm"]  # noqa: PTH208
        runner.restore(path)
    return " ".join(outcomes)


@functools.cache
def can_mount() -> bool:
    """Whether a process may have file systems of its own."""
    if shutil.which(UNSHARE[0]) is None:
        return False
    return subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0


def full_tmpfs(number: int) -> str:
    """full tmpfs: what cannot be written is a typed error, and what was there stays"""
    outcomes = []
    with tempfile.TemporaryDirectory() as folder, MultimodalRunner.demo(num_threads=1) as runner:
        mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder]
        subprocess.run(mount, check=True)
        try:
            path, filler = Path(folder) / "chat.emm", Path(folder) / "filler"
            runner.prefill("a red circle")
            runner.save(path)
            good = path.read_bytes()
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            os.truncate(filler, max(0, filler.stat().st_size - number * len(good) // 1000))
            try:
                runner.save(path)
                outcomes.append("saved")
            except ExecutorchMMError as error:
                outcomes.append(type(error).__name__)
            assert outcomes == ["StateFileError"], outcomes
            assert path.read_bytes() == good
            assert sorted(os.listdir(folder)) == ["chat.emm", "filler"]  # noqa: PTH208
            filler.unlink()
            runner.save(path)
            runner.restore(path)
        finally:
            subprocess.run(["umount", folder], check=True)
    return " ".join(outcomes)


def many_processes(number: int) -> str:
    """killed callers: no process of an isolated model stays behind"""
    program = (
        "import sys, time\nfrom executorch_mm import MultimodalRunner\n"
        "runner = MultimodalRunner(sys.argv[1], isolate=True, num_threads=1)\n"
        "from pathlib import Path\n"
        "tasks = Path('/proc/self/task').glob('*/children')\n"
        "print(*[n for task in tasks for n in task.read_text().split()], flush=True)\n"
        "while True: runner.reset(); runner.generate_text('how many', max_new_tokens=9)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(FOLDER / "model.pte")], stdout=subprocess.PIPE, text=True
    ) as caller:
        assert caller.stdout is not None
        process = Path("/proc") / caller.stdout.readline().strip()
        time.sleep(number / 2000)
        caller.kill()
    deadline = time.monotonic() + 60
    while process.exists() and "Z" not in (process / "stat").read_text().rpartition(")")[2][:3]:
        assert time.monotonic() < deadline, "it is still there"
        time.sleep(0.02)
    return "gone"


CHILDREN: dict[str, Callable[[int], str]] = {
    "little_memory": little_memory,
    "few_descriptors": few_descriptors,
    "full_disk": full_disk,
    "full_tmpfs": full_tmpfs,
    "many_processes": many_processes,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        kind, number = arguments.child
        sys.stdout.write(f"ok {CHILDREN[kind](int(number))}\n")
        return 0
    soak = Soak(arguments.seed)
    start, rounds, first = time.monotonic(), 0, 0.0
    while time.monotonic() - start < arguments.seconds:
        soak.round()
        rounds += 1
        if rounds == SETTLED:
            first = resident_mib()
    last = resident_mib()
    if rounds > SETTLED:
        flat = "memory: flat after the first rounds"
        soak.expect(flat, last - first < GROWTH_MIB, f"{first:.0f} MiB became {last:.0f}")
    seconds = time.monotonic() - start
    sys.stdout.write(f"seed {arguments.seed}: {rounds} rounds in {seconds:.0f} s, ")
    sys.stdout.write(f"{first:.0f} MiB after {SETTLED} rounds, {last:.0f} at the end\n\n")
    sys.stdout.write("| promise | tries | failures |\n|---|---:|---:|\n")
    for promise, tries in sorted(soak.tries.items()):
        sys.stdout.write(f"| {promise} | {tries:,} | {len(soak.failures.get(promise, []))} |\n")
    sys.stdout.write(json.dumps(soak.failures, indent=1) + "\n" if soak.failures else "")
    return 1 if soak.failures else 0


if __name__ == "__main__":
    sys.exit(main())
