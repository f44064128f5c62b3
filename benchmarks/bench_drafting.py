"""What `prompt_lookup_num_tokens` gains on answers that copy, and what it costs on those that do not.

    python benchmarks/bench_drafting.py MODEL_FOLDER [--tokens 128] [--draft 10] [--rounds 3]
    python benchmarks/bench_drafting.py MODEL_FOLDER --draft-model OTHER_FOLDER
    python benchmarks/bench_drafting.py MODEL_FOLDER --count

MODEL_FOLDER holds model.pte, with logits for each token of a call, its tokenizer and chat template. Answers
with and without guesses take turns. "own": what the model answers greedily; a small one soon repeats itself.
"given": an answer that was written beforehand is forced on it, as a better model would give it. The gain is
that of the decoding time; "same" says whether the tokens are.

--draft-model: the same with a draft model instead of guesses from the prompt, greedily and with temperature
0.8.

--count needs the folder's tokenizer alone: how many calls the given answers and their beginnings take, which
no model's weights and no clock change. It counts them on the fixture tests/models/behaviour/full_logits.pte.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median
from typing import NamedTuple

from executorch_mm import GenerationConfig, GenerationResult, MultimodalRunner, make_token_input
from executorch_mm.tokenizer import load_tokenizer

PASSAGE = (
    "The harbour of Lindholm was built in 1871 by engineers from the south, who had never seen ice. The "
    "first winter moved the eastern pier by four metres, and the second took it away. For eleven years "
    "ships unloaded on the beach, with horses and flat carts. In 1884 a new pier of granite was begun, "
    "under a builder who had learned his trade on lighthouses. It has stood since, although the railway "
    "that was to meet it never came. Today the pier serves a ferry, two trawlers and, from June to "
    "August, a brass band. The town pays for its upkeep with a tax on summer houses, which is unpopular "
    "with everybody who owns one."
)
SENTENCES = PASSAGE.split(". ")
CODE = """def read_settings(path, defaults):
    settings = dict(defaults)
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            name, separator, value = line.partition("=")
            if not separator:
                raise ValueError(f"{path}:{number}: expected name=value")
            settings[name.strip()] = value.strip()
    return settings
