"""The weights of a CTranslate2 Whisper as transformers names them.

CTranslate2's model.bin: a version, the name of the model's kind, a revision and a count of variables (all
integers little endian); each variable a name (length with its closing zero in 16 bits), rank, sizes, a code
of its type and its bytes; then names that stand for other variables.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

VERSION = 6
DTYPES = {0: "<f4", 1: "i1", 2: "<i2", 3: "<i4", 4: "<f2"}
FEEDFORWARD = {
    "ffn/layer_norm": "final_layer_norm",
    "ffn/linear_0": "fc1",
    "ffn/linear_1": "fc2",
}
# CTranslate2 keeps as one matrix what is multiplied with one input.
SELF_ATTENTION = {
    "self_attention/layer_norm": ("self_attn_layer_norm",),
    "self_attention/linear_0": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attention/linear_1": ("self_attn.out_proj",),
}
CROSS_ATTENTION = {
    "attention/layer_norm": ("encoder_attn_layer_norm",),
    "attention/linear_0": ("encoder_attn.q_proj",),
    "attention/linear_1": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
    "attention/linear_2": ("encoder_attn.out_proj",),
}
ENDS = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}
# Parts outside the layers; what is not named here only configures CTranslate2.
SINGLE = {
    "encoder/conv1": "encoder.conv1",
    "encoder/conv2": "encoder.conv2",
    "encoder/layer_norm": "encoder.layer_norm",
    "encoder/position_encodings/encodings": "encoder.embed_positions.weight",
    "decoder/embeddings": "decoder.embed_tokens",
    "decoder/layer_norm": "decoder.layer_norm",
    "decoder/position_encodings/encodings": "decoder.embed_positions.weight",
}


def read_variables(path: Path) -> dict[str, np.ndarray]:
    """All variables of a model.bin by name."""
    data = path.read_bytes()
    place = 0

    def integer(code: str) -> int:
        nonlocal place
        (value,) = struct.unpack_from("<" + code, data, place)
        place += struct.calcsize(code)
        return int(value)

    def take(length: int) -> bytes:
        nonlocal place
        place += length
        return data[place - length : place]

    def text() -> str:
        return take(integer("H")).rstrip(b"\0").decode()

    version, kind, _ = integer("I"), text(), integer("I")
    if (version, kind) != (VERSION, "WhisperSpec"):
        raise SystemExit(f"{path}: expected WhisperSpec in version {VERSION}, got {kind} in {version}")
    found = {}
    for _ in range(integer("I")):
        name = text()
        shape = [integer("I") for _ in range(integer("B"))]
        dtype = DTYPES[integer("B")]
        found[name] = np.frombuffer(take(integer("I")), dtype).reshape(shape)
    return found


def to_transformers(variables: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """The state of a WhisperForConditionalGeneration in float32."""
    state = {}
    for name, value in variables.items():
        for target, part in renamed(name, value):
            state[f"model.{target}"] = torch.from_numpy(part.astype(np.float32))
    state["proj_out.weight"] = state["model.decoder.embed_tokens.weight"]
    return state


def renamed(name: str, value: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    owner, _, end = name.rpartition("/")
    if name in SINGLE:
        yield SINGLE[name], value
    elif owner in SINGLE:
        yield f"{SINGLE[owner]}.{ENDS[end]}", value
    elif "/layer_" in name and end in ENDS:
        half, layer, rest = owner.split("/", 2)
        targets = {key: (new,) for key, new in FEEDFORWARD.items()} | SELF_ATTENTION | CROSS_ATTENTION
        for target, part in zip(targets[rest], np.split(value, len(targets[rest])), strict=True):
            if not (target.endswith("k_proj") and end == "bias"):  # Whisper's keys have none; it is zero here
                yield f"{half}.layers.{layer.removeprefix('layer_')}.{target}.{ENDS[end]}", part
