"""Makes the models of bench_vs_peers.py from the weights of ours: peer_models.py OUT [KIND ...]

Environment: tools/smollm2/requirements.txt, and openvino-genai, nncf, onnx and onnxruntime-genai. OUT gets

    llama.cpp            SmolLM2-Q4_0.gguf: blocks of 32, no zero point, as ours; embedding (and head) Q8_0
    openvino             openvino/: linear layers int4 symmetric, groups of 32; embedding (and head) int8
    onnxruntime-genai    onnx/: int4 symmetric, blocks of 32, the head too; logits of the last position only

The package's weights are Q4_1; all start from those, dequantised.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

TOOLS = Path(__file__).resolve().parents[1] / "tools" / "smollm2"
KINDS = ("llama.cpp", "openvino", "onnxruntime-genai")


def checkpoint_of(out: Path) -> Path:
    """The weights in float32 as transformers saves them."""
    if not (out / "huggingface" / "model.safetensors").is_file():
        subprocess.run([sys.executable, str(TOOLS / "make.py"), "--out", str(out)], check=True)
    return out / "huggingface"


def write_gguf(file: Path, linear: str, embedding: str) -> None:
    """The package's GGUF with other types of its weights; everything else is copied."""
    import gguf
    from gguf.quants import dequantize, quantize

    sys.path.insert(0, str(TOOLS))
    from make import GGUF, fetch_gguf

    kinds = gguf.GGMLQuantizationType
    with tempfile.TemporaryDirectory() as scratch:
        fetch_gguf(Path(scratch))
        reader = gguf.GGUFReader(Path(scratch) / GGUF)
        writer = gguf.GGUFWriter(file, "llama")
        for field in reader.fields.values():
            if not field.name.startswith("GGUF.") and field.name not in (
                "general.architecture",
                "general.file_type",
            ):
                inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
                writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=inner)
        writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{linear}"])
        for tensor in reader.tensors:
            weights = dequantize(tensor.data, tensor.tensor_type)
            kind = kinds.F32 if weights.ndim == 1 else kinds[embedding if "embd" in tensor.name else linear]
            writer.add_tensor(tensor.name, quantize(weights, kind), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def llama_cpp(out: Path) -> None:
    write_gguf(out / "SmolLM2-Q4_0.gguf", "Q4_0", "Q8_0")


def openvino(out: Path) -> None:
    import nncf
    import openvino
    import openvino_genai

    folder, plain = out / "openvino", out / "SmolLM2-F16.gguf"
    write_gguf(plain, "F16", "F16")
    with tempfile.TemporaryDirectory(dir=out) as scratch:
        gguf = shutil.move(plain, Path(scratch) / plain.name)
        openvino_genai.LLMPipeline(gguf, "CPU", enable_save_ov_model=True)
        model = openvino.Core().read_model(Path(scratch) / "openvino_model.xml")
        small: Any = nncf.compress_weights(
            model, mode=nncf.CompressWeightsMode.INT4_SYM, group_size=32, ratio=1.0, all_layers=False
        )
        folder.mkdir(parents=True, exist_ok=True)
        openvino.save_model(small, folder / "openvino_model.xml")
        for rest in Path(scratch).glob("*"):
            if rest.suffix != ".gguf" and not rest.name.startswith("openvino_model."):
                shutil.copyfile(rest, folder / rest.name)


def onnxruntime_genai(out: Path) -> None:
    command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-m", str(checkpoint_of(out))]
    with tempfile.TemporaryDirectory() as scratch:
        command += ["-o", str(out / "onnx"), "-p", "int4", "-e", "cpu", "-c", scratch]
        subprocess.run(
            [*command, "--extra_options", "block_size=32", "is_symmetric=true", "prune_lm_head=true"],
            check=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("kinds", nargs="*", choices=KINDS, metavar="KIND", help=", ".join(KINDS))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for kind in given.kinds or KINDS:
        {"llama.cpp": llama_cpp, "openvino": openvino, "onnxruntime-genai": onnxruntime_genai}[kind](
            given.out.resolve()
        )


if __name__ == "__main__":
    main()
