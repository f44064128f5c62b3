"""Compares model.pte, run by upstream's Python runtime, with the eager fp32 checkpoint.

On held-out scenes and clips. Also checks the last position of the context, and that wrong preprocessing is
noticed.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import executorch.extension.llm.custom_ops.custom_ops  # registers llama::*
import executorch.kernels.quantized  # noqa: F401  (registers quantized_decomposed::*.out)
import numpy as np
import torch
from data import VALIDATION_SEED
from executorch.runtime import Runtime
from network import Config, TinyVLM
from speech_data import features
from tokenizer import ASSISTANT, END, USER
from tokenizers import Tokenizer
from torch import Tensor
from train import normalize
from voices import FIRST_UNSEEN_SEED, Espeak, placed, utterance, variants

from executorch_mm.demo import ask, make_scene, render


class Exported:
    """The four methods of a .pte, greedy decoding only."""

    def __init__(self, path: Path) -> None:
        self._program = Runtime.get().load_program(path)
        names = ("vision_encoder", "audio_encoder", "token_embedding", "text_decoder")
        methods = (self._program.load_method(name).execute for name in names)
        self.vision, self.hear, self.embed, self.decode = methods

    def answer(self, parts: list[Tensor | list[int]], limit: int = 40) -> list[int]:
        """Prompt parts (pixels, log-mel [1,64,400] or token ids) to answer ids without the end token."""
        position, logits = 0, torch.zeros(1)
        for part in parts:
            if isinstance(part, Tensor):
                rows = self.vision([part]) if part.ndim == 4 else self.hear([part])
            else:
                rows = self.embed([torch.tensor([part])])
            embeds = rows[0].clone()
            logits = self.decode([embeds, torch.tensor([position])])[0]
            position += embeds.shape[1]
        out: list[int] = []
        while len(out) < limit:
            token = int(logits.argmax())
            if token == END:
                break
            out.append(token)
            logits = self.decode(
                [self.embed([torch.tensor([[token]])])[0].clone(), torch.tensor([position])]
            )[0]
            position += 1
        return out


@torch.no_grad()
def eager_answer(model: TinyVLM, media: Tensor, prompt: list[int], limit: int = 40) -> list[int]:
    """Greedy answer to `<|user|>`, media tokens [1,T,dim] and `prompt` by the training network in fp32."""
    out: list[int] = []
    count = media.shape[1]
    while len(out) < limit:
        ids = torch.tensor([[USER] + [0] * count + prompt + out])
        gather = torch.full_like(ids, -1)
        gather[0, 1 : count + 1] = torch.arange(count)
        position = torch.arange(ids.shape[1])[None]
        hidden = model.decode(media, ids, gather, torch.zeros_like(ids), position)
        token = int(model.logits(hidden[0, -1]).argmax())
        if token == END:
            break
        out.append(token)
    return out


@torch.no_grad()
def compare_hearing(exported: Exported, model: TinyVLM, tokenizer: Tokenizer, clips: int) -> str:
    """How many clips are heard right by either, and alike by both."""
    espeak, known, rng = Espeak(), variants(), np.random.default_rng(11)
    prompt = [*tokenizer.encode("What do you hear?").ids, END, ASSISTANT]
    right = right_eager = same = 0
    for seed in range(FIRST_UNSEEN_SEED, FIRST_UNSEEN_SEED + clips):
        what = utterance(seed, known)
        heard = features(torch.from_numpy(placed(espeak.clip(what), rng))[None])
        got = tokenizer.decode(exported.answer([[USER], heard, prompt]))
        eager = tokenizer.decode(eager_answer(model, model.hearing(heard), prompt))
        right += got == what.words
        right_eager += eager == what.words
        same += got == eager
    return f"{clips} clips: .pte right {right}, eager right {right_eager}, same string {same}"


SPOILERS = {
    "channels swapped (BGR)": lambda image: normalize(image[..., ::-1]),
    "transposed": lambda image: normalize(image.transpose(0, 2, 1, 3)),
    "no mean/std (0..1 instead of -1..1)": lambda image: normalize(image) * 0.5 + 0.5,
    "no rescale (0..255, then mean/std)": lambda image: (normalize(image) * 127.5 + 127.5 - 0.5) / 0.5,
    "no rescale, no mean/std (0..255)": lambda image: normalize(image) * 127.5 + 127.5,
}


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder with model.pte and tokenizer.json")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--scenes", type=int, default=200)
    args = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    exported = Exported(args.model / "model.pte")
    model = TinyVLM(Config()).eval()
    model.load_state_dict(torch.load(args.checkpoint, weights_only=True)["model"])
    rng = random.Random(11)
    right = right_eager = same = 0
    spoiled = dict.fromkeys(SPOILERS, 0)
    for seed in range(VALIDATION_SEED, VALIDATION_SEED + args.scenes):
        scene = make_scene(seed)
        image = np.asarray(render(scene))[None]
        qa = ask(scene, rng)
        prompt = [*tokenizer.encode(qa.question).ids, END, ASSISTANT]

        def say(pixels: Tensor, prompt: list[int] = prompt) -> str:
            return tokenizer.decode(exported.answer([[USER], pixels.contiguous(), prompt]))

        got = say(normalize(image))
        eager = tokenizer.decode(eager_answer(model, model.vision(normalize(image)), prompt))
        right += got == qa.answer
        right_eager += eager == qa.answer
        same += got == eager
        for name, spoil in SPOILERS.items():
            spoiled[name] += say(spoil(image)) == qa.answer
    n = args.scenes
    print(f"{n} scenes: .pte right {right}, eager right {right_eager}, same string {same}")
    for name, count in spoiled.items():
        print(f"  {name}: right {count} ({count / n:.3f})")
    print(compare_hearing(exported, model, tokenizer, args.scenes))
    last = exported.decode([torch.zeros(1, 1, model.cfg.dim), torch.tensor([model.cfg.context - 1])])[0]
    far = exported.decode([torch.zeros(1, 255, model.cfg.dim), torch.tensor([1])])[0]
    print(f"position 255 alone: {tuple(last.shape)} finite {bool(last.isfinite().all())};", end=" ")
    print(f"255 positions from 1: {tuple(far.shape)} finite {bool(far.isfinite().all())}")


if __name__ == "__main__":
    main()
