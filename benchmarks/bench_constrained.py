"""What response_format costs a decode step and what its forced tokens save: answers with and without it.

    python benchmarks/bench_constrained.py MODEL_FOLDER [--rounds 5] [--tokens 96]

MODEL_FOLDER holds model.pte and its tokenizer. "step" is decoding, mask and sampling of a token, all of them
sampled; "mask" the part of it that llguidance takes; "forced" the time for a token where forced ones are read
together. All three are set against a step of an answer without a format in the same round.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median

from executorch_mm import GenerationConfig, LarkGrammar, MultimodalRunner, Regex, Stats
from executorch_mm.response_format import ResponseFormat

TEXT: dict[str, object] = {"type": "string"}
PERSON: dict[str, object] = {
    "type": "object",
    "properties": {
        "first_name": {**TEXT, "maxLength": 30},
        "occupation": {**TEXT, "maxLength": 60},
        "age_in_years": {"type": "integer", "minimum": 0, "maximum": 120},
        "hobbies": {"type": "array", "items": {"enum": ["chess", "reading", "running"]}, "maxItems": 4},
        "email_address": {**TEXT, "format": "email"},
    },
    "required": ["first_name", "occupation", "age_in_years", "hobbies", "email_address"],
    "additionalProperties": False,
}
FORMATS: dict[str, ResponseFormat] = {
    "an object of 5 fields": PERSON,
    "3 to 6 such objects": {"type": "array", "items": PERSON, "minItems": 3, "maxItems": 6},
    "a string": {**TEXT, "minLength": 200},
    "any JSON object": {"type": "json_object"},
    "sentences (regex)": Regex(r"([A-Z][a-z]+( [a-z]+){3,12}\. )+"),
    "sums (grammar)": LarkGrammar('start: term ("+" term)*\nterm: NUMBER | "(" start ")"\nNUMBER: /[0-9]+/'),
}
PROMPT = "<|im_start|>user\nDescribe a person.<|im_end|>\n<|im_start|>assistant\n"


def answer(runner: MultimodalRunner, config: GenerationConfig) -> Stats:
    runner.reset()
    runner.generate_text(PROMPT, config)
    return runner.stats


def seconds_per_token(stats: Stats) -> float:
    return 1 / stats.tokens_per_second if stats.tokens_per_second else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=96)
    arguments = parser.parse_args()
    print("format                  tokens  forced    free ms   mask us  mask/free   step/free   forced/free")
    with MultimodalRunner(arguments.folder / "model.pte", arguments.folder) as runner:
        free = GenerationConfig(max_new_tokens=arguments.tokens, temperature=0.8, seed=1)
        for name, response_format in FORMATS.items():
            formed = free.replace(response_format=response_format)
            # An option that could forbid a forced token has all tokens sampled; token 0 never comes.
            sampled = formed.replace(suppress_tokens=(0,))
            answer(runner, formed)
            rows = []
            for _ in range(arguments.rounds):
                base = seconds_per_token(answer(runner, free.replace(ignore_eos=True)))
                step, forced = answer(runner, sampled), answer(runner, formed)
                mask = step.mask_seconds / step.num_generated_tokens
                ratios = (mask / base, seconds_per_token(step) / base, seconds_per_token(forced) / base)
                rows.append((base, mask, *ratios))
            base, mask, *ratios = (median(column) for column in zip(*rows, strict=True))
            shown = "  ".join(f"{ratio:10.3f}" for ratio in ratios)
            counts = f"{forced.num_generated_tokens:6}  {forced.num_forced_tokens:6}"
            print(f"{name:22}  {counts}  {base * 1e3:9.2f}  {mask * 1e6:8.0f} {shown}", flush=True)


if __name__ == "__main__":
    main()
