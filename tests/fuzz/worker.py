"""Loads damaged models one after another and says what came of each; whoever started it watches.

    python tests/fuzz/worker.py FIRST STEP LAST FILE      (FILE: where the damaged copies are written)

Prints `begin N` before case N and `end N OUTCOME` after it.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1] / "python" / "support")]

from mutations import TINY_VLM, Case, make_case

from executorch_mm import (
    ExecutorchMMError,
    GenerationConfig,
    MultimodalRunner,
    build_info,
    make_image_input,
    make_token_input,
)
from number_tokenizer import NumberTokenizer


def try_case(case: Case, path: Path, num_threads: int) -> str:
    """ "answer", or the error's class."""
    import numpy as np

    path.write_bytes(case.data)
    is_vision = case.source == TINY_VLM
    tokenizer = TINY_VLM.parent if is_vision else NumberTokenizer()
    config = GenerationConfig(max_new_tokens=2, ignore_eos=True)
    try:
        with MultimodalRunner(path, tokenizer, num_threads=num_threads) as runner:
            tokens = make_token_input([5, 9, 2])
            if is_vision and runner.contract.has_image_encoder:
                runner.generate_text([make_image_input(np.zeros((3, 64, 64), np.float32)), tokens], config)
            else:
                runner.generate_text(tokens, config)
    except ExecutorchMMError as error:
        return type(error).__name__
    return "answer"


def main() -> None:
    first, step, last = (int(argument) for argument in sys.argv[1:4])
    thread_pool_size = build_info().num_pool_threads
    for number in range(first, last, step):
        case = make_case(number)
        num_threads = 1 if number % 20 < 10 else thread_pool_size
        print("begin", number, flush=True)
        print("end", number, try_case(case, Path(sys.argv[4]), num_threads), flush=True)


if __name__ == "__main__":
    main()
