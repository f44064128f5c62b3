"""Trains the tiny vision-language model on two CPU cores (about 40 minutes)."""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from data import VALIDATION_SEED, Batch, RowMaker, cell_labels, draw_images
from network import Config, TinyVLM
from torch import Tensor, nn

BATCH = 128
TRAIN_SCENES = 120_000


class Rows(torch.utils.data.Dataset):
    """Batch number to packed rows; batch k depends on (seed, k) only, so that runs can be resumed."""

    def __init__(self, tokenizer: Path, seed: int, hard: float) -> None:
        self.maker, self.seed = RowMaker(tokenizer, hard), seed

    def __getitem__(self, step: int) -> tuple[dict[str, Tensor], Tensor]:
        rng = random.Random(self.seed * 1_000_003 + step)
        seeds = [rng.randrange(TRAIN_SCENES) for _ in range(BATCH)]
        batch = self.maker.batch(seeds, rng)
        cells = np.stack([cell_labels(scene) for scene in self.maker.scenes])
        return to_tensors(batch), torch.from_numpy(cells)


def to_tensors(batch: Batch) -> dict[str, Tensor]:
    names = ("ids", "gather", "segment", "position", "label", "answer")
    return {"seeds": torch.tensor(batch.seeds)} | {n: torch.from_numpy(getattr(batch, n)) for n in names}


def normalize(pixels: np.ndarray) -> Tensor:
    """uint8 [B,64,64,3] to float [B,3,64,64] in -1..1: what preprocessor_config.json asks for."""
    floats = torch.from_numpy(pixels.astype(np.float32)).permute(0, 3, 1, 2)
    return (floats / 127.5 - 1.0).contiguous()


def auxiliary_loss(head: nn.Linear, patches: Tensor, cells: Tensor) -> Tensor:
    """Which shape, colour and size is centred in each image cell: makes the encoder learn shapes early."""
    out = head(patches.float())
    weight = torch.ones(6)
    weight[0] = 0.05
    loss = F.cross_entropy(out[..., :6].flatten(0, 1), cells[..., 0].flatten(), weight=weight)
    there = cells[..., 0] > 0
    loss = loss + F.cross_entropy(out[..., 6:14][there], cells[..., 1][there])
    return loss + F.cross_entropy(out[..., 14:][there], cells[..., 2][there])


@torch.no_grad()
def exact_match(
    model: TinyVLM, maker: RowMaker, images: np.ndarray, batches: int, kind: str
) -> dict[str, list[bool]]:
    """Teacher-forced exact match (equal to greedy decoding) by question type, end token included."""
    found: dict[str, list[bool]] = defaultdict(list)
    for k in range(batches):
        rng = random.Random(f"{kind}{k}")
        seeds = list(range(VALIDATION_SEED + k * BATCH, VALIDATION_SEED + (k + 1) * BATCH))
        batch = maker.batch(seeds, rng, kind)
        t = to_tensors(batch)
        pixels = normalize(images[k * BATCH : (k + 1) * BATCH])
        with torch.autocast("cpu", torch.bfloat16):
            _, hidden = model(pixels, t["ids"], t["gather"], t["segment"], t["position"])
        asked = t["label"] >= 0
        right = model.logits(hidden[asked]).argmax(-1) == t["label"][asked]
        ok = np.ones(len(batch.asked), bool)
        np.logical_and.at(ok, t["answer"][asked].numpy(), right.numpy())
        for (_, qa), good in zip(batch.asked, ok, strict=True):
            found[qa.type].append(bool(good))
    return found


