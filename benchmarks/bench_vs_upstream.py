"""executorch_mm against ExecuTorch's own Python runner on the same text model, in alternating processes.

    python benchmarks/bench_vs_upstream.py MODEL_FOLDER --upstream-python PYTHON [--json OUT] [--rounds 5]

MODEL_FOLDER holds model.pte and tokenizer.json. PYTHON has torch and executorch; this interpreter has
executorch_mm. `python benchmarks/draw_chart.py OUT chart.svg` draws the result.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

WORKER = Path(__file__).with_name("vs_upstream_worker.py")
PREFILL = (32, 128, 508, 512)
DECODE = {28: 64, 508: 64, 990: 32}  # tokens of context before -> tokens generated
WORDS = (
    "The harbour was quiet in the early morning and the boats lay side by side along the wall. A man in a "
    "blue coat walked slowly past the nets, counting them as he went, and wrote each number in a small book. "
)


@dataclass
class Row:
    """One comparison, medians over the rounds; `better` is how many times better ours is."""

    label: str
    ours: float
    upstream: float | None
    better: float | None
    lowest: float | None = None  # of the rounds' ratios
    highest: float | None = None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=lambda path: Path(path).resolve())
    parser.add_argument("--upstream-python", required=True)
    parser.add_argument("--threads", type=int, default=2, help="0: each side's own default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    texts = prompts_of(arguments.folder, sorted({*PREFILL, *DECODE}))
    job = {
        "folder": str(arguments.folder),
        "threads": arguments.threads,
        "first_prompt": texts[28],
        "prefill": {length: texts[length] for length in PREFILL},
        "decode": {length: [texts[length], count] for length, count in DECODE.items()},
    }
    pythons = {"ours": sys.executable, "upstream": arguments.upstream_python}
    rounds = [
        {side: measure(python, {**job, "side": side}) for side, python in pythons.items()}
        for _ in range(arguments.rounds)
    ]
    rows = compare(rounds)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {rounds[0]['ours']['threads']} threads"
    print(f"{machine}, {arguments.rounds} rounds, {date.today()}")
    print(f"{'':34}{'ours':>10}{'upstream':>10}{'better':>9}  (rounds)")
    for row in rows:
        print(format_row(row))
    for length in map(str, DECODE):
        same = all(
            r["ours"]["decode"][length]["text"] == r["upstream"]["decode"][length]["text"] for r in rounds
        )
        print(f"answers after {length} tokens: {'equal' if same else 'differ (see tools/smollm2)'}")
    if arguments.json:
        document = {
            "machine": machine,
            "date": str(date.today()),
            "rows": [asdict(row) for row in rows],
            "rounds": rounds,
        }
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


def prompts_of(folder: Path, lengths: list[int]) -> dict[int, str]:
    """Texts of exactly these numbers of tokens, all beginnings of one text."""
    from executorch_mm import load_tokenizer

    tokenizer = load_tokenizer(folder / "tokenizer.json")
    ids = tokenizer.encode(WORDS * 40)
    texts = {length: tokenizer.decode(ids[:length]) for length in lengths}
    for length, text in texts.items():
        if len(tokenizer.encode(text)) != length:
            raise SystemExit(f"no text of {length} tokens for this tokenizer")
    return texts


def measure(python: str, job: dict[str, Any], worker: Path = WORKER) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        order, result = Path(scratch) / "job.json", Path(scratch) / "result.json"
        order.write_text(json.dumps({**job, "started": time.time()}))
        command = [python, str(worker), str(order), str(result)]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, errors="replace", cwd=scratch)
        if done.returncode:
            raise SystemExit(f"{worker.name} ended with {done.returncode}:\n{done.stderr[-2000:]}")
        return dict(json.loads(result.read_text()))


def compared(
    rounds: list[dict[str, Any]],
    other: str,
    label: str,
    value: Callable[[dict[str, Any]], float],
    *,
    more_is_better: bool,
) -> Row:
    """Medians of `value` for ours and the other side, and of the ratio within a round."""
    ours, theirs = ([value(r[side]) for r in rounds] for side in ("ours", other))
    ratios = [a / b if more_is_better else b / a for a, b in zip(ours, theirs, strict=True)]
    medians = (statistics.median(ours), statistics.median(theirs), statistics.median(ratios))
    return Row(label, *medians, min(ratios), max(ratios))


def compare(rounds: list[dict[str, Any]]) -> list[Row]:
    def row(label: str, value: Callable[[dict[str, Any]], float], *, more_is_better: bool) -> Row:
        return compared(rounds, "upstream", label, value, more_is_better=more_is_better)

    rows = [
        row("import, s", lambda side: side["import_s"], more_is_better=False),
        row("load, s", lambda side: side["load_s"], more_is_better=False),
        row("cold start to first token, s", lambda side: side["cold_start_s"], more_is_better=False),
        row("peak memory, MiB", lambda side: side["peak_mib"], more_is_better=False),
    ]
    rows += [
        row(f"prefill of {n}, tokens/s", lambda side, n=n: n / side["prefill"][str(n)], more_is_better=True)
        for n in PREFILL
    ]
    rows += [
        row(
            f"decode after {n}, tokens/s",
            lambda side, n=n: 1 / side["decode"][str(n)]["token_s"],
            more_is_better=True,
        )
        for n in DECODE
    ]
    for n in map(str, DECODE):
        outside = statistics.median(r["ours"]["decode"][n]["outside_s"] for r in rounds)
        whole = statistics.median(r["ours"]["decode"][n]["token_s"] for r in rounds)
        rows.append(Row(f"outside the model after {n}, us/token", outside * 1e6, None, None))
        rows.append(Row(f"outside the model after {n}, percent", outside / whole * 100, None, None))
    return rows


def format_row(row: Row, width: int = 10) -> str:
    """A line of the table; `width` is that of the other side's column."""
    if row.upstream is None or row.better is None:
        return f"{row.label:38}{row.ours:6.2f}"
    return (
        f"{row.label:34}{row.ours:10.4g}{row.upstream:{width}.4g}{row.better:8.2f}x"
        f"  ({row.lowest:.2f}-{row.highest:.2f})"
    )


if __name__ == "__main__":
    main()
