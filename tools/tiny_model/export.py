"""Exports a trained checkpoint to model.pte.

Four methods: vision_encoder (float [1,3,64,64] in -1..1), audio_encoder (log-mel float [1,64,400]),
token_embedding (int64 [1,S]) and text_decoder (float [1,S,192] with int64 [1] start position). Delegated to
XNNPACK, KV cache on llama::update_cache and llama::custom_sdpa.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import executorch.extension.llm.custom_ops.custom_ops  # registers llama::*
import executorch.kernels.quantized  # noqa: F401  (registers quantized_decomposed::*.out)
import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import (
    XnnpackDynamicallyQuantizedPartitioner,
    XnnpackPartitioner,
)
from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge_transform_and_lower
from executorch.exir.passes import MemoryPlanningPass
from network import Config, DecoderBlock, TinyVLM, rotate
from tokenizer import BOS, END
from torch import Tensor, nn
from torchao.quantization.granularity import PerAxis, PerGroup
from torchao.quantization.quant_api import (
    Int8DynamicActivationIntxWeightConfig,
    IntxWeightOnlyConfig,
    quantize_,
)
from torchao.utils import unwrap_tensor_subclass

MAX_CHUNK = 255


class CachedBlock(nn.Module):
    """A decoder block over a KV cache, with the weights of a training block."""

    def __init__(self, block: DecoderBlock) -> None:
        super().__init__()
        cfg = block.cfg
        self.block, self.cfg = block, cfg
        self.register_buffer("k_cache", torch.zeros(1, cfg.context, cfg.kv_heads, cfg.head_dim))
        self.register_buffer("v_cache", torch.zeros(1, cfg.context, cfg.kv_heads, cfg.head_dim))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, start: int) -> Tensor:
        b, n, _ = x.shape
        y = self.block.norm1(x)
        heads, kv_heads, head_dim = self.cfg.heads, self.cfg.kv_heads, self.cfg.head_dim
        cos, sin = cos[None, :, None], sin[None, :, None]
        q = rotate(self.block.q(y).view(b, n, heads, head_dim), cos, sin)
        k = rotate(self.block.k(y).view(b, n, kv_heads, head_dim), cos, sin)
        v = self.block.v(y).view(b, n, kv_heads, head_dim)
        torch.ops.llama.update_cache(k, self.k_cache, start)
        torch.ops.llama.update_cache(v, self.v_cache, start)
        y = torch.ops.llama.custom_sdpa(q, self.k_cache, self.v_cache, start, None, 0.0, True, None)
        return self.block.feed_forward(x + self.block.o(y.view(b, n, -1)))


class TextDecoder(nn.Module):
    """Embeddings [1,S,dim] and start position [1] to the logits [1,vocab] after the last of them."""

    def __init__(self, model: TinyVLM) -> None:
        super().__init__()
        self.context = model.cfg.context
        self.blocks = nn.ModuleList(CachedBlock(block) for block in model.blocks)
        self.norm = model.norm
        self.head = nn.Linear(model.cfg.dim, model.cfg.vocab, bias=False)
        self.head.weight = nn.Parameter(model.embedding.weight.detach().clone())
        self.register_buffer("cos", model.cos.clone())
        self.register_buffer("sin", model.sin.clone())

    def forward(self, embeds: Tensor, start_pos: Tensor) -> Tensor:
        start = start_pos[0].item()
        n = embeds.shape[1]
        torch._check(start >= 0)
        torch._check(start + n <= self.context)
        cos, sin = self.cos.narrow(0, start, n), self.sin.narrow(0, start, n)
        x = embeds
        for block in self.blocks:
            x = block(x, cos, sin, start)
        return self.head(self.norm(x[:, -1]))


class TokenEmbedding(nn.Module):
    def __init__(self, model: TinyVLM) -> None:
        super().__init__()
        self.embedding = nn.Embedding(model.cfg.vocab, model.cfg.dim)
        self.embedding.weight = nn.Parameter(model.embedding.weight.detach().clone())

    def forward(self, tokens: Tensor) -> Tensor:
        return self.embedding(tokens)


def quantise(vision: nn.Module, hearing: nn.Module, decoder: nn.Module, embedding: nn.Module) -> None:
    """8-bit activations; 4-bit weights in audio encoder and the decoder's blocks, 8-bit elsewhere."""
    eight = Int8DynamicActivationIntxWeightConfig(weight_dtype=torch.int8, weight_granularity=PerAxis(0))
    four = Int8DynamicActivationIntxWeightConfig(weight_dtype=torch.int4, weight_granularity=PerGroup(32))
    quantize_(vision, eight)
    quantize_(hearing, four)
    quantize_(decoder, four, lambda m, name: isinstance(m, nn.Linear) and "blocks" in name)
    quantize_(decoder, eight, lambda m, name: isinstance(m, nn.Linear) and "blocks" not in name)
    weights = IntxWeightOnlyConfig(weight_dtype=torch.int8, granularity=PerAxis(0))
    quantize_(embedding, weights, lambda m, _: isinstance(m, nn.Embedding))
    for module in (vision, hearing, decoder, embedding):
        unwrap_tensor_subclass(module)


