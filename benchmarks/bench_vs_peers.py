"""executorch_mm beside OpenVINO, llama.cpp or onnxruntime-genai on one model, in alternating processes.

    python benchmarks/peer_models.py MODELS        # once: the same weights for each peer, see there
    python benchmarks/bench_vs_peers.py FOLDER --peer PEER --model MODEL --python PYTHON

MODEL is MODELS/SmolLM2-Q4_0.gguf for llama.cpp, MODELS/openvino for openvino, MODELS/onnx for
onnxruntime-genai.

FOLDER is SmolLM2-135M-Instruct's export with 4-bit weights (tools/smollm2), PYTHON has the peer (pip install
xllamacpp openvino-genai onnxruntime-genai numpy) and, to say what the model holds, gguf, openvino or onnx;
this interpreter has executorch_mm. Both sides read the same token ids, each prompt once, and write the same
number of tokens, greedily, which is asserted by what each counts itself; texts differ as the quantisations
do. Tokens/s of prefill: from the request to the first token. Ratios are of the same round; medians.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

from bench_vs_upstream import WORDS, Row, compared, format_row, measure

WORKER = Path(__file__).with_name("vs_peers_worker.py")
PEERS = ("openvino", "llama.cpp", "onnxruntime-genai")
FIRST = 28
PREFILL = (128, 512, 1000)
DECODE = (28, 508, 990)  # tokens of context before
REPEATS = 2  # of which the better counts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=lambda path: Path(path).resolve())
    parser.add_argument("--peer", choices=PEERS, required=True)
    parser.add_argument("--model", type=lambda path: Path(path).resolve(), required=True, help="the peer's")
    parser.add_argument("--python", default=sys.executable, help="an interpreter with the peer")
    parser.add_argument("--ours", metavar="TEXT", help="how FOLDER is quantised (default: its name)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=32, help="decoded behind the first one")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()

    chance = random.Random(given.seed)
    ids = token_ids(given.folder)
    sides = {
        "ours": (sys.executable, {"side": "ours", "model": str(given.folder)}),
        given.peer: (given.python, {"side": given.peer, "model": str(given.model)}),
    }
    asked = {"held": given.peer, "model": str(given.model)}
    held = {
        "ours": given.ours or given.folder.name,
        given.peer: shares(measure(given.python, asked, WORKER)),
    }
    document: dict[str, Any] = {"machine": machine(), "date": str(date.today()), "held": held, "threads": {}}
    for threads in given.threads:
        rounds: list[dict[str, Any]] = []
        for _ in range(given.rounds):
            job = {**prompts(ids, chance), "threads": threads, "tokens": given.tokens}
            seen = {
                side: measure(sides[side][0], {**job, **sides[side][1]}, WORKER)
                for side in chance.sample(sorted(sides), len(sides))
            }
            check_counts(seen)
            rounds.append(seen)
        rows = compare(rounds, given.peer)
        document["threads"][threads] = {"rows": [asdict(row) for row in rows], "rounds": rounds}
        print(f"{document['machine']}, {threads} thread(s), {given.rounds} rounds, {date.today()}")
        for side, text in held.items():
            print(f"{side}: {rounds[0][side]['version']}; {text}")
        print(f"{'':34}{'ours':>10}{given.peer:>19}{'ratio':>9}  (rounds)")
        for row in rows:
            print(format_row(row, 19), flush=True)
    if given.json:
        given.json.write_text(json.dumps(document, indent=1) + "\n")


def machine() -> str:
    """Processor and what of its instruction sets matters for linear layers."""
    cpu = Path("/proc/cpuinfo")
    fields = dict(
        [part.strip() for part in line.split(":", 1)]
        for line in (cpu.read_text() if cpu.is_file() else "").splitlines()
        if ":" in line
    )
    flags = fields.get("flags", "").split()
    sets = [name for name in ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8") if name in flags]
    named = [f"{name} {fields[name]}" for name in ("cpu family", "model") if name in fields]
    words = [platform.machine(), fields.get("model name", platform.processor()), *named, *sets]
    return f"{' '.join(words)}, {os.cpu_count()} cores"


def token_ids(folder: Path) -> list[int]:
    from executorch_mm import load_tokenizer

    return load_tokenizer(folder / "tokenizer.json").encode(WORDS * 40)


def prompts(ids: list[int], chance: random.Random) -> dict[str, Any]:
    """Token ids of a round's requests: pieces of the text from other places each, so that no cache helps."""
    lengths = [FIRST, *PREFILL * REPEATS, *DECODE * REPEATS]
    period = len(ids) // 40
    starts = iter(chance.sample(range(period), len(lengths)))

    def piece(length: int) -> list[int]:
        start = next(starts)
        return ids[start : start + length]

    return {
        "first": piece(FIRST),
        "prefill": {length: [piece(length) for _ in range(REPEATS)] for length in PREFILL},
        "decode": {length: [piece(length) for _ in range(REPEATS)] for length in DECODE},
    }


def check_counts(seen: dict[str, Any]) -> None:
    """Both sides have read and written what they were asked to, by their own count."""
    counts = {side: result["counts"] for side, result in seen.items()}
    for side, requests in counts.items():
        for length, count, read, written in requests:
            if (read, written) != (length, count):
                raise SystemExit(f"{side}: {read} and {written} tokens instead of {length} and {count}")
    if len({json.dumps(requests) for requests in counts.values()}) != 1:
        raise SystemExit("the sides were asked for other numbers of tokens")


def compare(rounds: list[dict[str, Any]], peer: str) -> list[Row]:
    def row(label: str, value: Callable[[dict[str, Any]], float]) -> Row:
        return compared(rounds, peer, label, value, more_is_better=True)

    rows = [
        row(f"prefill of {n}, tokens/s", lambda side, n=n: n / side["prefill_s"][str(n)]) for n in PREFILL
    ]
    rows += [
        row(f"decode after {n}, tokens/s", lambda side, n=n: 1 / side["token_s"][str(n)]) for n in DECODE
    ]
    return [
        *rows,
        row("import and load, s (less: better)", lambda side: side["load_s"]),
        row("start to first token, s (less)", lambda side: side["first_token_s"]),
        row("peak memory, MiB (less)", lambda side: side["peak_mib"]),
    ]


def shares(held: dict[str, int]) -> str:
    """The types of a model's weights, the most common first."""
    whole = sum(held.values())
    parts = sorted(held.items(), key=lambda part: -part[1])
    return ", ".join(f"{100 * count / whole:.1f} % {kind}" for kind, count in parts if count >= whole / 100)


if __name__ == "__main__":
    main()
