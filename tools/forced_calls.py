"""Counts calls of tools that their schemas refuse, though they were forced: of chance, and of a model.

    python tools/forced_calls.py MODEL_FOLDER [--template FILE.jinja] [--count 1000] [--temperature 1e6]

MODEL_FOLDER holds model.pte and its tokenizer, "demo" is the model in the wheel. The chat template says how
calls are written; without one, as Hermes does, with a short prompt. At a temperature of 1e6 all tokens that
may come are equally likely. Needs jsonschema and llguidance.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import jsonschema

from executorch_mm import MultimodalRunner
from executorch_mm.chat import ChatOptions

WEATHER: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "minLength": 1, "maxLength": 12},
        "days": {"type": "integer", "minimum": 1, "maximum": 14},
        "unit": {"enum": ["C", "F"]},
        "at": {"type": "array", "items": {"type": "number", "minimum": -90, "maximum": 90}, "maxItems": 2},
        "detail": {
            "anyOf": [{"type": "null"}, {"type": "object", "properties": {"wind": {"type": "boolean"}}}]
        },
    },
    "required": ["city", "days", "unit"],
    "additionalProperties": False,
}
CLOCK: dict[str, Any] = {
    "type": "object",
    "properties": {"zone": {"type": "string", "pattern": "^[A-Z]{3,4}$"}},
    "required": ["zone"],
    "additionalProperties": False,
}
SCHEMAS = {"get_weather": WEATHER, "clock": CLOCK}
TOOLS = [
    {"type": "function", "function": {"name": name, "description": "Tells it.", "parameters": schema}}
    for name, schema in SCHEMAS.items()
]
TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}:{# <tool_call> #}"
CHOICES = ("required", "get_weather", "clock")


def count_wrong(
    runner: MultimodalRunner, template: str, count: int, temperature: float
) -> tuple[int, int, int]:
    """Answers without a call, calls, and those of them that are wrong."""
    without = calls = wrong = 0
    for seed in range(count):
        options = ChatOptions(
            template=template,
            template_options={"enable_thinking": False},
            tool_choice=CHOICES[seed % len(CHOICES)],
        )
        result = runner.chat(
            "How is the weather in Bern?",
            tools=TOOLS,
            chat_options=options,
            temperature=temperature,
            seed=seed,
            max_new_tokens=150,
        )
        without += not result.tool_calls
        for call in result.tool_calls:
            calls += 1
            schema = SCHEMAS.get(call.name)
            wrong += schema is None or not jsonschema.Draft202012Validator(schema).is_valid(
                dict(call.arguments)
            )
    return without, calls, wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--template", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--temperature", type=float, default=1e6)
    arguments = parser.parse_args()
    folder = Path(arguments.folder)
    is_demo = arguments.folder == "demo"
    template = TEMPLATE if arguments.template is None else arguments.template.read_text(encoding="utf-8")
    with MultimodalRunner.demo() if is_demo else MultimodalRunner(folder / "model.pte", folder) as runner:
        without, calls, wrong = count_wrong(runner, template, arguments.count, arguments.temperature)
    print(f"{arguments.count} answers, {without} without a call; {calls} calls, {wrong} of them wrong")


if __name__ == "__main__":
    main()
