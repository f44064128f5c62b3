"""Times our image processors and transformers' two, Pillow's and torchvision's, in one process, interleaved.

Each round prepares one photo-sized image with each processor in turn, so that whatever else runs on the
machine hits all of them; the ratios are medians over rounds of (theirs / ours), above 1 where ours is faster.
Results are compared before they are timed.

Needs transformers and torch; torchvision for the fast ones, which are left out without it (one that was built
for CUDA does beside a CPU torch: the operators that its start-up asks for are declared without their code).

    python benchmarks/bench_preprocess.py --rounds 50 --threads 2 --json preprocess.json
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from executorch_mm.preprocess import ImageProcessor
from executorch_mm.preprocess.image import parse_image_config

IMAGES = ((480, 640), (1080, 1920))  # height, width
CASES = {  # class, its arguments
    "224": ("CLIP", {}),
    "336": ("CLIP", {"size": {"shortest_edge": 336}, "crop_size": 336}),
    "896": ("Gemma3", {"size": {"height": 896, "width": 896}}),
}


@dataclass
class Row:
    """One comparison; times are medians over rounds, in milliseconds."""

    edge: str
    image: str
    ours_ms: float
    slow_ms: float
    fast_ms: float | None
    slow_ratio: float  # median over rounds of theirs / ours
    fast_ratio: float | None


def declare_torchvision_operators() -> torch.library.Library | None:
    """The operators of a torchvision whose library does not load, so that the rest of it can be imported."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return None
    source = (Path(spec.origin).parent / "_meta_registrations.py").read_text(encoding="utf-8")
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in sorted(set(re.findall(r'register_(?:fake|meta)\("(?:torchvision::)?(\w+)"\)', source))):
        library.define(f"{name}() -> ()")
    return library


def photo(height: int, width: int) -> Image.Image:
    """Smooth areas, edges and a little noise."""
    y, x = np.mgrid[:height, :width]
    planes = [
        128 + 100 * np.sin(x / 40 + c) * np.cos(y / 55 - c) + 20 * ((x // 64 + y // 48) % 2) for c in range(3)
    ]
    noise = np.random.default_rng(0).normal(0, 4, (height, width, 3))
    return Image.fromarray(np.clip(np.stack(planes, -1) + noise, 0, 255).astype(np.uint8))


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def compare(edge: str, size: tuple[int, int], rounds: int) -> Row:
    import transformers

    family, arguments = CASES[edge]
    image = photo(*size)
    slow = getattr(transformers, f"{family}ImageProcessorPil")(**arguments)
    fast = getattr(transformers, f"{family}ImageProcessor")(**arguments)
    ours = ImageProcessor(parse_image_config(slow.to_dict(), "bench"))
    runs: dict[str, Callable[[], object]] = {
        "ours": lambda: ours(image),
        "slow": lambda: slow(image, return_tensors="np"),
    }
    if fast.backend == "torchvision":
        runs["fast"] = lambda: fast(image, return_tensors="pt")
        difference = np.abs(ours(image) - fast(image, return_tensors="pt")["pixel_values"][0].numpy()).max()
        assert difference < 1.01 / 255 / 0.26, difference
    np.testing.assert_allclose(ours(image), slow(image, return_tensors="np")["pixel_values"][0], atol=2e-6)
    for run in runs.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(seconds(run))
    medians = {name: 1000 * statistics.median(values) for name, values in times.items()}
    ratios = {
        name: statistics.median(theirs / mine for theirs, mine in zip(values, times["ours"], strict=True))
        for name, values in times.items()
    }
    return Row(
        edge, f"{size[0]}x{size[1]}", medians["ours"], medians["slow"], medians.get("fast"), ratios["slow"],
        ratios.get("fast"),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--threads", type=int, default=None, help="of torch; default: its own")
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    kept = None
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError):
        kept = declare_torchvision_operators()
    print(f"torch threads: {torch.get_num_threads()}; operators declared: {kept is not None}")
    print("edge  image       ours ms  slow ms  fast ms  slow/ours  fast/ours")
    rows = [compare(edge, size, arguments.rounds) for size in IMAGES for edge in CASES]
    for row in rows:
        fast_ms, fast_ratio = (
            (f"{row.fast_ms:7.2f}", f"{row.fast_ratio:9.2f}") if row.fast_ms else ("      -", "-")
        )
        print(
            f"{row.edge:>4}  {row.image:<10} {row.ours_ms:8.2f} {row.slow_ms:8.2f}  {fast_ms}  "
            f"{row.slow_ratio:9.2f}  {fast_ratio}"
        )
    if arguments.json:
        arguments.json.write_text(
            json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
