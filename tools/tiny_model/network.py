"""The tiny vision-language model: image encoder, projector and causal decoder (training side)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Config:
    """Sizes of the network; the values are those of the shipped model."""

    dim: int = 192
    vision_blocks: int = 3
    vision_heads: int = 6
    vision_hidden: int = 512
    decoder_blocks: int = 5
    heads: int = 6
    kv_heads: int = 2
    head_dim: int = 32
    hidden: int = 384
    vocab: int = 640
    context: int = 256
    image_tokens: int = 16
    mel_bins: int = 64
    frames: int = 400
    hearing_dim: int = 160
    hearing_blocks: int = 4
    hearing_heads: int = 5
    hearing_hidden: int = 320
    audio_tokens: int = 25
    rope_theta: float = 1e4


class RMSNorm(nn.Module):
    """Written out because the fused one is slow in bf16 on CPU."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-5) * self.weight).to(x.dtype)


class EncoderBlock(nn.Module):
    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = RMSNorm(dim), RMSNorm(dim)
        self.q, self.k, self.v = (nn.Linear(dim, dim) for _ in range(3))
        self.o = nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        y = self.norm1(x)
        q, k, v = (
            f(y).view(b, n, self.heads, d // self.heads).transpose(1, 2) for f in (self.q, self.k, self.v)
        )
        scores = (q @ k.transpose(2, 3)) * (d // self.heads) ** -0.5
        y = (torch.softmax(scores.float(), -1).to(v.dtype) @ v).transpose(1, 2).reshape(b, n, d)
        x = x + self.o(y)
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Vision(nn.Module):
    """Float [B,3,64,64] in -1..1 to [B,64,dim] patch features and [B,16,dim] image tokens."""

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.stem1 = nn.Conv2d(3, 32, 3, 2, 1)
        self.stem2 = nn.Conv2d(32, 64, 3, 2, 1)
        self.stem3 = nn.Conv2d(64, 64, 3, 1, 1)
        self.stem4 = nn.Conv2d(64, cfg.dim, 3, 2, 1)
        self.pos = nn.Parameter(torch.randn(64, cfg.dim) * 0.02)
        self.blocks = nn.ModuleList(
            EncoderBlock(cfg.dim, cfg.vision_heads, cfg.vision_hidden) for _ in range(cfg.vision_blocks)
        )
        self.norm = RMSNorm(cfg.dim)
        self.proj1, self.proj2 = nn.Linear(4 * cfg.dim, cfg.dim), nn.Linear(cfg.dim, cfg.dim)

    def features(self, x: Tensor) -> Tensor:
        x = F.gelu(self.stem1(x))
        x = F.gelu(self.stem2(x))
        x = x + F.gelu(self.stem3(x))
        x = self.stem4(x).flatten(2).transpose(1, 2) + self.pos
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def project(self, x: Tensor) -> Tensor:
        b, _, d = x.shape
        x = x.view(b, 4, 2, 4, 2, d).transpose(2, 3).reshape(b, 16, 4 * d)
        return self.proj2(F.gelu(self.proj1(x)))

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.features(x))


class Hearing(nn.Module):
    """Log-mel float [B,64,400] (4 s) to [B,100,hearing_dim] features and [B,25,dim] audio tokens.

    Convolutions in time are written as linear layers over neighbouring frames: those are quantised.
    """

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        width, half = cfg.hearing_dim, cfg.hearing_dim // 5 * 4
        self.stem1 = nn.Linear(4 * cfg.mel_bins, half)
        self.stem2 = nn.Linear(3 * half, half)
        self.stem3 = nn.Linear(4 * half, width)
        self.pos = nn.Parameter(torch.randn(cfg.frames // 4, width) * 0.02)
        self.blocks = nn.ModuleList(
            EncoderBlock(width, cfg.hearing_heads, cfg.hearing_hidden) for _ in range(cfg.hearing_blocks)
        )
        self.norm = RMSNorm(width)
        self.proj1, self.proj2 = nn.Linear(4 * width, width), nn.Linear(width, cfg.dim)

    @staticmethod
    def halve(x: Tensor) -> Tensor:
        """[B,N,C] to [B,N/2,4C]: windows of four, one beginning at every second position."""
        b, n, c = x.shape
        pairs = F.pad(x, (0, 0, 1, 1)).reshape(b, n // 2 + 1, 2 * c)
        return torch.cat((pairs[:, :-1], pairs[:, 1:]), 2)

    def features(self, x: Tensor) -> Tensor:
        # How loud a recording is does not matter.
        x = (x - x.amax((1, 2), keepdim=True) + 1).transpose(1, 2)
        x = F.gelu(self.stem1(self.halve(x)))
        wide = F.pad(x, (0, 0, 1, 1))
        x = x + F.gelu(self.stem2(torch.cat((wide[:, :-2], x, wide[:, 2:]), 2)))
        x = self.stem3(self.halve(x)) + self.pos
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def project(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        return self.proj2(F.gelu(self.proj1(x.reshape(b, n // 4, 4 * d))))

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.features(x))


def rope_table(cfg: Config) -> tuple[Tensor, Tensor]:
    """Cosine and sine, each [context, head_dim / 2]."""
    half = cfg.head_dim // 2
    angle = torch.arange(cfg.context)[:, None] * cfg.rope_theta ** (-torch.arange(half) / half)[None]
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Half-split rotary embedding of [..., head_dim]; cos and sin broadcast against [..., head_dim / 2]."""
    a, b = x.float().chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1).to(x.dtype)


class DecoderBlock(nn.Module):
    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.cfg = cfg
        self.norm1, self.norm2 = RMSNorm(cfg.dim), RMSNorm(cfg.dim)
        self.q = nn.Linear(cfg.dim, cfg.heads * cfg.head_dim, bias=False)
        self.k = nn.Linear(cfg.dim, cfg.kv_heads * cfg.head_dim, bias=False)
        self.v = nn.Linear(cfg.dim, cfg.kv_heads * cfg.head_dim, bias=False)
        self.o = nn.Linear(cfg.heads * cfg.head_dim, cfg.dim, bias=False)
        self.gate = nn.Linear(cfg.dim, cfg.hidden, bias=False)
        self.up = nn.Linear(cfg.dim, cfg.hidden, bias=False)
        self.down = nn.Linear(cfg.hidden, cfg.dim, bias=False)

    def feed_forward(self, x: Tensor) -> Tensor:
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, bias: Tensor) -> Tensor:
        b, n, _ = x.shape
        kv, hd = self.cfg.kv_heads, self.cfg.head_dim
        group = self.cfg.heads // kv
        y = self.norm1(x)
        q = self.q(y).view(b, n, kv, group, hd).permute(0, 2, 3, 1, 4)
        k = self.k(y).view(b, n, kv, hd).transpose(1, 2)
        v = self.v(y).view(b, n, kv, hd).transpose(1, 2)
        q = rotate(q, cos[:, None, None], sin[:, None, None]).reshape(b, kv, group * n, hd)
        k = rotate(k, cos[:, None], sin[:, None])
        scores = (q @ k.transpose(2, 3)) * hd**-0.5
        scores = scores.view(b, kv, group, n, n) + bias[:, None, None]
        weights = torch.softmax(scores.float(), -1).to(v.dtype).view(b, kv, group * n, n)
        y = (weights @ v).view(b, kv, group, n, hd).permute(0, 3, 1, 2, 4).reshape(b, n, -1)
        return self.feed_forward(x + self.o(y))


class TinyVLM(nn.Module):
    """Image and audio encoder, token embedding (tied with the output head) and decoder."""

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.cfg = cfg
        self.vision = Vision(cfg)
        self.embedding = nn.Embedding(cfg.vocab, cfg.dim)
        self.blocks = nn.ModuleList(DecoderBlock(cfg) for _ in range(cfg.decoder_blocks))
        self.norm = RMSNorm(cfg.dim)
        self.hearing = Hearing(cfg)
        cos, sin = rope_table(cfg)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        for name, weight in self.named_parameters():
            if name.endswith("embedding.weight"):
                nn.init.normal_(weight, std=0.02)
            elif weight.ndim >= 2 and not name.endswith(".pos"):
                std = weight[0].numel() ** -0.5
                nn.init.normal_(weight, std=std * (0.3 if name.split(".")[-2] in ("o", "down") else 1.0))
            elif name.endswith("bias"):
                nn.init.zeros_(weight)

    def forward(
        self, images: Tensor, ids: Tensor, gather: Tensor, segment: Tensor, position: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Runs a batch of packed rows.

        Args:
            images: Float [B,3,64,64] in -1..1.
            ids: Token ids [R,N].
            gather: [R,N]; row of the flattened image tokens [B*16] to put there, or -1 for the text token.
            segment: [R,N]; a position sees earlier ones of its own segment and of segment 0; -1 pads.
            position: [R,N]; rotary position.

        Returns:
            Patch features [B,64,dim] (for the auxiliary loss) and hidden states [R,N,dim].
        """
        patches = self.vision.features(images)
        return patches, self.decode(self.vision.project(patches), ids, gather, segment, position)

    def decode(self, media: Tensor, ids: Tensor, gather: Tensor, segment: Tensor, position: Tensor) -> Tensor:
        """Hidden states [R,N,dim]; media are image or audio tokens [B,T,dim], the rest as in `forward`."""
        x = torch.where(
            (gather >= 0)[..., None],
            F.embedding(gather.clamp_min(0), media.reshape(-1, self.cfg.dim).float()),
            F.embedding(ids, self.embedding.weight),
        )
        n = ids.shape[1]
        causal = torch.ones(n, n, dtype=torch.bool).tril()
        seen = causal & ((segment[:, None] == segment[:, :, None]) | (segment[:, None] == 0))
        bias = torch.zeros_like(seen, dtype=torch.bfloat16).masked_fill(~seen, -1e4)
        cos, sin = self.cos[position], self.sin[position]
        for block in self.blocks:
            x = block(x, cos, sin, bias)
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden.float() @ self.embedding.weight.T
