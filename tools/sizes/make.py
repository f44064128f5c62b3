"""Makes .pte files with random weights in the shapes of models that people run, for benchmarks.

    python make.py 0.6b --out MODELS --tokenizer FOLDER     # the folder MODELS/sizes-0.6b

4-bit weights in groups of 32, dynamic 8-bit activations and an 8-bit embedding, as export_llm makes them.
FOLDER is one of tools/smollm2, whose tokenizer is copied: its tokens are among the vocabulary of both.
What such a model writes means nothing. The environment is that of tools/smollm2 (requirements.txt there).
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

# Of the models' config.json, under the names of export_llm's parameters.
QWEN3_0_6B = {
    "dim": 1024,
    "hidden_dim": 3072,
    "n_heads": 16,
    "n_kv_heads": 8,
    "head_dim": 128,
    "n_layers": 28,
    "norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "use_scaled_rope": False,
    "vocab_size": 151936,
    "use_hf_rope": True,
    "attention_qkv_bias": False,
    "use_qk_norm": True,
    "qk_norm_before_rope": True,
}
LLAMA_3_2_1B = {
    "dim": 2048,
    "hidden_dim": 8192,
    "n_heads": 32,
    "n_kv_heads": 8,
    "n_layers": 16,
    "norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "use_scaled_rope": True,
    "vocab_size": 128256,
}
SIZES = {"0.6b": QWEN3_0_6B, "1.2b": LLAMA_3_2_1B}
BOS, EOS = 1, 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sizes", nargs="+", choices=SIZES, metavar="SIZE", help=", ".join(SIZES))
    parser.add_argument("--out", type=Path, required=True, help="gets one folder for each size")
    parser.add_argument(
        "--tokenizer", type=Path, required=True, help="the folder whose tokenizer files are copied"
    )
    parser.add_argument("--max-seq", type=int, default=1024, help="positions of the context")
    arguments = parser.parse_args()
    for size in arguments.sizes:
        folder = arguments.out / f"sizes-{size}"
        folder.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        export(SIZES[size], folder / "model.pte", arguments.max_seq)
        for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
            shutil.copyfile(arguments.tokenizer / name, folder / name)
        taken = time.perf_counter() - started
        print(f"{size}: {(folder / 'model.pte').stat().st_size} bytes, {taken:.0f} s", flush=True)


def random_weights(parameters: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Weights of small, even size, so that activations stay finite through all layers."""
    from executorch.examples.models.llama.llama_transformer import construct_transformer
    from executorch.examples.models.llama.model_args import ModelArgs

    with torch.device("meta"):
        shapes = {
            name: tensor.shape
            for name, tensor in construct_transformer(ModelArgs(**parameters)).named_parameters()
        }
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.ones(shape)
        if len(shape) == 1
        else torch.randn(shape, generator=generator) * shape[-1] ** -0.5
        for name, shape in shapes.items()
    }


def export(parameters: dict[str, Any], model: Path, max_seq: int) -> None:
    with tempfile.TemporaryDirectory(dir=model.parent) as scratch:
        weights, described = Path(scratch) / "weights.pth", Path(scratch) / "params.json"
        torch.save(random_weights(parameters), weights)
        described.write_text(json.dumps(parameters), encoding="utf-8")
        options = {
            "base": {
                "model_class": "llama3_2",
                "checkpoint": str(weights),
                "params": str(described),
                "metadata": json.dumps({"get_bos_id": BOS, "get_eos_ids": [EOS]}),
            },
            "model": {"use_kv_cache": True, "dtype_override": "fp32", "use_sdpa_with_kv_cache": True},
            "quantization": {"qmode": "8da4w", "group_size": 32, "embedding_quantize": "8,0"},
            "backend": {"xnnpack": {"enabled": True, "extended_ops": True}},
            "export": {
                "max_seq_length": max_seq,
                "max_context_length": max_seq,
                "output_name": str(model.resolve()),
            },
        }
        Path(scratch, "export.yaml").write_text(json.dumps(options), encoding="utf-8")  # JSON is YAML
        command = [
            sys.executable,
            "-m",
            "executorch.extension.llm.export.export_llm",
            "--config",
            "export.yaml",
        ]
        subprocess.run(command, check=True, cwd=scratch)


if __name__ == "__main__":
    main()
