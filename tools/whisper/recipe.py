"""Whisper as two methods of a .pte whose decoder reads cross-attention keys and values, not encoder states.

optimum's export computes those keys and values from the encoder's states again at every token. Here `encoder`
returns them, one pair of tensors for each decoder layer, and `text_decoder` takes them as inputs that the
program does not copy. All attention goes through llama::custom_sdpa, the decoder's own cache through
llama::update_cache, and a call takes as many tokens as a prompt has.

A batched program is for tokens of several windows in one call of the decoder, each at its own position, one
after the other on one axis: its own cache is the runtime's (kvcache::update_and_attend), and it looks at what
the encoder made through executorch_mm::cross_attend, which lets the runtime give each token its own window's.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

QUANTIZED = "8-bit"
SHORTEST_FRAMES = 100  # of features: one second


class Attention(nn.Module):
    """The projections of one of transformers' attention layers around llama::custom_sdpa."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.q_proj, self.out_proj = layer.q_proj, layer.out_proj
        self.heads, self.head_dim = layer.num_heads, layer.head_dim

    def split(self, x: Tensor) -> Tensor:
        return x.view(1, -1, self.heads, self.head_dim)

    def attend(self, x: Tensor, keys: Tensor, values: Tensor, start: int, causal: bool) -> Tensor:
        # The operator reads keys 0 to start + S, and with `causal` each query up to its own position.
        mixed = torch.ops.llama.custom_sdpa(
            self.split(self.q_proj(x)), keys, values, start, None, 0.0, causal
        )
        return self.out_proj(mixed.view(1, -1, self.heads * self.head_dim))


class CrossAttention(Attention):
    """Over what the encoder has made; of `heads_shown` it tells what the last token looks at."""

    def __init__(self, layer: nn.Module, heads_shown: Sequence[int]) -> None:
        super().__init__(layer)
        self.heads_shown = heads_shown

    def forward(self, x: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, list[Tensor]]:
        # start + S keys are read, and all of them are wanted.
        mixed = self.attend(x, keys, values, keys.shape[1] - x.shape[1], causal=False)
        if not self.heads_shown:
            return mixed, []
        last = self.split(self.q_proj(x[:, -1:])) * self.head_dim**-0.5
        return mixed, [(keys[:, :, head] @ last[:, 0, head, :, None]).softmax(1) for head in self.heads_shown]


class CrossAttentionOfWindows(CrossAttention):
    """The same, where each token may belong to another window."""

    def forward(self, x: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, list[Tensor]]:
        q, scale = self.split(self.q_proj(x)), self.head_dim**-0.5
        mixed = torch.ops.executorch_mm.cross_attend(q, keys, values, scale)
        mixed = self.out_proj(mixed.view(1, -1, self.heads * self.head_dim))
        return mixed, [
            torch.ops.executorch_mm.cross_weights(q, keys, head, scale).transpose(1, 2)
            for head in self.heads_shown
        ]


class SelfAttention(Attention):
    """Without a cache each position reads all others, with one of `positions` rows those before it."""

    def __init__(self, layer: nn.Module, positions: int = 0) -> None:
        super().__init__(layer)
        self.k_proj, self.v_proj = layer.k_proj, layer.v_proj
        if positions:
            shape = 1, positions, self.heads, self.head_dim
            self.register_buffer("keys", torch.zeros(shape), persistent=False)
            self.register_buffer("values", torch.zeros(shape), persistent=False)
        self.cached = positions > 0

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        keys, values = self.split(self.k_proj(x)), self.split(self.v_proj(x))
        if not self.cached:
            return self.attend(x, keys, values, 0, causal=False)
        torch.ops.llama.update_cache(keys, self.keys, start)
        torch.ops.llama.update_cache(values, self.values, start)
        return self.attend(x, self.keys, self.values, start, causal=True)