"""
PLAIN = (
    "My uncle kept bees behind a disused chapel near Tregaron. Visitors would find him asleep among "
    "foxgloves, hat tilted, boots unlaced, while hives hummed above broken gravestones. Honey arrived "
    "each September inside jam jars labelled by hand, dark amber and faintly bitter. Nobody ever learned "
    "which flowers caused that flavour; gorse perhaps, or ivy growing through vestry windows. When "
    "doctors forbade sugar he switched to making candles instead, selling them outside Aberystwyth "
    "station until his knees gave out. Afterwards, cousins divided what remained: smoker, veil, twelve "
    "frames, one unread manual about queens."
)


class Task(NamedTuple):
    """Attributes:
    is_copying: Whether the answer is made of what the prompt says.
    """

    name: str
    prompt: str
    answer: str
    is_copying: bool


TASKS = (
    Task(
        "summarise",
        f"Summarise this text in its own sentences:\n\n{PASSAGE}",
        ". ".join([SENTENCES[0], SENTENCES[1], SENTENCES[3], SENTENCES[5]]) + ".",
        is_copying=True,
    ),
    Task(
        "rewrite",
        f"Write this text again with Karlsvik instead of Lindholm:\n\n{PASSAGE}",
        PASSAGE.replace("Lindholm", "Karlsvik").replace("pier", "quay"),
        is_copying=True,
    ),
    Task(
        "edit code",
        f"Rename settings to options in this function:\n\n```python\n{CODE}```",
        f"```python\n{CODE.replace('settings', 'options')}```",
        is_copying=True,
    ),
    Task("tell a story", "Tell me about an uncle who kept bees.", PLAIN, is_copying=False),
    Task("explain", "Explain how a pier of granite is built.", "", is_copying=False),
)


def answer(runner: MultimodalRunner, prompt: str, config: GenerationConfig) -> GenerationResult:
    runner.reset()
    return runner.chat([{"role": "user", "content": prompt}], config)


def seconds(result: GenerationResult) -> float:
    stats = result.stats
    return stats.decode_seconds + stats.sample_seconds + stats.draft_seconds


def count(folder: Path, num_tokens: int, num_drafted: int) -> None:
    """Prints the calls that the given answers take."""
    tokenizer = load_tokenizer(folder)
    fixture = Path(__file__).resolve().parents[1] / "tests" / "models" / "behaviour" / "full_logits.pte"
    print("task           tokens  calls  drafted  accepted  tokens per call")
    with MultimodalRunner(fixture, tokenizer) as runner:  # its attention is not ours: no call is measured
        size = runner.contract.vocab_size
        for task in TASKS:
            prompt, ids = ([token % size for token in tokenizer.encode(text)] for text in task[1:3])
            for length in sorted({min(n, len(ids)) for n in (16, 32, 64, num_tokens)} if ids else ()):
                runner.reset()
                stats = runner.generate_result(
                    make_token_input(prompt),
                    forced_tokens=ids[:length],
                    max_new_tokens=length,
                    ignore_eos=True,
                    prompt_lookup_num_tokens=num_drafted,
                ).stats
                counts = f"{stats.num_drafted_tokens:8} {stats.num_accepted_tokens:9}"
                print(
                    f"{task.name:14} {stats.num_generated_tokens:6} {stats.num_decode_steps:6} {counts}  "
                    f"{stats.tokens_per_step:15.2f}"
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--draft", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--draft-model", type=Path)
    parser.add_argument("--count", action="store_true")
    arguments = parser.parse_args()
    if arguments.count:
        count(arguments.folder, arguments.tokens, arguments.draft)
        return
    threads = arguments.threads or "auto"
    print("task           answer  tokens  ms/token  drafted  accepted  per step   gain  (least, most)  same")
    draft = arguments.draft_model / "model.pte" if arguments.draft_model else None
    kinds = ("own", "sampled") if draft else ("own", "given")
    with MultimodalRunner(
        arguments.folder / "model.pte", arguments.folder, num_threads=threads, draft_model=draft
    ) as runner:
        for task in TASKS:
            for kind in kinds if task.answer or draft else ("own",):
                plain = GenerationConfig(max_new_tokens=arguments.tokens, ignore_eos=True)
                if draft:
                    plain = plain.replace(num_assistant_tokens=0)
                if kind == "sampled":
                    plain = plain.replace(temperature=0.8, seed=1)
                if kind == "given":
                    ids = runner.tokenizer.encode(task.answer)[: arguments.tokens]
                    plain = plain.replace(forced_tokens=ids, max_new_tokens=len(ids))
                drafting = plain.replace(prompt_lookup_num_tokens=arguments.draft)
                if draft:
                    drafting = plain.replace(num_assistant_tokens=arguments.draft)
                answer(runner, task.prompt, plain)
                gains = []
                for turn in range(arguments.rounds):
                    # Each comes first in turn.
                    order = (plain, drafting) if turn % 2 == 0 else (drafting, plain)
                    both = {config: answer(runner, task.prompt, config) for config in order}
                    gains.append(seconds(both[plain]) / seconds(both[drafting]))
                before, after = both[plain], both[drafting]
                stats = after.stats
                is_same = before.token_ids == after.token_ids
                counts = f"{stats.num_drafted_tokens:7}  {stats.num_accepted_tokens:8}"
                shown = f"{median(gains):5.2f}  ({min(gains):.2f}, {max(gains):.2f})"
                print(
                    f"{task.name:14} {kind:6}  {len(before.token_ids):6}  "
                    f"{seconds(before) * 1e3 / len(before.token_ids):8.2f}  {counts}  "
                    f"{stats.tokens_per_step:8.2f}  {shown}    {'yes' if is_same else 'no'}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