def build(model: TinyVLM, quantised: bool = True) -> bytes:
    """Lowers the four methods and returns the .pte."""
    cfg: Config = model.cfg
    vision, hearing = model.vision, model.hearing
    decoder, embedding = TextDecoder(model).eval(), TokenEmbedding(model).eval()
    if quantised:
        quantise(vision, hearing, decoder, embedding)
    length = torch.export.Dim("length", min=1, max=MAX_CHUNK)
    programs = {
        "vision_encoder": torch.export.export(vision, (torch.zeros(1, 3, 64, 64),), strict=True),
        "audio_encoder": torch.export.export(
            hearing, (torch.zeros(1, cfg.mel_bins, cfg.frames),), strict=True
        ),
        "token_embedding": torch.export.export(
            embedding, (torch.zeros(1, 8, dtype=torch.long),), dynamic_shapes=({1: length},), strict=True
        ),
        "text_decoder": torch.export.export(
            decoder,
            (torch.zeros(1, 8, cfg.dim), torch.zeros(1, dtype=torch.long)),
            dynamic_shapes=({1: length}, None),
            strict=True,
        ),
    }
    constants = {
        "get_max_seq_len": cfg.context,
        "get_max_context_len": cfg.context,
        "get_vocab_size": cfg.vocab,
        "get_bos_id": BOS,
        "get_eos_ids": [END],
        "get_n_eos": 1,
        "get_n_layers": cfg.decoder_blocks,
        "get_dtype": 6,
        "use_kv_cache": True,
        "use_sdpa_with_kv_cache": True,
        "enable_dynamic_shape": True,
    }
    edge = to_edge_transform_and_lower(
        programs,
        partitioner={
            name: []
            if name == "token_embedding"
            else [XnnpackDynamicallyQuantizedPartitioner(), XnnpackPartitioner()]
            for name in programs
        },
        constant_methods=constants,
        compile_config=EdgeCompileConfig(_check_ir_validity=False),
    )
    # Inputs are not planned, so that a runner can lend its own memory instead of having it copied.
    planning = MemoryPlanningPass(alloc_graph_input=False)
    config = ExecutorchBackendConfig(do_quant_fusion_and_const_prop=True, memory_planning_pass=planning)
    program = edge.to_executorch(config)
    return bytes(program.buffer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--checkpoint", type=Path, help="final.pt or latest.pt; without it the weights stay random"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the model")
    parser.add_argument("--fp32", action="store_true", help="no quantisation (16 MB)")
    args = parser.parse_args()
    torch.manual_seed(1)
    model = TinyVLM(Config()).eval()
    if args.checkpoint:
        model.load_state_dict(torch.load(args.checkpoint, weights_only=True)["model"])
    data = build(model, not args.fp32)
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=args.out, delete=False) as part:
        part.write(data)
    Path(part.name).chmod(0o644)
    Path(part.name).replace(args.out / "model.pte")
    print(f"model.pte: {len(data)} bytes")


if __name__ == "__main__":
    main()
