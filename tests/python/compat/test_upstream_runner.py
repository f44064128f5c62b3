"""In one environment with ExecuTorch's own runner: its tests on our module, and both in one process."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
import types
import unittest
from pathlib import Path

import numpy as np
import pytest

from executorch_mm.demo import make_scene, render
from executorch_mm.preprocess import ImageProcessor

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]

UPSTREAM, OURS = "executorch.extension.llm.runner", "executorch_mm.compat.executorch"
PROMPT = "The capital of France is"


@pytest.fixture(scope="module")
def upstream_folder() -> Path:
    """Where upstream's runner is installed, found without importing it."""
    executorch = importlib.util.find_spec("executorch")
    folders = executorch.submodule_search_locations if executorch else None
    found = [Path(folder, "extension", "llm", "runner") for folder in folders or ()]
    if not any(folder.is_dir() for folder in found):
        pytest.skip("executorch is not installed (`nox -s torch` runs this)")
    return next(folder for folder in found if folder.is_dir())


def test_upstreams_tests_of_its_bindings_pass_with_the_import_changed(upstream_folder: Path) -> None:
    path = upstream_folder / "test" / "test_runner_pybindings.py"
    source = path.read_text(encoding="utf-8")
    assert source.count(UPSTREAM) == 1
    module = types.ModuleType("upstreams_tests")
    exec(compile(source.replace(UPSTREAM, OURS), str(path), "exec"), vars(module))
    tests = unittest.defaultTestLoader.loadTestsFromModule(module)
    result = unittest.TestResult()
    tests.run(result)
    assert result.errors + result.failures + result.skipped == []
    assert result.testsRun == source.count("    def test_") > 10
    assert vars(module)["MultimodalRunner"].__module__.startswith("executorch_mm.")


