"""Loads changed export folders and says what came of each, as worker.py does for damaged models.

python tests/fuzz/folder_worker.py FIRST STEP LAST FILE      (FILE: beside it the folders are written)
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1] / "python" / "support")]

import numpy as np
from folders import FOLDERS, NAMES, make_case

from executorch_mm import (
    ExecutorchMMError,
    GenerationConfig,
    MultimodalRunner,
    inspect_model,
    make_audio_input,
    make_image_input,
    make_token_input,
)
from number_tokenizer import NumberTokenizer

CONFIG = GenerationConfig(max_new_tokens=2, ignore_eos=True)


def play(folder: Path, media: Path) -> None:
    """Two turns, the first with an image or audio where the good folder has one."""
    with MultimodalRunner(folder, NumberTokenizer(), num_threads=1) as runner:
        first = [make_token_input([5, 9, 2])]
        if media.is_file():
            with np.load(media) as arrays:
                array = arrays[arrays.files[0]]
            first.insert(0, make_image_input(array) if array.ndim == 4 else make_audio_input(array))
        for prompt in (first, [make_token_input([3])]):
            ids = runner.generate_result(prompt, CONFIG).token_ids
            assert all(0 <= token < runner.contract.vocab_size for token in ids)
        runner.rewind(max(0, runner.position - 1))


def outcome(folder: Path, media: Path) -> str:
    """ "answer", or the error's class."""
    with contextlib.suppress(ExecutorchMMError):
        inspect_model(folder)
    try:
        play(folder, media)
    except ExecutorchMMError as error:
        return type(error).__name__
    return "answer"


def main() -> None:
    first, step, last = (int(argument) for argument in sys.argv[1:4])
    folder = Path(sys.argv[4]).with_name("export")
    for number in range(first, last, step):
        what = make_case(number, folder)
        print("begin", number, flush=True)
        try:
            print(
                "end", number, outcome(folder, FOLDERS / NAMES[number % len(NAMES)] / "media.npz"), flush=True
            )
        except BaseException:
            print(what, file=sys.stderr)
            raise


if __name__ == "__main__":
    main()
