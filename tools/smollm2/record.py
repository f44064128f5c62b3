"""Records what upstream's runtime answers to the prompts, and where it could as well have answered otherwise.

    python record.py MODEL_FOLDER --out RECORD.json      # needs torch and executorch, not executorch_mm

Every prompt is answered by upstream's TextLLMRunner, and the same token ids are found again through its
Module, which also gives logits. Then each prompt is read a second time, its end token by token instead of in
one call, and followed by the same answer: the same arithmetic in another order. How far that moves the gap
between the two best tokens is the noise of this file; other tokens within it of the best are ties.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import executorch.extension.llm.custom_ops.custom_ops  # registers llama::*
import executorch.kernels.quantized  # noqa: F401  (registers quantized_decomposed::*.out)
import numpy as np
import torch
from executorch.extension.llm.runner import GenerationConfig, TextLLMRunner
from executorch.extension.pybindings import _C
from executorch.extension.pybindings.portable_lib import _load_for_executorch
from prompts import PROMPTS
from pytorch_tokenizers.pytorch_tokenizers_cpp import HFTokenizer

NEW_TOKENS = 64
EOS = 2
TAIL = 32  # tokens of a prompt that the second reading takes one by one
Row = np.ndarray


class Upstream:
    """A model in upstream's Module; its state is the KV cache, so positions start again with each prompt."""

    def __init__(self, folder: Path) -> None:
        self._module = _load_for_executorch(str(folder / "model.pte"))
        meta = self._module.method_meta("forward")
        self._takes_range = meta.input_tensor_meta(1).sizes()[0] > 1

    def logits(self, ids: list[int], position: int) -> Row:
        """The logits after the last of the ids, float32 (vocabulary)."""
        end = position + len(ids) if self._takes_range else position + 1
        (output,) = self._module.forward([torch.tensor([ids]), torch.arange(position, end)])
        return output.reshape(-1, output.shape[-1])[-1].clone().numpy()

    def greedy(self, prompt: list[int]) -> tuple[list[int], list[Row]]:
        """The answer, ending with EOS or after 64 tokens, and the logits each of its tokens came from."""
        ids, rows = [], [self.logits(prompt, 0)]
        while True:
            ids.append(int(rows[-1].argmax()))
            if ids[-1] == EOS or len(ids) == NEW_TOKENS:
                return ids, rows
            rows.append(self.logits(ids[-1:], len(prompt) + len(ids) - 1))

    def token_by_token(self, prompt: list[int], answer: list[int]) -> list[Row]:
        """The logits before each token of the answer, for the prompt's end read token by token."""
        first = max(len(prompt) - TAIL, 0)
        if first > 0:
            self.logits(prompt[:first], 0)
        tail = enumerate((prompt + answer[:-1])[first:], start=first)
        rows = [self.logits([token], position) for position, token in tail]
        return rows[len(prompt) - first - 1 :]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="holds model.pte and tokenizer.json")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    _C._unsafe_reset_threadpool(1)  # with two, upstream's answers differ from run to run
    torch.set_num_threads(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the runner prints what it generates
    arguments.out.write_text(as_text(make_record(arguments.folder)), encoding="utf-8")


def make_record(folder: Path) -> dict[str, Any]:
    tokenizer = HFTokenizer()
    tokenizer.load(str(folder / "tokenizer.json"))
    runner = TextLLMRunner(str(folder / "model.pte"), str(folder / "tokenizer.json"))
    pieces = {name: run_runner(runner, text) for name, text in PROMPTS.items()}
    del runner
    upstream = Upstream(folder)
    answers, changes = [], []
    for name, text in PROMPTS.items():
        prompt = tokenizer.encode(text, 0, 0)
        ids, rows = upstream.greedy(prompt)
        check_runner(name, ids, pieces[name], tokenizer)
        again = upstream.token_by_token(prompt, ids)
        changes += [gap_change(row, other) for row, other in zip(rows, again, strict=True)]
        flips = [step for step, row in enumerate(again) if int(row.argmax()) != ids[step]]
        answers.append((name, text, prompt, ids, rows, flips))
    noise = max(changes)
    return {
        "model_sha256": hashlib.sha256((folder / "model.pte").read_bytes()).hexdigest(),
        "executorch": version("executorch"),
        "machine": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, 1 thread",
        "noise": rounded(noise),
        "median_noise": rounded(float(np.median(changes))),
        "answers": [
            {
                "name": name,
                "prompt": text,
                "prompt_ids": prompt,
                "ids": ids,
                "ties": {step: near for step, row in enumerate(rows) if (near := near_ties(row, noise))},
                "own_flips": flips,
            }
            for name, text, prompt, ids, rows, flips in answers
        ],
    }


def run_runner(runner: TextLLMRunner, prompt: str) -> list[str]:
    """What TextLLMRunner hands over: up to the first token that is not whole characters, where it fails."""
    runner.reset()
    pieces: list[str] = []
    config = GenerationConfig(max_new_tokens=NEW_TOKENS, temperature=0.0, echo=False)
    try:
        runner.generate(prompt, config, pieces.append)
    except UnicodeDecodeError as error:
        print(error)
    return pieces


def check_runner(name: str, ids: list[int], pieces: list[str], tokenizer: HFTokenizer) -> None:
    """The runner's text must be that of the ids, as far as it goes; after EOS it may go on."""
    for step, (token, piece) in enumerate(zip(ids, pieces, strict=False)):
        expected = tokenizer.decode(token)
        if piece != expected:
            raise SystemExit(f"{name}, token {step}: the runner gives {piece!r}, the module {expected!r}")


def gap_change(row: Row, other: Row) -> float:
    """How much the gap between the best two tokens of `row` differs in `other`."""
    best, second = np.argsort(row)[-1:-3:-1]
    return abs(float((row[best] - row[second]) - (other[best] - other[second])))


def near_ties(row: Row, noise: float) -> dict[int, float]:
    """Tokens whose logits are within `noise` below the best one's: id to gap."""
    order = np.argsort(-row)[:20]
    gaps = {int(token): rounded(row[order[0]] - row[token]) for token in order[1:]}
    return {token: gap for token, gap in gaps.items() if gap <= noise}


def rounded(number: float) -> float:
    return float(f"{number:.3g}")


def as_text(record: dict[str, Any]) -> str:
    """JSON with one line for each answer."""
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in record.items() if key != "answers"]
    answers = [json.dumps(answer, ensure_ascii=False, separators=(",", ":")) for answer in record["answers"]]
    return "{" + ",\n".join(lines) + ',\n"answers": [\n' + ",\n".join(answers) + "\n]}\n"


if __name__ == "__main__":
    main()
