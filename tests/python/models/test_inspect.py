"""Reading a program without running it, compared with what ExecuTorch's own reader finds."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import executorch_mm
from executorch_mm import ContractError, ModelLoadError, MultimodalRunner, cli, inspect_model

TESTS = Path(__file__).resolve().parents[2]
EXPECTED = json.loads((TESTS / "models" / "programs.json").read_text())
PACKAGE = Path(executorch_mm.__file__).parent
TINY_VLM = PACKAGE / "models" / "tiny_vlm" / "model.pte"
TEXT = TESTS / "models" / "text"


def find(name: str) -> Path:
    """A file that programs.json names from the root of the sources."""
    folder, _, rest = name.partition("/")
    return (PACKAGE if folder == "executorch_mm" else TESTS) / rest


@pytest.mark.parametrize("name", EXPECTED)
def test_methods_operators_and_memory_are_what_executorch_reads(name: str) -> None:
    report = inspect_model(find(name))
    expected = EXPECTED[name]
    assert report.metadata == expected["metadata"]
    assert {method.name for method in report.methods} == set(expected["methods"])
    for method in report.methods:
        wanted = expected["methods"][method.name]
        for found, tensors in ((method.inputs, wanted["inputs"]), (method.outputs, wanted["outputs"])):
            described = [[t.dtype, list(t.shape or ()), t.is_dynamic, t.is_planned] for t in found]
            assert described == tensors
        assert {operator.name: operator.calls for operator in method.operators} == wanted["operators"]
        assert {delegate.backend: delegate.calls for delegate in method.delegates} == wanted["delegates"]
        assert sum(delegate.parts for delegate in method.delegates) == wanted["parts"]
        assert list(method.arena_bytes) == wanted["arena_bytes"]
        assert method.num_instructions == wanted["num_instructions"]


RUNNABLE = [
    path
    for folder in ("export_llm", "optimum", "multimodal", "behaviour", "text")
    for path in sorted((TESTS / "models" / folder).glob("*.pte"))
    if path.stem not in {"fixed_length", "hidden_mismatch"}  # refused at load
]


def test_a_speech_model_is_recognised_with_its_limits() -> None:
    kv = inspect_model(TESTS / "models" / "speech" / "kv.pte")
    optimum = inspect_model(TESTS / "models" / "speech" / "optimum.pte")
    assert (kv.kind, kv.max_chunk, kv.capacity, kv.can_rewind) == ("speech", 448, 448, True)
    assert (optimum.kind, optimum.max_chunk, optimum.capacity) == ("speech", 1, 448)
    assert kv.problems == ()


@pytest.mark.parametrize("path", [TINY_VLM, *RUNNABLE], ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_limits_and_kind_are_those_of_the_loaded_model(path: Path, demo_folder: Path) -> None:
    report = inspect_model(path)
    data = sorted(path.parent.glob("*.ptd")) if path.stem.endswith("data_file") else []
    with MultimodalRunner(path, demo_folder, data_path=data) as runner:
        contract = runner.contract
    assert (report.max_chunk, report.capacity) == (contract.max_chunk, contract.capacity)
    assert (report.kind == "multimodal") == contract.is_multimodal


@pytest.mark.parametrize(
    ("name", "kind", "num_bytes"),
    # Keys and values of two layers (five in the demo model), rows, heads, width, bytes of a float.
    [
        ("no_cache", "none", 0),
        ("start", "flat", 2 * 2 * 48 * 2 * 8 * 4),
        ("one_token", "flat", 2 * 2 * 48 * 2 * 8 * 4),
        ("demo", "flat", 5 * 2 * 256 * 2 * 32 * 4),
    ],
)
def test_the_cache_is_recognised_and_has_its_size(name: str, kind: str, num_bytes: int) -> None:
    report = inspect_model(TINY_VLM if name == "demo" else TEXT / f"{name}.pte")
    decoder = report.find("text_decoder") or report.find("forward")
    assert decoder is not None
    assert (decoder.cache, decoder.cache_bytes) == (kind, num_bytes)
    assert report.can_rewind


def test_problems_name_what_is_slow() -> None:
    assert inspect_model(TINY_VLM).problems == ()
    problems = " | ".join(inspect_model(TEXT / "no_cache.pte").problems)
    assert "portable op in the decode loop: aten::mm (15 calls" in problems
    assert "no KV cache" in problems
    assert any("token by token" in problem for problem in inspect_model(TEXT / "one_token.pte").problems)


def test_a_file_that_cannot_run_here_is_described(tmp_path: Path) -> None:
    data = TINY_VLM.read_bytes()
    data = data.replace(b"llama::custom_sdpa", b"llama::costum_sdpa").replace(
        b"XnnpackBackend", b"XnnpackBrigade"
    )
    path = tmp_path / "model.pte"
    path.write_bytes(data)
    report = inspect_model(path)
    assert "text_decoder: nobody provides the operator llama::costum_sdpa.out" in report.problems
    assert "vision_encoder: the backend XnnpackBrigade is not in this installation" in report.problems
    assert sum("export it again for XNNPACK" in problem for problem in report.problems) == 1
    with pytest.raises(ModelLoadError):
        MultimodalRunner(path, TINY_VLM.parent)


def test_what_would_be_refused_is_a_problem_with_its_reason(tmp_path: Path) -> None:
    data = (TEXT / "start.pte").read_bytes()
    path = tmp_path / "model.pte"
    # Planned memory that is smaller than its tensors.
    (size,) = EXPECTED["tests/models/text/start.pte"]["methods"]["forward"]["arena_bytes"]
    path.write_bytes(data.replace(size.to_bytes(8, "little"), (size // 2).to_bytes(8, "little"), 1))
    assert any(
        "will not be loaded" in problem and "planned memory" in problem
        for problem in inspect_model(path).problems
    )


def test_what_is_no_program_is_a_load_error(tmp_path: Path) -> None:
    path = tmp_path / "model.pte"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.pte", TINY_VLM.read_bytes()[:5000])
    with pytest.raises(ModelLoadError, match="ET12"):
        inspect_model(path)
    with pytest.raises(ModelLoadError, match="ET12"):
        MultimodalRunner(path, TINY_VLM.parent)
    path.write_bytes(b"")
    with pytest.raises(ModelLoadError, match="empty"):
        inspect_model(path)
    with pytest.raises(ModelLoadError, match="expected a file"):
        inspect_model(tmp_path)
    with pytest.raises(ModelLoadError, match="No such file"):
        inspect_model(tmp_path / "none.pte")


@pytest.mark.parametrize("name", [b"forward", b"XnnpackBackend", b"aten::", b"get_eos_ids"])
def test_a_name_that_is_no_utf8_is_a_load_error(name: bytes, tmp_path: Path) -> None:
    data = (TESTS / "models" / "exports" / "transformers_llama.pte").read_bytes()
    assert name in data
    damaged = tmp_path / "model.pte"
    damaged.write_bytes(data.replace(name, b"\xff" + name[1:]))
    for read in (inspect_model, lambda path: MultimodalRunner(path, PACKAGE / "models" / "tiny_vlm")):
        with pytest.raises(ModelLoadError, match="a string that is no UTF-8"):
            read(damaged)


def test_the_command_prints_text_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", str(TINY_VLM)]) == 0
    text = capsys.readouterr().out
    for words in (
        "multimodal model",
        "256 positions",
        "cache flat",
        "54 XnnpackBackend",
        "problems: none found",
    ):
        assert words in text
    assert cli.main(["inspect", str(TINY_VLM), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["metadata"]["get_vocab_size"] == 640
    assert report == json.loads(json.dumps(inspect_model(TINY_VLM).to_dict()))
    assert cli.main(["inspect", "none.pte"]) == 1
    assert "none.pte" in capsys.readouterr().err


def test_inspection_maps_the_file_and_loads_no_weights() -> None:
    script = (
        "import resource, sys, executorch_mm; from pathlib import Path; before = "
        "resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; executorch_mm.inspect_model(sys.argv[1]); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    command = [sys.executable, "-c", script, str(TINY_VLM)]
    grown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert int(grown) < 3000 * (1 if sys.platform == "linux" else 1024)


@pytest.mark.parametrize("name", ["behaviour/fixed_length", "behaviour/hidden_mismatch"])
def test_a_model_that_breaks_the_contract_is_reported_in_the_words_of_the_runner(
    name: str, demo_folder: Path
) -> None:
    path = TESTS / "models" / f"{name}.pte"
    with pytest.raises(ContractError) as refusal:
        MultimodalRunner(path, demo_folder)
    report = inspect_model(path)
    assert f"it will not be loaded: {refusal.value}" in report.problems
    assert (report.max_chunk, report.capacity, report.can_rewind) == (None, None, False)


def test_a_transducer_is_no_language_model_and_has_no_problem_for_it() -> None:
    (path, *_) = sorted((TESTS / "models" / "transducer").glob("*.pte"))
    report = inspect_model(path)
    assert (report.kind, report.capacity) == ("other", None)
    assert not any("no language or speech model" in problem for problem in report.problems)
