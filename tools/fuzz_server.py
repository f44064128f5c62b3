"""Asks a server what its own description allows and forbids, and counts the answers; needs Schemathesis.

    executorch-mm serve --max-tokens 4 --also speech=FILE --also clip=FILE &
    pip install schemathesis==4.32.5            # in an environment of its own
    python tools/fuzz_server.py http://127.0.0.1:8000 --count 10000 --model /v1/embeddings=clip

Half of the cases keep to the description, half do not. Exit code 1 where an answer has status 500 or more or
none comes.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.generation import GenerationMode

_SPARED = "/metrics"


def main() -> int:
    """Prints how often each operation was answered how."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--count", type=int, default=1000, help="cases in all")
    parser.add_argument("--model", action="append", default=[], metavar="PATH=NAME")
    asked = parser.parse_args()
    models = dict(pair.split("=", 1) for pair in asked.model)
    schema = schemathesis.openapi.from_url(f"{asked.url}/openapi.json")
    operations = [each.ok() for each in schema.get_all_operations()]
    posted = [each for each in operations if each.method == "post"]
    plain = [each for each in operations if each.method != "post"]
    share = max(asked.count // (2 * len(posted) + len(plain)), 1)
    faults: list[str] = []
    total: Counter[int] = Counter()
    for operation in operations:
        modes = list(GenerationMode) if operation in posted else [GenerationMode.POSITIVE]
        for mode in modes:
            found = _ask(operation, mode, share, models.get(operation.path), faults)
            total += found
            print(
                operation.method.upper(), operation.path, mode.value, dict(sorted(found.items())), flush=True
            )
    print(sum(total.values()), "cases:", dict(sorted(total.items())))
    for fault in faults[:50]:
        print(fault)
    return 1 if faults else 0


def _ask(operation: Any, mode: Any, count: int, model: str | None, faults: list[str]) -> Counter[int]:
    statuses: Counter[int] = Counter()

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        if model is not None and isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
            case.body["model"] = model
        response = case.call(timeout=60)
        statuses[response.status_code] += 1
        if response.status_code >= 500:
            faults.append(f"{response.status_code} {response.text[:200]} for {case.as_curl_command()[:1500]}")

    while sum(statuses.values()) < count:
        before = sum(statuses.values())
        ask()
        if sum(statuses.values()) - before < count // 10:
            break  # there are no more cases that differ
    return statuses


if __name__ == "__main__":
    sys.exit(main())
