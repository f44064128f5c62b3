"""Rows a second on Ray nodes of one CPU each, two beside one, with a model of your own.

    python benchmarks/bench_ray_nodes.py MODEL --rows 240 --rounds 3

The nodes are those of `ray.cluster_utils.Cluster` on this machine, and take turns: one, two, one, two. Rows
that are answered while all actors work count for the steady state; loading and the last batches do not. A
machine that does other work gives an actor as much time as it sees fit, so beside the times stands what a
row takes of the processors: where cores are free, two nodes are faster by twice the ratio of the two.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Mapping
from typing import Any

import ray
from ray.cluster_utils import Cluster

from executorch_mm.ray import EmmPredictor


class Timed(EmmPredictor):
    """Adds when a batch began and ended, and what it took."""

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        start, processor = time.time(), time.process_time()
        if "_runner" not in vars(self):
            # Linux shares processors between sessions: each actor has one of its own, as on two machines.
            os.setpgid(0, os.getpgid(os.getppid()))  # the leader of a group cannot begin one
            os.setsid()
            super().__call__({name: column[:1] for name, column in batch.items()})  # the model is loaded
            start, processor = time.time(), time.process_time()
        made = super().__call__(batch)
        count = len(made["id"])
        took = {"pid": os.getpid(), "start": start, "end": time.time()}
        took["processor"] = (time.process_time() - processor) / count
        took["threads"] = self._runner._requests.session.num_threads
        return {**made, **{name: [value] * count for name, value in took.items()}}


def run(rows: list[dict[str, Any]], nodes: int, batch_size: int, model: str, tokens: int) -> dict[str, Any]:
    """All rows on so many nodes."""
    start = time.time()
    made = (
        ray.data.from_items(rows, override_num_blocks=len(rows) // batch_size)
        .map_batches(
            Timed,
            fn_constructor_kwargs={"model": model, "defaults": {"max_tokens": tokens, "ignore_eos": True}},
            compute=ray.data.ActorPoolStrategy(size=nodes),
            num_cpus=1,
            batch_size=batch_size,
        )
        .take_all()
    )
    seconds = time.time() - start
    actors: dict[int, list[dict[str, Any]]] = {}
    for row in made:
        actors.setdefault(row["pid"], []).append(row)
    begin = max(min(row["start"] for row in each) for each in actors.values())
    end = min(max(row["end"] for row in each) for each in actors.values())
    steady = [row for row in made if row["start"] >= begin and row["end"] <= end]
    return {
        "nodes": nodes,
        "rows_by_actor": sorted(map(len, actors.values())),
        "threads": sorted({row["threads"] for row in made}),
        "seconds": seconds,
        "rows_per_second": len(made) / seconds,
        "steady_rows": len(steady),
        "steady_rows_per_second": len(steady) / (end - begin) if steady else 0.0,
        "processor_ms": 1000 * statistics.median(row["processor"] for row in made),
        "answers": {int(row["id"]): row["generated_text"] for row in made},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--rows", type=int, default=240)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=16, help="of each answer")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--nodes", type=int, default=2)
    arguments = parser.parse_args()
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(arguments.nodes):
        cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
    ray.init(address=cluster.address, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = [
        {"id": index, "prompt": f"Name an animal whose name has the letter {chr(97 + index % 26)}. ({index})"}
        for index in range(arguments.rows)
    ]
    sides: dict[int, list[dict[str, Any]]] = {1: [], arguments.nodes: []}
    for _ in range(arguments.rounds):
        for nodes, made in sides.items():
            made.append(run(rows, nodes, arguments.batch_size, arguments.model, arguments.tokens))
            print(
                json.dumps({name: value for name, value in made[-1].items() if name != "answers"}), flush=True
            )
    answers = [each["answers"] for several in sides.values() for each in several]
    one, many = sides[1], sides[arguments.nodes]

    def ratio(name: str, above: list[dict[str, Any]], below: list[dict[str, Any]]) -> float:
        return round(statistics.median(a[name] / b[name] for a, b in zip(above, below, strict=True)), 3)

    print(
        json.dumps(
            {
                "times_faster": ratio("rows_per_second", many, one),
                "times_faster_steady": ratio("steady_rows_per_second", many, one),
                "times_faster_on_free_cores": arguments.nodes * ratio("processor_ms", one, many),
                "answers_that_differ": sum(
                    a != answers[0][id_] for each in answers for id_, a in each.items()
                ),
                "load": os.getloadavg(),
            }
        )
    )
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main()