class SelfAttentionOfWindows(Attention):
    """With the runtime's cache: each token reads those of its window up to its own position."""

    def __init__(self, layer: nn.Module, number: int) -> None:
        super().__init__(layer)
        self.k_proj, self.v_proj, self.number = layer.k_proj, layer.v_proj, number

    def forward(self, x: Tensor, places: Tensor) -> Tensor:
        q, k, v = (
            self.split(project(x)).transpose(1, 2) for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = torch.ops.kvcache.update_and_attend(
            q.contiguous(),
            k.contiguous(),
            v.contiguous(),
            places[:, None],
            self.number,
            self.head_dim**-0.5,
            torch.float32,
        )
        return self.out_proj(mixed.transpose(1, 2).reshape(1, -1, self.heads * self.head_dim))


class Feedforward(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.norm, self.fc1, self.fc2 = layer.final_layer_norm, layer.fc1, layer.fc2

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fc2(nn.functional.gelu(self.fc1(self.norm(x))))


class EncoderLayer(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.norm, self.attention = layer.self_attn_layer_norm, SelfAttention(layer.self_attn)
        self.feedforward = Feedforward(layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.feedforward(x + self.attention(self.norm(x)))


class Encoder(nn.Module):
    """Features float32 [1, bins, 2 * T] to each decoder layer's keys and values, [1, T, heads, size].

    A window of less than 30 seconds has the first T positions.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        encoder, decoder = model.model.encoder, model.model.decoder
        self.conv1, self.conv2 = encoder.conv1, encoder.conv2
        self.register_buffer("positions", encoder.embed_positions.weight.detach(), persistent=False)
        self.layers = nn.ModuleList(EncoderLayer(layer) for layer in encoder.layers)
        self.norm = encoder.layer_norm
        self.projections = nn.ModuleList(
            projection
            for layer in decoder.layers
            for projection in (layer.encoder_attn.k_proj, layer.encoder_attn.v_proj)
        )
        self.heads, self.head_dim = (
            decoder.layers[0].encoder_attn.num_heads,
            decoder.layers[0].encoder_attn.head_dim,
        )

    def forward(self, input_features: Tensor) -> list[Tensor]:
        x = nn.functional.gelu(self.conv1(input_features))
        x = nn.functional.gelu(self.conv2(x)).transpose(1, 2)
        x = x + self.positions[: x.shape[1]]
        for layer in self.layers:
            x = layer(x)
        x = self.norm(x)
        return [projection(x).view(1, -1, self.heads, self.head_dim) for projection in self.projections]


class DecoderLayer(nn.Module):
    def __init__(self, layer: nn.Module, attention: nn.Module, cross_attention: nn.Module) -> None:
        super().__init__()
        self.norm, self.attention = layer.self_attn_layer_norm, attention
        self.cross_norm, self.cross_attention = layer.encoder_attn_layer_norm, cross_attention
        self.feedforward = Feedforward(layer)

    def forward(
        self, x: Tensor, keys: Tensor, values: Tensor, place: Tensor | int
    ) -> tuple[Tensor, list[Tensor]]:
        x = x + self.attention(self.norm(x), place)
        heard, shown = self.cross_attention(self.cross_norm(x), keys, values)
        return self.feedforward(x + heard), shown


class Decoder(nn.Module):
    """Ids int64 [1, S], the encoder's outputs and start position int64 [1] to the last logits, [1, 1, V].

    With alignment heads, pairs of layer and head, also to how much the last token looks at each of the T
    frames in each of these heads, [1, heads, T]. A batched one takes the position of each token, int64 [S],
    and gives the logits of each, [1, S, V].
    """

    def __init__(
        self, model: nn.Module, alignment_heads: Sequence[Sequence[int]], *, batched: bool = False
    ) -> None:
        super().__init__()
        decoder = model.model.decoder
        self.length, self.batched = model.config.max_target_positions, batched
        # An own layer: without padding, or its 8-bit operator is not found, and not tied to the head.
        self.tokens = nn.Embedding.from_pretrained(decoder.embed_tokens.weight.detach())
        self.positions = nn.Embedding.from_pretrained(decoder.embed_positions.weight.detach())
        self.layers = nn.ModuleList()
        for index, layer in enumerate(decoder.layers):
            shown = [head for place, head in alignment_heads if place == index]
            if batched:
                attention: nn.Module = SelfAttentionOfWindows(layer.self_attn, index)
                cross: nn.Module = CrossAttentionOfWindows(layer.encoder_attn, shown)
            else:
                attention = SelfAttention(layer.self_attn, self.length)
                cross = CrossAttention(layer.encoder_attn, shown)
            self.layers.append(DecoderLayer(layer, attention, cross))
        self.has_alignment = len(alignment_heads) > 0
        self.norm, self.head = decoder.layer_norm, model.proj_out

    def forward(
        self, decoder_input_ids: Tensor, states: list[Tensor], cache_position: Tensor
    ) -> Tensor | tuple[Tensor, Tensor]:
        place: Tensor | int = cache_position
        places = cache_position
        if not self.batched:
            start = cache_position[0].item()
            torch._check(start >= 0)
            torch._check(start < self.length)
            place, places = start, cache_position + torch.arange(decoder_input_ids.shape[1])
        x = self.tokens(decoder_input_ids) + self.positions(places)
        shown: list[Tensor] = []
        for index, layer in enumerate(self.layers):
            x, of_layer = layer(x, states[2 * index], states[2 * index + 1], place)
            shown += of_layer
        logits = self.head(self.norm(x if self.batched else x[:, -1:]))
        return (logits, torch.cat(shown, 2).transpose(1, 2)) if self.has_alignment else logits


def metadata(model: nn.Module, *, takes_short: bool) -> dict[str, object]:
    """What the program says of itself, under the names that exporters use."""
    config = model.config
    shortest = {"min_audio_frames": SHORTEST_FRAMES} if takes_short else {}
    return shortest | {
        "get_bos_id": config.bos_token_id,
        "get_eos_id": config.eos_token_id,
        "get_eos_ids": [config.eos_token_id],
        "decoder_start_token_id": config.decoder_start_token_id,
        "get_max_seq_len": config.max_target_positions,
        "get_max_context_len": config.max_target_positions,
        "get_n_layers": config.decoder_layers,
        "get_vocab_size": config.vocab_size,
        "use_kv_cache": True,
        "use_sdpa_with_kv_cache": True,
        "enable_dynamic_shape": True,
    }


def quantize(encoder: nn.Module, decoder: nn.Module) -> None:
    """8-bit weights by row; what the linear layers multiply them with is rounded to 8 bits at run time."""
    import executorch.kernels.quantized  # noqa: F401  (registers the embedding's operator)
    from torchao.quantization import Int8DynamicActivationIntxWeightConfig, IntxWeightOnlyConfig, quantize_
    from torchao.quantization.granularity import PerAxis
    from torchao.utils import unwrap_tensor_subclass

    linear = Int8DynamicActivationIntxWeightConfig(weight_dtype=torch.int8, weight_granularity=PerAxis(0))
    tokens = IntxWeightOnlyConfig(weight_dtype=torch.int8, granularity=PerAxis(0))
    for method in (encoder, decoder):
        quantize_(method, linear)
    quantize_(decoder, tokens, lambda module, _: module is decoder.tokens)
    for method in (encoder, decoder):
        unwrap_tensor_subclass(method)


@torch.no_grad()
def export(
    model: nn.Module,
    path: Path,
    precision: str = "fp32",
    *,
    takes_short: bool = True,
    batched: bool = False,
) -> None:
    """Writes the .pte of a WhisperForConditionalGeneration, which `precision` "8-bit" changes in place.

    With `takes_short` its encoder takes windows of any length from a second on, so that a short clip does not
    pay for 30 seconds. With `batched` its decoder takes tokens of several windows in one call.
    """
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import (
        XnnpackDynamicallyQuantizedPartitioner,
        XnnpackPartitioner,
    )
    from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge_transform_and_lower
    from executorch.exir.passes import MemoryPlanningPass
    from executorch.extension.llm.custom_ops import custom_ops  # noqa: F401  (registers the operators)

    alignment_heads = getattr(model.generation_config, "alignment_heads", None) or []
    encoder, decoder = Encoder(model).eval(), Decoder(model, alignment_heads, batched=batched).eval()
    if precision == QUANTIZED:
        quantize(encoder, decoder)
    if batched:
        sys.path.append(str(Path(__file__).resolve().parents[1] / "fixtures" / "kvcache"))
        import kvcache_op  # noqa: F401  (registers the operator, newer than executorch 1.5.1)
        import operators  # noqa: F401  (registers ours)
    features = torch.zeros(1, model.config.num_mel_bins, 2 * model.config.max_source_positions)
    states = encoder(features)
    ids, position = torch.zeros(1, 4, dtype=torch.long), torch.zeros(4 if batched else 1, dtype=torch.long)
    tokens = torch.export.Dim("tokens", min=1, max=decoder.length)
    frames = torch.export.Dim("frames", min=SHORTEST_FRAMES // 2, max=model.config.max_source_positions)
    of_features = {2: 2 * frames} if takes_short else None
    of_state = {1: frames} if takes_short else None
    programs = {
        "encoder": torch.export.export(encoder, (features,), dynamic_shapes=(of_features,), strict=True),
        "text_decoder": torch.export.export(
            decoder,
            (ids, states, position),
            dynamic_shapes=({1: tokens}, [of_state] * len(states), {0: tokens} if batched else None),
            strict=True,
        ),
    }
    lowered = to_edge_transform_and_lower(
        programs,
        partitioner=[XnnpackDynamicallyQuantizedPartitioner(), XnnpackPartitioner()],
        compile_config=EdgeCompileConfig(_check_ir_validity=False, _skip_dim_order=True),
        constant_methods=metadata(model, takes_short=takes_short),
    )
    # Inputs without memory of their own: the runtime takes the caller's pointers.
    planning = MemoryPlanningPass(alloc_graph_input=False)
    backend = ExecutorchBackendConfig(
        extract_delegate_segments=True, memory_planning_pass=planning, do_quant_fusion_and_const_prop=True
    )
    with path.open("wb") as file:
        lowered.to_executorch(backend).write_to_file(file)