def test_every_name_of_upstream_is_here(upstream_folder: Path) -> None:
    tree = ast.parse((upstream_folder / "__init__.py").read_text(encoding="utf-8"))
    (names,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    compat = importlib.import_module(OURS)
    assert set(names) <= set(compat.__all__)


MEMBERS = """
import json, sys, executorch.extension.llm.runner._llm_runner as upstream, executorch.extension.llm.runner
print(json.dumps({name: [m for m in dir(vars(upstream)[name]) if m[0] != "_"]
                  for name in dir(upstream) if isinstance(vars(upstream)[name], type)}))
"""


def test_every_member_of_upstreams_classes_is_here(upstream_folder: Path) -> None:
    compat = importlib.import_module(OURS)
    members = json.loads(run(MEMBERS))
    assert len(members) > 5
    missing = {f"{name}.{m}" for name, all_of in members.items() for m in all_of} - {
        f"{name}.{m}" for name in members for m in dir(getattr(compat, name))
    }
    # Hooks of upstream's own sampler, and a tensor, which takes torch to make.
    assert missing == {"Audio.toTensor", "Stats.on_sampling_begin", "Stats.on_sampling_end"}


SCRIPT = """
import importlib, json, sys
import numpy as np, torch

name, model, tokenizer, pixels = sys.argv[1:]
if name.startswith("executorch."):
    import executorch.kernels.quantized
    from executorch.extension.llm.custom_ops import custom_ops
m = importlib.import_module(name)
before, after = "<|user|>", "describe the picture<|end|><|assistant|>"
prepared = torch.from_numpy(np.load(pixels))
parts = [m.make_text_input(before), m.make_image_input(prepared), m.make_text_input(after)]
runner = m.MultimodalRunner(model, tokenizer, None)
config = m.GenerationConfig(temperature=0, max_new_tokens=60)
answers = {"with the prompt": runner.generate_text(parts, config)}
runner.reset()

config.echo = False
pieces, stats = [], []
answers["returned"] = runner.generate(parts, config, pieces.append, stats.append)
answers["pieces"] = pieces
answers["prompt tokens"] = stats[0].num_prompt_tokens
runner.reset()

from executorch_mm import load_tokenizer
encode = load_tokenizer(tokenizer).encode
ids = torch.tensor([[*encode(before), *[639] * 16, *encode(after)]])
output = {"input_ids": ids, "pixel_values": prepared[None], "attention_mask": torch.ones_like(ids)}
if name.startswith("executorch."):  # what its generate_text_hf does when transformers is installed
    answers["processor"] = runner.generate_text(m._hf_to_multimodal_inputs(output, 639), config)
else:
    answers["processor"] = runner.generate_text_hf(output, config, 639)
runner.reset()

config.max_new_tokens = 4
answers["limited"] = runner.generate_text(parts, config)

print("\\n" + json.dumps(answers))
"""


def test_a_script_gives_with_either_module_what_it_gives_with_the_other(
    upstream_folder: Path, demo_folder: Path, tmp_path: Path
) -> None:
    processor = ImageProcessor.from_pretrained(demo_folder)
    np.save(tmp_path / "pixels.npy", processor(render(make_scene(900_000_011))))
    files = (demo_folder / "model.pte", demo_folder / "tokenizer.json", tmp_path / "pixels.npy")
    theirs, ours = (json.loads(run(SCRIPT, name, *map(str, files))) for name in (UPSTREAM, OURS))
    assert theirs["pieces"].pop() == "<|end|>"  # upstream hands out the text of the end token
    for name in ("with the prompt", "processor"):
        theirs[name] = theirs[name].removesuffix("<|end|>")
    assert ours == theirs
    assert "".join(ours["pieces"]) == ours["processor"]


BOTH = """
import json, sys

folder, order = sys.argv[1:]
model, tokenizer = folder + "/model.pte", folder + "/tokenizer.json"
prompt = {prompt!r}


def import_theirs():
    import executorch.kernels.quantized
    from executorch.extension.llm import runner
    from executorch.extension.llm.custom_ops import custom_ops
    from executorch.extension.pybindings import portable_lib


def import_ours():
    import executorch_mm


def run_ours():
    from executorch_mm.compat.executorch import GenerationConfig, TextLLMRunner
    return run(GenerationConfig, TextLLMRunner)


def run_theirs():
    from executorch.extension.llm.runner import GenerationConfig, TextLLMRunner
    return run(GenerationConfig, TextLLMRunner)


def run(config, kind):
    runner = kind(model, tokenizer)
    loaded.append(runner)
    return again(runner, config)


def again(runner, config):
    pieces = []
    runner.generate(prompt, config(temperature=0, max_new_tokens=8, echo=False), pieces.append)
    runner.reset()
    return "".join(pieces)


def run_bindings():
    import torch
    from executorch.extension.pybindings.portable_lib import _load_for_executorch
    loaded.append(_load_for_executorch(model))
    ids = tokens.encode(prompt)
    (logits,) = loaded[-1].run_method("forward", (torch.tensor([ids]), torch.tensor([0])))
    return tokens.decode([int(logits.reshape(-1).argmax())])


loaded, answers = [], []
steps = [import_ours, import_theirs] if order == "ours first" else [import_theirs, import_ours]
for step in steps:
    step()
from executorch_mm import load_tokenizer
tokens = load_tokenizer(tokenizer)
steps = [run_ours, run_theirs, run_bindings]
for step in steps if order == "ours first" else steps[::-1]:
    answers.append((step.__name__, step()))
# All three models are loaded now: each pair of libraries is still its own.
answers += [("ours again", run_ours()), ("theirs again", run_theirs())]
print("\\n" + json.dumps(answers))
"""


@pytest.mark.real_model
@pytest.mark.parametrize("order", ["ours first", "theirs first"])
def test_both_run_a_model_in_one_process(upstream_folder: Path, real_models: Path, order: str) -> None:
    folder = real_models / "smollm2-135m-instruct-8da4w"
    if not folder.is_dir():
        pytest.skip(f"{folder} does not exist")
    answers = json.loads(run(BOTH.format(prompt=PROMPT), str(folder), order))
    texts = dict(answers)
    assert len(answers) == len(texts) == 5
    assert all(text.startswith(" Paris") for text in texts.values())
    assert texts["ours again"] == texts["run_ours"]
    assert texts["theirs again"] == texts["run_theirs"]


def run(code: str, *arguments: str) -> str:
    """The last line that a program of its own writes; upstream writes others before it."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()[-1]
