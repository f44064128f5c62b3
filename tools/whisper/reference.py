"""Records what transformers' eager model hears in the clips, for tests/python/speech/test_real_speech.py.

    python reference.py MODELS --out ../../tests/data/speech/whisper_base_transformers.json

MODELS is the folder that make.py and clips.py were given (MODELS/huggingface, MODELS/clips).
"""

from __future__ import annotations

import argparse
import json
import sys
import wave
from pathlib import Path

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "python" / "support"))
from speech_scores import error_rate

WINDOW_SECONDS = 30


class EagerWhisper:
    """Greedy transcripts in English, of long clips window by window from where the last segment ended."""

    def __init__(self, checkpoint: Path) -> None:
        transformers.utils.logging.set_verbosity_error()
        self.model = WhisperForConditionalGeneration.from_pretrained(checkpoint).eval()
        self.features = WhisperFeatureExtractor.from_pretrained(checkpoint)
        self.tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))

    def transcribe(self, samples: np.ndarray) -> str:
        rate = self.features.sampling_rate
        long = len(samples) > WINDOW_SECONDS * rate
        whole = {"truncation": False, "padding": "longest", "return_attention_mask": True} if long else {}
        inputs = self.features(samples, sampling_rate=rate, return_tensors="pt", **whole)
        with torch.no_grad():
            ids = self.model.generate(
                **inputs,
                language="en",
                task="transcribe",
                do_sample=False,
                num_beams=1,
                return_timestamps=long,
            )
        first_time = self.model.generation_config.no_timestamps_token_id + 1
        return self.tokenizer.decode([token for token in ids[0].tolist() if token < first_time])


def read_wav(path: Path) -> np.ndarray:
    with wave.open(str(path)) as file:
        frames = file.readframes(file.getnframes())
    return np.frombuffer(frames, "<i2").astype(np.float32) / 32768


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    whisper = EagerWhisper(arguments.models / "huggingface")
    clips = json.loads((arguments.models / "clips" / "clips.json").read_text())
    for clip in clips:
        clip["heard"] = whisper.transcribe(read_wav(arguments.models / "clips" / clip["file"]))
        print(clip["name"], round(error_rate([(clip["heard"], clip["said"])]), 1), clip["heard"], flush=True)
    content = {
        "generator": "tools/whisper/reference.py",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "clips": clips,
    }
    arguments.out.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    print(f"word error rate {error_rate((clip['heard'], clip['said']) for clip in clips):.2f} %")


if __name__ == "__main__":
    main()
