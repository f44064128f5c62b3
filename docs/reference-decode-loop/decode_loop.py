"""The decode loop in one file, against the compiled core alone: read this first, then executorch_mm/.

The package adds typed options, every kind of input, chats, threads and tasks; what a model does for one
answer is all here. Programs use `MultimodalRunner`: `_core` may change with any version.

    python decode_loop.py FOLDER "<|user|>what shapes do you know?<|end|><|assistant|>"
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from executorch_mm import _core


def load(model: Path) -> _core.Session:
    """One conversation with the model in a .pte file; every method of it is checked and initialised here."""
    return _core.Session.load(
        _core.LoadOptions(
            model_path=str(model),
            model_bytes=None,  # or the file's content, which is then used in place
            data_paths=[],  # .ptd files with weights that the program does not hold
            load_mode="mmap",
            num_threads=1,
            workspace_sharing="global",
            weight_cache=False,
            openvino_library="",
            profile_path="",
        )
    )


def prefill(session: _core.Session, parts: Sequence[_core.PreparedInput]) -> None:
    """Reads a prompt: its positions are planned and checked, then each step is one call of the model.

    Between two steps anything may happen: progress is reported, Ctrl-C arrives, another task runs. A prompt
    that is given up leaves no trace: `abort_prefill` goes back to where `begin_prefill` started.
    """
    session.begin_request()
    session.begin_prefill(parts)
    try:
        while session.step_prefill():
            print(f"read {session.prefill_done} of {session.prefill_total} positions", file=sys.stderr)
    finally:
        session.abort_prefill()  # nothing to do once all of it has been read


def sampling(temperature: float, seed: int) -> _core.SamplingOptions:
    """How a row of logits becomes a token; 0 takes the likeliest one."""
    options = _core.SamplingOptions()
    options.temperature = temperature
    options.top_p = 0.95
    options.seed = seed
    return options


def decode(
    session: _core.Session, end_ids: Sequence[int], max_new_tokens: int, chooser: _core.SamplingOptions
) -> Iterator[int]:
    """The tokens of an answer, one by one, until an end token, the limit or a full context.

    `next` samples from the last row of logits; the token before it goes into the model first, at the next
    position, so the last token of an answer is read only when the conversation goes on.
    """
    options = _core.GenerationOptions()
    options.sampling = chooser
    options.max_new_tokens = max_new_tokens
    options.eos_ids = list(end_ids)
    generation = _core.Generation(session, options)
    while (token := generation.next()) is not None:
        yield token
    print(f"ended by {generation.finish_reason}", file=sys.stderr)


def show(tokens: Iterator[int], tokenizer: Tokenizer, stop: Sequence[str]) -> Iterator[str]:
    """Text that may be shown: whole characters, and nothing that may yet become a stop text."""
    ids: list[int] = []
    shown = 0
    for token in tokens:
        ids.append(token)
        text = tokenizer.decode(ids)
        if hits := [index for index in (text.find(word) for word in stop) if index >= 0]:
            yield text[shown : min(hits)]
            return  # closes nothing: the session stands behind the last token that was generated
        held = max((n for word in stop for n in range(1, len(word)) if text.endswith(word[:n])), default=0)
        end = len(text) - (1 if text.endswith("\ufffd") else held)  # a character that is not whole yet
        if end > shown:
            yield text[shown:end]
            shown = end
    yield tokenizer.decode(ids)[shown:]


def main(folder: Path, prompt: str) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    config = folder / "generation_config.json"
    declared = json.loads(config.read_text("utf-8")).get("eos_token_id", []) if config.is_file() else []
    session = load(folder / "model.pte")
    end_ids = {*session.contract.eos_ids, *(declared if isinstance(declared, list) else [declared])}
    ids = np.array(tokenizer.encode(prompt).ids, np.int64)
    prefill(session, [_core.PreparedInput.tokens(ids)])  # images: .image(float32 (3, height, width))
    answer = decode(session, sorted(end_ids), max_new_tokens=60, chooser=sampling(0.0, seed=0))
    for piece in show(answer, tokenizer, stop=["\n\n"]):
        print(piece, end="", flush=True)
    print()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
