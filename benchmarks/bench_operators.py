"""Times our attention kernel and upstream's, in one process, interleaved, over the shapes of known models.

Both kernels are called through the same C function with the same arguments (upstream's comes from the
registry of the ExecuTorch that `executorch.extension.llm.custom_ops` has loaded, so torch's dispatcher costs
it nothing), and each has a thread pool of the same size. Decoding rotates through several caches, as a model
with many layers does. Every result is compared before it is timed.

Needs torch, executorch and the operators' test library (EMM_OPS_TESTLIB, or built under build/).

    python benchmarks/bench_operators.py --threads 1 2 --json operators.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "python" / "support"))

from oplib import OK, Argument, OpLibrary  # noqa: E402

SDPA = "llama::custom_sdpa.out"
MODELS = {  # query heads, key/value heads, head size
    "SmolLM2-135M": (9, 3, 64),
    "Llama-3.2-1B": (32, 8, 64),
    "Gemma-3": (4, 1, 256),
}
DECODE_LENGTHS = (128, 1024, 4096, 16384)
PREFILLS = ((16, 16), (128, 128), (512, 512), (128, 1024))  # tokens, cache length after them
LARGEST_ROTATION = 64 << 20  # bytes of all caches together, above any last-level cache but not above memory
ROUNDS = 9


@dataclass
class Row:
    """One comparison; times are medians over rounds of the median call, in microseconds."""

    model: str
    dtype: str
    threads: int
    tokens: int
    cache: int
    ours_us: float
    upstream_us: float
    ratio: float  # median over rounds of upstream / ours
    lowest_ratio: float
    highest_ratio: float


def find_library() -> Path:
    """The test library, from EMM_OPS_TESTLIB or build/."""
    if named := os.environ.get("EMM_OPS_TESTLIB"):
        return Path(named)
    found = [p for p in (ROOT / "build").rglob("libemm_ops_testlib.*") if p.suffix in {".so", ".dylib"}]
    if not found:
        sys.exit(
            "libemm_ops_testlib was not found: configure with -DEMM_BUILD_TESTS=ON or set EMM_OPS_TESTLIB"
        )
    return max(found, key=lambda path: path.stat().st_mtime)


def load_both() -> OpLibrary:
    """Our library, with upstream's kernels found in the libraries of the installed executorch."""
    import executorch
    import torch
    from executorch.extension.llm.custom_ops import custom_ops  # noqa: F401

    torch.set_num_threads(1)
    folder = Path(next(iter(executorch.__path__))) / "lib"
    library = OpLibrary(find_library())
    library.load_upstream(folder / "libexecutorch.so", folder / "libexecutorch_threadpool.so")
    return library


def argument_sets(model: str, dtype: str, tokens: int, cache: int) -> list[list[Argument]]:
    """The same query with as many caches as fit into LARGEST_ROTATION (one for prefill)."""
    heads, kv_heads, size = MODELS[model]
    rng = np.random.default_rng(cache * 31 + tokens)
    q = rng.standard_normal((1, tokens, heads, size), np.float32).astype(dtype)
    shape = (1, cache, kv_heads, size)
    each = 2 * int(np.prod(shape)) * np.dtype(dtype).itemsize
    count = min(30, max(1, LARGEST_ROTATION // each)) if tokens == 1 else 1
    sets: list[list[Argument]] = []
    for _ in range(count):
        k, v = (rng.standard_normal(shape, np.float32).astype(dtype) for _ in range(2))
        sets.append([q, k, v, cache - tokens, None, 0.0, True, None, np.zeros_like(q)])
    return sets


def compare(library: OpLibrary, arguments: list[Argument], dtype: str) -> None:
    """Stops the program where the two kernels do not agree."""
    results = []
    for upstream in (False, True):
        out = np.zeros_like(np.asarray(arguments[-1]))
        if library.call(SDPA, [*arguments[:-1], out], upstream).code != OK:
            sys.exit(f"a call failed ({'upstream' if upstream else 'ours'})")
        results.append(out.astype(np.float32))
    np.testing.assert_allclose(*results, atol=2e-5 if dtype == "float32" else 4e-3)


def measure(
    library: OpLibrary, model: str, dtype: str, threads: int, tokens: int, cache: int, pause: float
) -> Row:
    """Times both kernels in turns."""
    sets = argument_sets(model, dtype, tokens, cache)
    compare(library, sets[0], dtype)
    repeats = int(np.clip(40e6 / library.time(SDPA, sets, 3).min(), 3, 200))
    times = np.zeros((2, ROUNDS))
    for turn in range(ROUNDS):
        for which in (0, 1) if turn % 2 == 0 else (1, 0):
            time.sleep(pause)  # the other pool's threads stop spinning
            library.time(SDPA, sets, 2, upstream=which == 1)
            times[which, turn] = np.median(library.time(SDPA, sets, repeats, upstream=which == 1)) / 1e3
    ratios = times[1] / times[0]
    ours, upstream = np.median(times, axis=1)
    spread = float(ratios.min()), float(ratios.max())
    return Row(
        model, dtype, threads, tokens, cache, float(ours), float(upstream), float(np.median(ratios)), *spread
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--dtype", choices=["float32", "float16"], default="float32")
    parser.add_argument("--isa", default="", help="an instruction set to force, such as avx2")
    parser.add_argument("--pause", type=float, default=0.01, help="seconds between turns")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    return parser.parse_args()


def main() -> None:
    """Prints the table, and writes it where --json says."""
    options = parse_arguments()
    library = load_both()
    if not library.force_isa(options.isa):
        sys.exit(f"this machine has no {options.isa}")
    machine = platform.processor() or platform.machine()
    print(f"{machine}, {os.cpu_count()} cores, {library.isa}, {options.dtype}")
    heading = (
        f"{'model':14}{'threads':>8}{'tokens':>8}{'cache':>8}{'ours us':>11}{'upstream us':>13}{'ratio':>8}"
    )
    print(f"{heading}  lowest..highest")
    rows = []
    for threads in options.threads:
        library.set_threads(threads)
        library.set_threads(threads, upstream=True)
        for model in options.models:
            problems = [(1, length) for length in DECODE_LENGTHS] + list(PREFILLS)
            for tokens, cache in problems:
                row = measure(library, model, options.dtype, threads, tokens, cache, options.pause)
                rows.append(row)
                print(
                    f"{model:14}{threads:8}{tokens:8}{cache:8}{row.ours_us:11.1f}{row.upstream_us:13.1f}"
                    f"{row.ratio:8.2f}  {row.lowest_ratio:.2f}..{row.highest_ratio:.2f}",
                    flush=True,
                )
    if options.json:
        document = {
            "isa": library.isa,
            "cores": os.cpu_count(),
            "load_average": os.getloadavg(),
            "rows": [asdict(row) for row in rows],
        }
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
