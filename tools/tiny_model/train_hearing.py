"""Teaches a trained tiny model to hear.

The audio encoder learns alone first, by CTC; then the decoder and the new words' rows learn with it, and
questions about images are mixed in so that their answers stay. The image encoder and all old rows of the
embedding do not change.

Run by `torchrun --nproc-per-node 2`, each process has one thread and half of a batch: on cores that have
other work too that loses less than threads that wait for one another in every operation.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from data import AUDIO_TOKENS, LENGTH, VALIDATION_SEED, Row, RowMaker, draw_images
from network import Config, TinyVLM
from speech_data import CLIPS, Clips, Spoiler, features, speak
from tokenizer import ASSISTANT, END, USER
from tokenizers import Tokenizer
from torch import Tensor, nn
from train import TRAIN_SCENES, normalize, report, to_tensors
from voices import COMMANDS, DIGITS, FIRST_UNSEEN_SEED, placed


@dataclass(frozen=True)
class Phase:
    """What a step is made of.

    Attributes:
        clips: Two in a row.
        images: Rows about images.
        hard: Share of the image questions that is of the hardest types.
        kinds: Kinds of image rows, if not the usual ones.
        rates: Peak learning rates of the audio encoder with the new words' rows, and of the decoder.
        ctc: Weight of the CTC loss beside the answers'.
    """

    clips: int
    images: int
    hard: float
    kinds: dict[str, float] | None
    rates: tuple[float, float]
    ctc: float


HEAR = Phase(128, 24, 0.35, None, (2e-3, 1.2e-3), 0.3)
RECALL = Phase(64, 72, 0.5, {"single": 0.2, "dialogue": 0.1, "pair": 0.45, "free": 0.25}, (3e-4, 6e-4), 0.0)
"""Hearing costs some of what the decoder knew about pairs of images; this brings it back."""

ROW_KEYS = ("ids", "gather", "segment", "position")
FIRST_NEW_TOKEN = 565
WORDS = (*DIGITS, *COMMANDS)
QUESTIONS = (
    "What do you hear?", "What do you hear?", "What is said?", "Listen.", "What did they say?",
    "What do I say?", "Write down what you hear.", "What does the voice say?", "What is this sound?",
    "Transcribe this.",
)  # fmt: skip


class SpokenRows:
    """Two clips per packed row: standalone, or the second in a later turn."""

    def __init__(self, tokenizer: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(tokenizer))

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def batch(self, words: list[str], rng: random.Random) -> dict[str, Tensor]:
        """Rows in which audio i says words[i]; see `TinyVLM.decode`."""
        rows = [self._row(words, index, rng) for index in range(0, len(words), 2)]
        names = ("ids", "gather", "segment", "position", "label", "answer")
        return {n: torch.tensor([getattr(row, n) for row in rows]) for n in names}

    def _row(self, words: list[str], index: int, rng: random.Random) -> Row:
        row = Row()
        is_chat = rng.random() < 0.4
        for k, audio in enumerate((index, index + 1)):
            segment = 0 if is_chat else k + 1
            if not is_chat:
                row.next_position = 0
            form = "turn" if is_chat or rng.random() < 0.6 else rng.choice(("user", "raw", "after"))
            self._ask(row, audio, segment, form, rng)
            row.reply(self.encode(words[audio]), segment, audio, keep_end=rng.random() < 0.7)
        row.pad()
        if len(row.ids) != LENGTH:
            raise SystemExit(f"a row of {len(row.ids)} positions")
        return row

    def _ask(self, row: Row, audio: int, segment: int, form: str, rng: random.Random) -> None:
        text = rng.choice(QUESTIONS)
        if rng.random() < 0.25:
            text = text[0].lower() + text[1:]
        if rng.random() < 0.25:
            text = text[:-1]
        question = self.encode(text)
        if form in ("turn", "user"):
            row.text([USER], segment)
        if form in ("user", "after"):
            row.text(question, segment)
        row.audio(audio, segment)
        if form in ("turn", "raw"):
            row.text(question, segment)
        if form in ("turn", "user"):
            row.text([END, ASSISTANT], segment)


class Batches(torch.utils.data.Dataset):
    """Batch number to features, pixels, CTC targets and rows; batch k depends on (seed, k) and its noises."""

    def __init__(
        self, clips: Clips, scenes: np.ndarray, tokenizer: Path, seed: int, phase: Phase, world: int
    ) -> None:
        self.clips, self.scenes, self.seed = clips, scenes, seed
        self.rows, self.questions = SpokenRows(tokenizer), RowMaker(tokenizer, phase.hard, phase.kinds)
        self.audio, self.images = phase.clips // world, phase.images // world
        self._spoiler: Spoiler | None = None

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        if self._spoiler is None:
            torch.set_num_threads(1)
            self._spoiler = Spoiler(self.clips, np.random.default_rng(self.seed))
        self._spoiler.rng = np.random.default_rng((self.seed, step))
        rng = random.Random(self.seed * 1_000_003 + step)
        indices = [rng.randrange(len(self.clips)) for _ in range(self.audio)]
        words = [self.clips.words[index] for index in indices]
        seeds = [rng.randrange(TRAIN_SCENES) for _ in range(self.images)]
        seen = to_tensors(self.questions.batch(seeds, rng))
        heard = self.rows.batch(words, rng)
        # Audio tokens come first among the media.
        seen["gather"] += (seen["gather"] >= 0) * self.audio * AUDIO_TOKENS
        rows = {key: torch.cat((heard[key], seen[key])) for key in (*ROW_KEYS, "label")}
        pixels = normalize(self.scenes[seeds])
        return {"features": self._spoiler(indices), "pixels": pixels, **targets(words), **rows}


def targets(words: list[str]) -> dict[str, Tensor]:
    """Concatenated word numbers from 1, and how many there are in each clip."""
    numbers = [[WORDS.index(word) + 1 for word in text.split()] for text in words]
    return {
        "spoken": torch.tensor([n for some in numbers for n in some]),
        "lengths": torch.tensor([len(some) for some in numbers]),
    }


def ctc_loss(scores: Tensor, batch: dict[str, Tensor]) -> Tensor:
    log_probs = scores.float().log_softmax(-1).transpose(0, 1)
    frames = torch.full((scores.shape[0],), scores.shape[1])
    return F.ctc_loss(log_probs, batch["spoken"], frames, batch["lengths"], zero_infinity=True)


def ctc_words(scores: Tensor) -> list[str]:
    """Best path."""
    out = []
    for path in scores.argmax(-1):
        kept = torch.unique_consecutive(path)
        out.append(" ".join(WORDS[n - 1] for n in kept[kept > 0].tolist()))
    return out


class HeldOut:
    """Clean clips of unseen voices; whole strings right by CTC's best path and by the decoder."""

    def __init__(self, cache: Path, rows: SpokenRows, count: int) -> None:
        clips = speak(FIRST_UNSEEN_SEED, count, cache)
        rng = np.random.default_rng(5)
        samples = np.stack([placed(clips[i], rng) for i in range(len(clips) // 2 * 2)])
        self.features, self.words = features(torch.from_numpy(samples)), clips.words[: len(samples)]
        self.rows = rows.batch(self.words, random.Random(5))

    @torch.no_grad()
    def report(self, model: TinyVLM, head: nn.Linear) -> str:
        with torch.autocast("cpu", torch.bfloat16):
            heard = torch.cat([model.hearing.features(part) for part in self.features.split(128)])
            media = model.hearing.project(heard)
            hidden = model.decode(media, *(self.rows[k] for k in ROW_KEYS))
        spelt = [a == b for a, b in zip(ctc_words(head(heard.float())), self.words, strict=True)]
        asked = self.rows["label"] >= 0
        right = model.logits(hidden[asked]).argmax(-1) == self.rows["label"][asked]
        ok = np.ones(len(self.words), bool)
        np.logical_and.at(ok, self.rows["answer"][asked].numpy(), right.numpy())
        size = np.array([len(w.split()) if w not in COMMANDS else 0 for w in self.words])
        kinds = " ".join(f"{n or 'command'}:{ok[size == n].mean():.3f}" for n in range(6))
        return f"ctc {np.mean(spelt):.4f} answers {ok.mean():.4f} [{kinds}]"


def share_gradients(weights: list[nn.Parameter]) -> None:
    """The mean over the processes."""
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient) / dist.get_world_size())


def trainable(
    model: TinyVLM, head: nn.Linear, rates: tuple[float, float]
) -> list[tuple[float, bool, nn.Parameter]]:
    """Peak learning rate, whether it is a matrix for Muon, and the weight; the others are frozen."""
    model.vision.requires_grad_(False)
    new = (torch.arange(model.cfg.vocab) >= FIRST_NEW_TOKEN)[:, None].float()
    model.embedding.weight.register_hook(lambda grad: grad * new)
    out = [
        (rate, weight.ndim == 2 and name != "pos", weight)
        for part, rate in ((model.hearing, rates[0]), (model.blocks, rates[1]), (model.norm, rates[1]))
        for name, weight in part.named_parameters()
    ]
    return out + [(rates[0], False, weight) for weight in (model.embedding.weight, *head.parameters())]


class Trainer:
    """Model, CTC head and optimisers; `step` makes one step.

    Args:
        checkpoint: The model that sees, or one that hears.
        phase: Its learning rates and weight of the CTC loss count here.
        steps: After which the learning rates are 0.
        answer_from: Before this step the decoder is left out.
    """

    def __init__(self, checkpoint: Path, phase: Phase, steps: int, answer_from: int) -> None:
        self.phase, self.steps, self.answer_from = phase, steps, answer_from
        cfg = Config()
        self.model, self.head = TinyVLM(cfg), nn.Linear(cfg.hearing_dim, len(WORDS) + 1)
        sees = torch.load(checkpoint, weights_only=True)["model"]
        missing = self.model.load_state_dict(sees, strict=False)
        if missing.unexpected_keys or not all(k.startswith("hearing.") for k in missing.missing_keys):
            raise SystemExit(f"not the model that sees: {missing}")
        chosen = trainable(self.model, self.head, phase.rates)
        self.weights = [weight for _, _, weight in chosen]
        groups = [({"params": [weight], "peak": peak}, is_matrix) for peak, is_matrix, weight in chosen]
        self.muon = torch.optim.Muon(
            [group for group, is_matrix in groups if is_matrix],
            lr=2e-3, momentum=0.95, nesterov=True, weight_decay=0.05, adjust_lr_fn="match_rms_adamw",
        )  # fmt: skip
        self.adamw = torch.optim.AdamW(
            [group for group, is_matrix in groups if not is_matrix],
            lr=2e-3, betas=(0.9, 0.98), weight_decay=0.0,
        )  # fmt: skip
        self._hear = torch.compile(self.model.hearing.features, dynamic=False)
        self._see = torch.compile(self.model.vision, dynamic=False)
        self._decode = torch.compile(self.model.decode, dynamic=False)

    def step(self, number: int, batch: dict[str, Tensor]) -> list[float]:
        """Losses: CTC, answers about audio, answers about images."""
        for group in (*self.muon.param_groups, *self.adamw.param_groups):
            group["lr"] = group["peak"] * min((number + 1) / 100, 1, 1.25 * (1 - number / self.steps))
        losses = self._losses(batch, is_answering=number >= self.answer_from)
        self.muon.zero_grad(set_to_none=True)
        self.adamw.zero_grad(set_to_none=True)
        (sum(losses[1:], self.phase.ctc * losses[0]) if losses[1:] else losses[0]).backward()
        if dist.is_initialized():
            share_gradients(self.weights)
        nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.muon.step()
        self.adamw.step()
        return [loss.item() for loss in losses] + [0.0] * (3 - len(losses))

    def _losses(self, batch: dict[str, Tensor], is_answering: bool) -> list[Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            heard = self._hear(batch["features"])
            if is_answering:
                with torch.no_grad():
                    images = self._see(batch["pixels"])
                media = torch.cat([x.flatten(0, 1) for x in (self.model.hearing.project(heard), images)])
                hidden = self._decode(media, *(batch[k] for k in ROW_KEYS))
        losses = [ctc_loss(self.head(heard.float()), batch)]
        if is_answering:
            asked = batch["label"] >= 0
            each = F.cross_entropy(self.model.logits(hidden[asked]), batch["label"][asked], reduction="none")
            is_audio = asked.nonzero()[:, 0] < len(heard) // 2
            losses += [each[is_audio].mean(), each[~is_audio].mean()]
        return losses

    def save(self, path: Path, done: int) -> None:
        state = {"model": self.model.state_dict(), "head": self.head.state_dict(), "step": done}
        state |= {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}
        torch.save(state, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)

    def load(self, path: Path) -> int:
        """The step to go on from."""
        state = torch.load(path, weights_only=True)
        for name in ("model", "head", "muon", "adamw"):
            getattr(self, name).load_state_dict(state[name])
        print(f"resumed at step {state['step']}", flush=True)
        return int(state["step"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True, help="the model that sees")
    parser.add_argument("--images", type=Path, required=True, help="train.npy of the model that sees")
    parser.add_argument("--out", type=Path, required=True, help="folder for clips and checkpoints")
    parser.add_argument("--steps", type=int, default=2300)
    parser.add_argument("--recall", action="store_true", help="the last phase, from a model that hears")
    parser.add_argument("--answer-from", type=int, default=600, help="until here the decoder is left out")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    torch.manual_seed(args.seed)
    torch.set_num_threads(2 // world)
    if world > 1:
        dist.init_process_group("gloo")
    started = time.time()
    clips = speak(0, CLIPS, args.out / "train")
    rows = SpokenRows(args.tokenizer)
    held_out = HeldOut(args.out / "held_out", rows, 1024)
    phase = RECALL if args.recall else HEAR
    trainer = Trainer(args.checkpoint, phase, args.steps, args.answer_from)
    latest = args.out / "latest.pt"
    first = trainer.load(latest) if latest.exists() else 0
    scenes = draw_images(0, TRAIN_SCENES, args.images)
    batches = Batches(clips, scenes, args.tokenizer, args.seed * world + rank, phase, world)
    loader = torch.utils.data.DataLoader(
        batches, batch_size=None, sampler=range(first, args.steps), num_workers=1, prefetch_factor=8
    )
    mark, totals = time.time(), np.zeros(3)
    for done, batch in enumerate(loader, start=first + 1):
        totals += trainer.step(done - 1, batch)
        if done % 100 == 0 and rank == 0:
            losses = "ctc {:.4f} heard {:.4f} seen {:.4f}".format(*totals / 100)
            print(f"{done} {time.time() - started:.0f} s {losses} {(time.time() - mark) / 100:.3f} s/step")
            print(done, held_out.report(trainer.model, trainer.head), flush=True)
            trainer.save(latest, done)
            mark, totals = time.time(), np.zeros(3)
    if rank == 0:
        torch.save({"model": trainer.model.state_dict(), "steps": args.steps}, args.out / "final.pt")
        held_out_scenes = draw_images(VALIDATION_SEED, 1024, args.images.with_name("held_out.npy"))
        print(report(trainer.model, RowMaker(args.tokenizer), held_out_scenes, 4), flush=True)


if __name__ == "__main__":
    main()