def report(model: TinyVLM, maker: RowMaker, images: np.ndarray, batches: int) -> str:
    parts = []
    for kind in ("single", "dialogue", "pair", "free"):
        found = exact_match(model, maker, images, batches, kind)
        every = [x for values in found.values() for x in values]
        parts.append(f"{kind} {np.mean(every):.4f} ({len(every)})")
        if kind in ("single", "pair"):
            parts.append("[" + " ".join(f"{t}:{np.mean(v):.3f}" for t, v in sorted(found.items())) + "]")
    return " ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for checkpoints; a run found there goes on"
    )
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--hard", type=float, default=0.0, help="share of questions of the hardest types only"
    )
    parser.add_argument("--stop-at", type=int, default=0, help="stop after this step (for tests)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    started = time.time()
    images = draw_images(0, TRAIN_SCENES, args.out / "train.npy")
    held_out = draw_images(VALIDATION_SEED, 1024, args.out / "held_out.npy")
    print(f"images after {time.time() - started:.0f} s", flush=True)

    cfg = Config()
    model, head = TinyVLM(cfg), nn.Linear(cfg.dim, 16)
    print(f"{sum(p.numel() for p in model.parameters())} parameters", flush=True)
    matrices = [
        p for n, p in model.named_parameters() if p.ndim == 2 and not n.endswith(("embedding.weight", "pos"))
    ]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen] + list(head.parameters())
    muon = torch.optim.Muon(
        matrices, lr=2e-3, momentum=0.95, nesterov=True, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"
    )
    adamw = torch.optim.AdamW(rest, lr=2e-3, betas=(0.9, 0.98), weight_decay=0.0)
    first = 0
    latest = args.out / "latest.pt"
    if latest.exists():
        state = torch.load(latest, weights_only=True)
        model.load_state_dict(state["model"])
        head.load_state_dict(state["head"])
        muon.load_state_dict(state["muon"])
        adamw.load_state_dict(state["adamw"])
        first = state["step"]
        print(f"resumed at step {first}", flush=True)

    maker = RowMaker(args.tokenizer)
    loader = torch.utils.data.DataLoader(
        Rows(args.tokenizer, args.seed, args.hard),
        batch_size=None,
        sampler=range(first, args.steps),
        num_workers=1,
        prefetch_factor=8,
    )
    compiled = torch.compile(model, dynamic=False)
    mark, total = time.time(), 0.0
    for step, (batch, cells) in enumerate(loader, start=first):
        remaining = 1 - step / args.steps
        for group in (*muon.param_groups, *adamw.param_groups):
            group["lr"] = 2e-3 * min((step + 1) / 100, remaining)
        pixels = normalize(images[batch["seeds"].numpy()])
        with torch.autocast("cpu", torch.bfloat16):
            patches, hidden = compiled(
                pixels, batch["ids"], batch["gather"], batch["segment"], batch["position"]
            )
        asked = batch["label"] >= 0
        loss = F.cross_entropy(model.logits(hidden[asked]), batch["label"][asked])
        whole = loss + 0.5 * remaining * auxiliary_loss(head, patches, cells)
        muon.zero_grad(set_to_none=True)
        adamw.zero_grad(set_to_none=True)
        whole.backward()
        nn.utils.clip_grad_norm_([*model.parameters(), *head.parameters()], 1.0)
        muon.step()
        adamw.step()
        total += loss.item()
        done = step + 1
        if done % 50 == 0:
            rate = (time.time() - mark) / 50
            print(f"{done} {time.time() - started:.0f} s loss {total / 50:.4f} {rate:.3f} s/step", flush=True)
            mark, total = time.time(), 0.0
        if done % 200 == 0 or done in (args.steps, args.stop_at):
            state = {"model": model.state_dict(), "head": head.state_dict(), "step": done}
            state |= {"muon": muon.state_dict(), "adamw": adamw.state_dict()}
            torch.save(state, latest.with_suffix(".part"))
            latest.with_suffix(".part").replace(latest)
        if done % 300 == 0:
            print(done, report(model, maker, held_out, 1), flush=True)
            mark = time.time()
        if done == args.stop_at:
            return
    torch.save({"model": model.state_dict(), "steps": args.steps, "seed": args.seed}, args.out / "final.pt")
    text = report(model, maker, held_out, 8)
    print("final", text, flush=True)
    (args.out / "final.json").write_text(
        json.dumps({"report": text, "seconds": round(time.time() - started)})
    )


if __name__ == "__main__":
    main()
