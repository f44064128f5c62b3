"""`MultimodalModel.map` with one session and with several, in turns, on rendered images.

    python benchmarks/bench_map_sessions.py --rows 60 --rounds 5

The model is the one in the wheel.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time

from executorch_mm import MultimodalModel
from executorch_mm.demo import make_scene, render

SIDES = (1, 2, 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    images = [render(make_scene(seed=900_000_000 + index)) for index in range(arguments.rows)]
    requests = [["<|user|>", image, "describe this picture<|end|><|assistant|>"] for image in images]
    taken: dict[int, list[tuple[float, float]]] = {side: [] for side in SIDES}
    answers = set()
    with MultimodalModel.demo(num_threads=1) as model:
        for _ in range(arguments.rounds):
            for side in SIDES:
                start, processor = time.perf_counter(), time.process_time()
                made = model.map(requests, max_new_tokens=40, num_sessions=side)
                answers.add(tuple(result.text for result in made))
                taken[side].append((time.perf_counter() - start, time.process_time() - processor))
    told: dict[str, object] = {}
    for side in SIDES[1:]:
        pairs = list(zip(taken[1], taken[side], strict=True))
        told[f"{side} sessions, times as fast"] = [round(one[0] / more[0], 2) for one, more in pairs]
        told[f"{side} sessions, processor time"] = round(
            statistics.median(more[1] / one[1] for one, more in pairs), 3
        )
    print(json.dumps({**told, "different_answers": len(answers), "load": os.getloadavg()}))


if __name__ == "__main__":
    main()
