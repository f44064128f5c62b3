"""A conversation from a file against reading its tokens again, and what rounded caches change.

    python benchmarks/bench_state_file.py MODEL_FOLDER [--positions 900] [--rounds 5]

MODEL_FOLDER holds model.pte and its tokenizer. In each round the prompt is read, saved and restored in turns,
by one runner; "first" is the first restore of a runner that has just been loaded, which makes the fingerprint
of the model. The effect of a dtype: 64 tokens that the exact state answers greedily are forced on the state
that was restored; "same" counts those that it would have chosen too, "ln p" is the mean change of their
logarithms.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median
from typing import get_args

from executorch_mm import MultimodalRunner, make_token_input
from executorch_mm._engine.state_file import StateDType

TEXT = Path(__file__).resolve().parents[1] / "docs" / "architecture.md"


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--positions", type=int, default=900)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    load = (arguments.folder / "model.pte", arguments.folder)
    with MultimodalRunner(*load) as runner, tempfile.TemporaryDirectory() as folder:
        ids = runner.tokenizer.encode(TEXT.read_text(encoding="utf-8"))[: arguments.positions]

        def read() -> None:
            runner.reset()
            runner.prefill(make_token_input(ids))

        read()
        expected = runner.generate_result([], max_new_tokens=64, ignore_eos=True, logprobs=0)
        print("dtype        MB   save ms  restore ms  first ms  restore/read  first/read   same   ln p")
        for dtype in get_args(StateDType):
            path = Path(folder) / f"{dtype}.emm"
            rows = []
            for _ in range(arguments.rounds):
                reading = seconds(read)
                saving = seconds(lambda path=path, dtype=dtype: runner.save(path, dtype=dtype))
                runner.reset()
                restoring = seconds(lambda path=path: runner.restore(path))
                with MultimodalRunner(*load) as other:
                    first = seconds(lambda path=path, other=other: other.restore(path))
                rows.append((saving, restoring, first, restoring / reading, first / reading))
            got = runner.generate_result(
                [], max_new_tokens=64, ignore_eos=True, logprobs=1, forced_tokens=expected.token_ids
            )
            same = sum(
                top[0][0] == token for top, token in zip(got.top_logprobs, expected.token_ids, strict=True)
            )
            change = mean(
                after - before for after, before in zip(got.logprobs, expected.logprobs, strict=True)
            )
            saving, restoring, first, *ratios = (median(column) for column in zip(*rows, strict=True))
            times = f"{saving * 1e3:8.1f}  {restoring * 1e3:10.1f}  {first * 1e3:8.1f}"
            size = path.stat().st_size / 1e6
            shown = f"{ratios[0]:12.3f} {ratios[1]:11.3f}  {same:3}/64  {change:+.4f}"
            print(f"{dtype:8} {size:6.1f}  {times}  {shown}", flush=True)


if __name__ == "__main__":
    main()
