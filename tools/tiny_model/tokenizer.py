"""Trains the byte-level BPE tokenizer of the tiny model on generated questions and answers."""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SPECIALS = ("<|pad|>", "<|bos|>", "<|user|>", "<|assistant|>", "<|end|>", "<|image|>")
PAD, BOS, USER, ASSISTANT, END, IMAGE = range(6)
VOCAB = 640
SPOKEN_MERGES = (
    "v en", "e ven", "s even", "\u0120s even", "ei ght", "\u0120 eight", "in e", "n ine", "\u0120 nine",
    "o p", "st op", "g o", "u p", "d ow", "dow n", "le ft", "ri ght", "f f", "o ff",
    "\u0120 zero", "\u0120th ree", "\u0120 four", "\u0120 five", "\u0120s ix",
)  # fmt: skip
"""Merges that make one token of every word that the model hears; they change no text about images."""

LABELS = ("Picture 1:", "Picture 2:", "Image 1:", "Image 2:", "First picture:", "Second picture:")


def corpus(scenes: int) -> Iterator[str]:
    """Yields the text that the model will see, from scenes 0, 1, 2, ..."""
    from executorch_mm.demo import ask, ask_pair, make_scene  # here: an export needs no installed package

    rng = random.Random(7)
    for seed in range(scenes):
        scene = make_scene(seed)
        for _ in range(4):
            made = ask(scene, rng)
            yield made.question
            yield made.answer
        made = ask_pair(scene, make_scene(seed + 1), rng)
        yield made.question
        yield made.answer
        yield from LABELS


def learn_to_spell(tokenizer: Tokenizer) -> Tokenizer:
    """Gives reserved ids to `<|audio|>` and to the words that are heard; all other ids stay."""
    content = json.loads(tokenizer.to_str())
    vocab, merges, added = content["model"]["vocab"], content["model"]["merges"], content["added_tokens"]
    reserved = [token for token in added if token["content"].startswith("<|reserved_")]
    # Ids of added tokens go on where the vocabulary ends, so the words come first.
    for merge, token in zip(SPOKEN_MERGES, reserved, strict=False):
        vocab[merge.replace(" ", "")] = token["id"]
        merges.append(merge.split(" "))
        added.remove(token)
    reserved[len(SPOKEN_MERGES)]["content"] = "<|audio|>"
    return Tokenizer.from_str(json.dumps(content))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scenes", type=int, default=20000)
    args = parser.parse_args()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(args.scenes), trainer)
    learned = tokenizer.get_vocab_size()
    # The logits are VOCAB wide: every row gets a name, so that no sampled id is unknown to the tokenizer.
    tokenizer.add_special_tokens([f"<|reserved_{i}|>" for i in range(VOCAB - learned)])
    if tokenizer.get_vocab_size() != VOCAB:
        raise SystemExit(f"vocabulary is {tokenizer.get_vocab_size()}, expected {VOCAB}")
    tokenizer = learn_to_spell(tokenizer)
    tokenizer.save(str(args.out), pretty=False)
    print(f"{learned} learned, {VOCAB} in all, {args.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
