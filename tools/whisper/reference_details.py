"""Records times of tokens and beams of transformers' eager model, for test_real_details.py.

    python reference_details.py MODELS --out ../../tests/data/speech/whisper_base_details.json

MODELS is the folder that make.py and clips.py were given (MODELS/huggingface, MODELS/clips).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
import transformers
from reference import EagerWhisper, read_wav

TIMES = ("austen-0870", "austen-0880", "austen-0920", "beckett", "jfk", "long")
BEAMS = ("austen-0880", "austen-0890", "austen-0920", "espeak-2", "espeak-3")
SEARCHES: tuple[dict[str, Any], ...] = (
    {"beam_size": 5, "patience": 1.0},
    {"beam_size": 5, "length_penalty": 0.0},
    {"beam_size": 4, "length_penalty": 2.0},
)


def times_of(whisper: EagerWhisper, samples: Any) -> list[Any]:
    """Pairs of token and beginning in seconds, of texts alone."""
    is_long = len(samples) > 30 * whisper.features.sampling_rate
    given = whisper.features(
        samples,
        sampling_rate=whisper.features.sampling_rate,
        return_tensors="pt",
        return_attention_mask=True,
        **({"truncation": False, "padding": "longest"} if is_long else {}),
    )
    made = generate(
        whisper,
        **given,
        return_timestamps=True,
        return_token_timestamps=True,
        return_segments=True,
        num_beams=1,
        **({"condition_on_prev_tokens": False} if is_long else {}),
    )
    return [
        [token, round(float(time), 2)]
        for segment in made["segments"][0]
        for token, time in zip(segment["tokens"].tolist(), segment["token_timestamps"], strict=True)
        if is_text(whisper, token)
    ]


def beams_of(whisper: EagerWhisper, samples: Any, search: dict[str, Any]) -> list[int]:
    """Tokens of the text."""
    given = whisper.features(samples, sampling_rate=whisper.features.sampling_rate, return_tensors="pt")
    ids = generate(
        whisper,
        input_features=given.input_features,
        return_timestamps=False,
        num_beams=search["beam_size"],
        length_penalty=search.get("length_penalty", 1.0),
        early_stopping="patience" in search,
    )
    return [token for token in ids[0].tolist() if is_text(whisper, token)]


def generate(whisper: EagerWhisper, **options: Any) -> Any:
    with torch.no_grad():
        return whisper.model.generate(language="en", task="transcribe", do_sample=False, **options)


def is_text(whisper: EagerWhisper, token: int) -> bool:
    return token < whisper.model.generation_config.eos_token_id


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    whisper = EagerWhisper(arguments.models / "huggingface")
    whisper.model.set_attn_implementation("eager")  # others give no attention
    folder = arguments.models / "clips"
    clips = json.loads((folder / "clips.json").read_text())
    audio = {clip["name"]: read_wav(folder / clip["file"]) for clip in clips}
    times = [{"clip": name, "tokens": times_of(whisper, audio[name])} for name in TIMES]
    beams = [
        {"clip": name, **search, "tokens": beams_of(whisper, audio[name], search)}
        for name in BEAMS
        for search in ({"beam_size": 1}, *SEARCHES)
    ]
    content = {
        "generator": "tools/whisper/reference_details.py",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "times": times,
        "beams": beams,
    }
    arguments.out.write_text(json.dumps(content) + "\n")
    print(f"{sum(len(each['tokens']) for each in times)} times, {len(beams)} texts")


if __name__ == "__main__":
    main()
