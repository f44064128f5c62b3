"""Makes a model for `bench_caches.py --images`: a published image encoder's architecture, and a decoder.

    python benchmarks/make_vision_model.py FOLDER

SigLIP base (224 pixels, patches of 16: 196 rows; 86 million weights, float32) before four blocks of
SmolLM2-135M's sizes (4 bits) with a vocabulary of 8,192. All weights are random: the time does not depend on
them. Needs torch, executorch, torchao, transformers and tokenizers, and not this package.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import SiglipVisionConfig, SiglipVisionModel

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools" / "tiny_model"))
import export as tiny
from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge_transform_and_lower
from network import Config, TinyVLM

SIDE = 224
SIZES = Config(
    dim=576, decoder_blocks=4, heads=9, kv_heads=3, head_dim=64, hidden=1536, vocab=8192, context=512
)
PROCESSOR = {
    "image_processor_type": "SiglipImageProcessor",
    "do_resize": True,
    "size": {"height": SIDE, "width": SIDE},
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


class Encoder(nn.Module):
    """Float [1,3,224,224] to rows [1,196,dim] for the decoder."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.tower = SiglipVisionModel(SiglipVisionConfig(vision_use_head=False))
        self.projector = nn.Linear(self.tower.config.hidden_size, dim)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.projector(self.tower(pixels).last_hidden_state)


def build() -> bytes:
    torch.manual_seed(1)
    model = TinyVLM(SIZES).eval()
    vision, decoder = Encoder(SIZES.dim).eval(), tiny.TextDecoder(model).eval()
    embedding = tiny.TokenEmbedding(model).eval()
    tiny.quantise(nn.Identity(), nn.Identity(), decoder, embedding)
    length = torch.export.Dim("length", min=1, max=tiny.MAX_CHUNK)
    rows, start = torch.zeros(1, 8, SIZES.dim), torch.zeros(1, dtype=torch.long)
    ids = torch.zeros(1, 8, dtype=torch.long)
    with torch.no_grad():
        programs = {
            "vision_encoder": torch.export.export(vision, (torch.zeros(1, 3, SIDE, SIDE),)),
            "token_embedding": torch.export.export(embedding, (ids,), dynamic_shapes=({1: length},)),
            "text_decoder": torch.export.export(
                decoder, (rows, start), dynamic_shapes=({1: length}, None), strict=True
            ),
        }
    edge = to_edge_transform_and_lower(
        programs,
        partitioner={
            "vision_encoder": [tiny.XnnpackPartitioner()],
            "token_embedding": [],
            "text_decoder": [tiny.XnnpackDynamicallyQuantizedPartitioner(), tiny.XnnpackPartitioner()],
        },
        constant_methods={
            "get_max_seq_len": SIZES.context,
            "get_max_context_len": SIZES.context,
            "get_vocab_size": SIZES.vocab,
            "get_bos_id": 1,
            "get_eos_ids": [2],
            "use_kv_cache": True,
            "enable_dynamic_shape": True,
        },
        compile_config=EdgeCompileConfig(_check_ir_validity=False),
    )
    planning = tiny.MemoryPlanningPass(alloc_graph_input=False)
    config = ExecutorchBackendConfig(do_quant_fusion_and_const_prop=True, memory_planning_pass=planning)
    return bytes(edge.to_executorch(config).buffer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR, indent=2))
    data = build()
    (folder / "model.pte").write_bytes(data)
    print(f"model.pte: {len(data) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
