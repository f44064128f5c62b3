"""`--draft-model` of `generate` and `serve`: the answers are those without it, and it is asked."""

from __future__ import annotations

import json
import shutil
import urllib.request
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from executorch_mm import (
    GenerationConfig,
    InputError,
    MultimodalModel,
    MultimodalRunner,
    cli,
    make_token_input,
)
from executorch_mm.cli import serve
from stateful_models import MODELS

PROMPT = [5, 9, 2, 33, 17, 21, 5, 9]
DRAFT = str(MODELS / "export_llm" / "llama_xnnpack_8da4w.pte")  # a sixth of the model in size


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 64 tokens, which gives logits for each token of a call, and words for them."""
    folder = tmp_path_factory.mktemp("numbers")
    shutil.copy(MODELS / "multimodal" / "image_audio.pte", folder / "model.pte")
    words = Tokenizer(WordLevel({str(token): token for token in range(64)}, unk_token="0"))
    words.pre_tokenizer = WhitespaceSplit()
    words.save(str(folder / "tokenizer.json"))
    return folder


def test_generate_answers_the_same_with_a_draft_model(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    said = []
    for options in ((), ("--draft-model", DRAFT)):
        arguments = (
            "generate",
            "--model",
            str(folder),
            "--raw",
            "--stats",
            "--max-new-tokens",
            "24",
            *options,
        )
        assert cli.main((*arguments, " ".join(map(str, PROMPT)))) == 0
        answer, stats = capfd.readouterr()
        assert ("guesses right" in stats) == bool(options)
        said.append(answer)
    assert len(said[0].split()) == 24
    assert said[0] == said[1]


def test_serve_answers_the_same_with_a_draft_model(folder: Path) -> None:
    pytest.importorskip("uvicorn", reason="the extra executorch_mm[server] is not installed")
    pytest.importorskip("starlette", reason="the extra executorch_mm[server] is not installed")
    from executorch_mm.server import BackgroundServer, ServerOptions

    config = GenerationConfig(max_new_tokens=24, ignore_eos=True)
    models, answers = [], []
    for options in ((), ("--draft-model", DRAFT)):
        parsed = cli.build_parser().parse_args(["serve", str(folder), *options])
        model = serve._load(parsed, "auto")
        assert isinstance(model, MultimodalModel)
        with model.session() as session:
            result = session.generate_result(make_token_input(PROMPT), config)
        assert (result.stats.num_drafted_tokens > 0) == bool(options)
        models.append(model)
        answers.append(result.text)
    asked = {"prompt": " ".join(map(str, PROMPT)), "max_tokens": 24, "temperature": 0, "ignore_eos": True}
    with models[0], BackgroundServer({"numbers": lambda: models[1]}, ServerOptions(port=0)) as server:
        request = urllib.request.Request(
            f"{server.url}/v1/completions",
            json.dumps({"model": "numbers", **asked}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=20) as reply:
            answers.append(json.load(reply)["choices"][0]["text"])
    assert len(answers[0].split()) == 24
    assert answers[0] == answers[1] == answers[2]


def test_a_model_of_one_conversation_is_served_with_its_draft(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("starlette", reason="the extra executorch_mm[server] is not installed")

    def session(_model: MultimodalModel) -> object:
        raise InputError("its state lies in a delegate")

    monkeypatch.setattr(MultimodalModel, "session", session)
    parsed = cli.build_parser().parse_args(["serve", str(folder), "--draft-model", DRAFT])
    with serve._load(parsed, "auto") as runner:
        assert isinstance(runner, MultimodalRunner)
        result = runner.generate_result(make_token_input(PROMPT), max_new_tokens=24, ignore_eos=True)
    assert result.stats.num_drafted_tokens > 0
