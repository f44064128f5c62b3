"""executorch_mm's answers against upstream's on the same .pte, token by token, in separate processes.

    python compare.py MODEL_FOLDER ... --upstream-python PYTHON --records FOLDER

PYTHON has torch and executorch; this interpreter has executorch_mm. FOLDER gets <variant>.json, what
upstream answers (see record.py); records that are there and belong to the same model.pte are used again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="each holds model.pte and tokenizer.json")
    parser.add_argument("--upstream-python", type=Path, required=True)
    parser.add_argument("--records", type=Path, required=True)
    arguments = parser.parse_args()
    for folder in arguments.folders:
        record_path = arguments.records / f"{folder.resolve().name.rsplit('-', 1)[-1]}.json"
        if not is_record_of(record_path, folder / "model.pte"):
            command = [arguments.upstream_python, HERE / "record.py", folder, "--out", record_path]
            subprocess.run(command, check=True)
        record = json.loads(record_path.read_text(encoding="utf-8"))
        report(folder.resolve().name, record, replay_in_subprocess(folder, record_path))


def is_record_of(record: Path, model: Path) -> bool:
    if not record.is_file():
        return False
    recorded = json.loads(record.read_text(encoding="utf-8"))["model_sha256"]
    return bool(recorded == hashlib.sha256(model.read_bytes()).hexdigest())


def replay_in_subprocess(folder: Path, record: Path) -> list[list[dict[str, Any]]]:
    """For each recorded answer, the steps at which executorch_mm chooses another token."""
    program = (
        "import json, sys; from executorch_mm import MultimodalRunner; from replay import differences\n"
        "folder, record = sys.argv[1:]\n"
        "with MultimodalRunner(folder + '/model.pte', folder, num_threads=1) as runner:\n"
        "    answers = json.load(open(record, encoding='utf-8'))['answers']\n"
        "    print(json.dumps([differences(runner, answer) for answer in answers]))"
    )
    command = [sys.executable, "-c", program, str(folder.resolve()), str(record.resolve())]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=HERE)
    return list(json.loads(done.stdout))


def report(name: str, record: dict[str, Any], found: list[list[dict[str, Any]]]) -> None:
    answers = record["answers"]
    print(
        f"\n{name}: {sum(not steps for steps in found)} of {len(answers)} answers equal, "
        f"upstream with itself {sum(not a['own_flips'] for a in answers)}; "
        f"{sum(map(len, found))} of {sum(len(a['ids']) for a in answers)} steps differ, "
        f"upstream with itself {sum(len(a['own_flips']) for a in answers)}; "
        f"noise of a gap at most {record['noise']}, median {record['median_noise']}"
    )
    for answer, steps in zip(answers, found, strict=True):
        texts = [
            f"{d['step']}: {d['recorded']} or {d['chosen']}, "
            + ("MORE THAN THE NOISE APART" if d["gap"] is None else f"{d['gap']:.6f} apart")
            for d in steps
        ]
        prompt = f"{answer['name']} ({len(answer['prompt_ids'])} + {len(answer['ids'])} tokens)"
        print(f"  {prompt:36}{'; '.join(texts) or 'equal'}")


if __name__ == "__main__":
    main()
