"""What looking for guesses costs where none is found, in instructions.

    valgrind --tool=cachegrind --cache-sim=no --cachegrind-out-file=/dev/null \\
        python benchmarks/bench_looking.py MODEL TOKENIZER --tokens N [--looks]

An answer in which no three tokens follow each other twice is forced on the model, in one thread. Loading is
counted too, so run it for two numbers of tokens: what one token takes is the difference of the counts over
that of the numbers, and what looking takes is the difference of that with and without --looks. Set
PYTHONHASHSEED. The prompt has 500 tokens.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from executorch_mm import GenerationConfig, MultimodalRunner, make_token_input


def without_repeats(count: int, vocab_size: int) -> list[int]:
    chance = random.Random(5)
    tokens, seen = [2, 3], set[tuple[int, int, int]]()
    while len(tokens) < count:
        last = (tokens[-2], tokens[-1], chance.randrange(2, vocab_size))
        if last not in seen:
            seen.add(last)
            tokens.append(last[-1])
    return tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("--tokens", type=int, required=True)
    parser.add_argument("--prompt", type=int, default=500)
    parser.add_argument("--looks", action="store_true")
    given = parser.parse_args()
    with MultimodalRunner(given.model, given.tokenizer, num_threads=1) as runner:
        tokens = without_repeats(given.prompt + given.tokens, runner.contract.vocab_size)
        config = GenerationConfig(
            forced_tokens=tokens[given.prompt :], max_new_tokens=given.tokens, ignore_eos=True
        )
        if given.looks:
            config = config.replace(prompt_lookup_num_tokens=10)
        stats = runner.generate_result(make_token_input(tokens[: given.prompt]), config).stats
        print(f"{stats.num_decode_steps} calls, {stats.num_drafted_tokens} guesses read")


if __name__ == "__main__":
    main()
