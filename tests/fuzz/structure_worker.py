"""Loads files with changed structures and says what came of each, as worker.py does for damaged ones.

python tests/fuzz/structure_worker.py FIRST STEP LAST FILE      (FILE: where the copies are written)
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1] / "python" / "support")]

import numpy as np
from mutations import TINY_VLM
from structures import Case, make_case

from executorch_mm import (
    ClipModel,
    ExecutorchMMError,
    GenerationConfig,
    MultimodalRunner,
    SpeechRunner,
    build_info,
    make_audio_input,
    make_image_input,
    make_token_input,
)
from executorch_mm.preprocess import MelProgram
from number_tokenizer import NumberTokenizer

CONFIG = GenerationConfig(max_new_tokens=2, ignore_eos=True)


def play(case: Case, path: Path, num_threads: int) -> None:
    """Runs every method of the file once."""
    folder = case.program.parent
    if folder.name == "speech":
        with SpeechRunner(path, folder, num_threads=num_threads) as speech:
            speech.transcribe(np.zeros(8000, np.float32), sampling_rate=16_000, max_new_tokens=2)
        return
    if folder.name.startswith("transducer"):  # which have no limit of tokens, but one for each frame
        with SpeechRunner(path, folder.with_name("transducer"), num_threads=num_threads) as speech:
            speech.transcribe(np.zeros(8000, np.float32), sampling_rate=16_000, timeout=1.0)
        return
    if folder.name == "mel":
        with MelProgram(path) as mel:
            mel(np.zeros(4000, np.float32), 16_000)
        return
    if folder.name == "clip":
        with ClipModel(path, folder, processor_path=folder, num_threads=num_threads) as clip:
            shape = clip.methods["encode_image"].inputs[0].shape[1:] if "encode_image" in clip.methods else ()
            if len(shape) == 3:
                clip.encode_image(np.zeros(shape, np.float32))
            clip.encode_text([[1, 2]])
        return
    tokenizer = folder if case.program == TINY_VLM else NumberTokenizer()
    data = [] if case.data is None else [path.with_suffix(".ptd")]
    with MultimodalRunner(path, tokenizer, data_path=data, num_threads=num_threads) as runner:
        inputs = [make_token_input([5, 9, 2])]
        methods = runner.contract.methods
        for name, make in (("vision_encoder", make_image_input), ("audio_encoder", make_audio_input)):
            if name in methods:
                shape = methods[name].inputs[0].shape
                inputs.append(make(np.zeros((1, *shape[1:]), np.float32)))
        runner.generate_text(inputs, CONFIG)


def try_case(case: Case, path: Path, num_threads: int) -> str:
    """ "answer", or the error's class."""
    path.write_bytes(case.program_bytes)
    if case.data_bytes is not None:
        path.with_suffix(".ptd").write_bytes(case.data_bytes)
    try:
        play(case, path, num_threads)
    except ExecutorchMMError as error:
        return type(error).__name__
    except MemoryError:
        return "MemoryError"
    return "answer"


def main() -> None:
    first, step, last = (int(argument) for argument in sys.argv[1:4])
    pool = build_info().num_pool_threads
    for number in range(first, last, step):
        print("begin", number, flush=True)
        num_threads = 1 if number % 20 < 10 else pool
        print("end", number, try_case(make_case(number), Path(sys.argv[4]), num_threads), flush=True)


if __name__ == "__main__":
    main()
