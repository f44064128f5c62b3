"""Which file is read, what its neighbours say about BOS and EOS, and what is said about a wrong file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from executorch_mm.errors import ExecutorchMMError, MissingDependencyError, TokenizerError
from executorch_mm.tokenizer import load_tokenizer

tokenizers = pytest.importorskip("tokenizers")

NAMES = ["<pad>", "<start>", "<stop>", "<|im_end|>", "<|eot_id|>", "plain"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A word tokenizer with some special tokens, ids 0 to 4."""
    words = {name: i for i, name in enumerate([*NAMES, "<unk>", "red"])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    tokenizer.add_special_tokens(NAMES[:4])
    tokenizer.add_tokens(["<|eot_id|>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def test_a_folder_is_as_good_as_its_tokenizer_json(folder: Path) -> None:
    (folder / "tokenizer.model").write_bytes(b"the same in an older format")
    assert (
        load_tokenizer(folder).encode("red")
        == load_tokenizer(str(folder / "tokenizer.json")).encode("red")
        == [7]
    )


def test_without_side_files_the_ends_are_control_tokens_known_by_name(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    assert tokenizer.eos_ids == {3}  # <|eot_id|> is in the vocabulary, but not as a control token
    assert tokenizer.bos_id is None


def test_ends_are_collected_from_all_side_files(folder: Path) -> None:
    write(folder / "tokenizer_config.json", {"bos_token": {"content": "<start>"}, "eos_token": "<stop>"})
    write(folder / "generation_config.json", {"eos_token_id": [4, 5], "bos_token_id": 0})
    write(folder / "config.json", {"text_config": {"eos_token_id": 6}, "eos_token_id": None})
    write(folder / "special_tokens_map.json", {"eos_token": {"content": "<pad>"}})
    tokenizer = load_tokenizer(folder)
    assert tokenizer.eos_ids == {2, 3, 4, 5, 6, 0}
    assert tokenizer.bos_id == 1
    assert tokenizer.encode("red", add_bos=True, add_eos=True) == [1, 7, 2]


def test_bos_is_found_by_id_when_no_text_is_given(folder: Path) -> None:
    write(folder / "generation_config.json", {"bos_token_id": 1})
    assert load_tokenizer(folder).bos_id == 1


def test_bos_is_found_in_the_post_processor(folder: Path) -> None:
    library = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    library.post_processor = tokenizers.processors.TemplateProcessing(
        single="<start> $A", pair="<start> $A $B", special_tokens=[("<start>", 1)]
    )
    library.save(str(folder / "tokenizer.json"))
    tokenizer = load_tokenizer(folder)
    assert tokenizer.bos_id == 1
    assert tokenizer.encode("red") == [7]
    assert tokenizer.encode("<start>red", add_bos=True) == [1, 7]


def test_in_the_harmony_format_the_end_of_a_message_is_not_the_end(tmp_path: Path) -> None:
    library = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="a"))
    library.add_special_tokens(["<|end|>", "<|return|>"])
    library.save(str(tmp_path / "tokenizer.json"))
    assert load_tokenizer(tmp_path).eos_ids == {2}


@pytest.mark.parametrize("content", ["{", "[]", "\xff"])
def test_a_damaged_side_file_is_an_error_that_names_it(folder: Path, content: str) -> None:
    (folder / "generation_config.json").write_text(content, encoding="latin-1")
    with pytest.raises(TokenizerError, match=r"generation_config\.json"):
        load_tokenizer(folder)


def rejected(path: Path) -> str:
    with pytest.raises(TokenizerError) as caught:
        load_tokenizer(path)
    message = str(caught.value)
    assert message.startswith(f"Failed to load tokenizer from: {path}")
    assert isinstance(caught.value, (ExecutorchMMError, RuntimeError, ValueError))
    assert "\n" not in message
    return message


def test_a_missing_file_is_named_with_what_was_expected(tmp_path: Path) -> None:
    message = rejected(tmp_path / "none" / "tokenizer.json")
    assert "No such file" in message
    assert "expected tokenizer.json, a SentencePiece .model" in message


def test_a_program_in_place_of_a_tokenizer_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(b"\x40\0\0\0ET12" + bytes(100))
    assert "this is an ExecuTorch program (.pte), not a tokenizer" in rejected(path)
    renamed = tmp_path / "model.pte"
    renamed.write_bytes(b"anything")
    assert "(.pte)" in rejected(renamed)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("tokenizer.json", b"", "the file is empty"),
        ("tokenizer.json", b'{"model": {"type": "BPE"', "expected a JSON file"),
        ("tokenizer.json", b'{"version": "1.0", "truncation": null, "model"', "not a usable tokenizer.json"),
        ("tokenizer.json", b'{"model": {"type": "Magic"}}', "not a usable tokenizer.json"),
        (
            "tokenizer_config.json",
            b'{"bos_token": "<s>", "eos_token": 1}',
            "give tokenizer.json from the same folder",
        ),
        ("vocab.json", b'{"a": 1, "b": 2}', "JSON without a tokenizer in it (keys a, b)"),
        ("list.json", b"[1, 2]", "expected tokenizer.json"),
        ("number.json", b"3", "expected tokenizer.json"),
        ("model.gguf", b"GGUF\x03\0\0\0", "this is a GGUF model"),
        ("model.pt", b"PK\x03\x04aaaa", "ZIP archive"),
        ("tokenizer.bin", b"\x03\0\0\0\0\0\0\0\x02\0\0\0a", "not a llama2.c tokenizer, or cut short"),
        ("tokenizer.json", b"version https://example.org/git-lfs/v1\noid sha256:0\n", "Git LFS pointer"),
        ("noise", bytes(range(256)), "expected tokenizer.json"),
        ("tekken.json", b'{"config": {}, "vocab": []}', "not a usable tekken.json"),
    ],
)
def test_a_wrong_file_is_an_error_that_says_what_it_looks_like(
    name: str, content: bytes, expected: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    assert expected in rejected(tmp_path / name)


def test_a_rank_file_with_a_damaged_line_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "t.tiktoken").write_bytes(b"AA== 0\nAQ==\n")
    assert 'line 2 is not "base64 rank"' in rejected(tmp_path / "t.tiktoken")


def test_a_damaged_sentencepiece_model_is_a_typed_error(tmp_path: Path) -> None:
    pytest.importorskip("sentencepiece")
    (tmp_path / "t.model").write_bytes(b"\x0a\x0e\x0a\x05<unk>\x15\0\0")
    assert "damaged SentencePiece model" in rejected(tmp_path / "t.model")


def test_a_folder_without_a_tokenizer_is_an_error(tmp_path: Path) -> None:
    assert "no tokenizer in this folder" in rejected(tmp_path)


def test_a_folder_with_several_tokenizers_is_an_error_that_lists_them(tmp_path: Path) -> None:
    for name in ("tekken.json", "tokenizer.model", "b.tiktoken"):
        (tmp_path / name).touch()
    assert "several tokenizers in this folder (b.tiktoken, tekken.json, tokenizer.model)" in rejected(
        tmp_path
    )


@pytest.mark.parametrize(
    ("content", "extra"),
    [
        (b"AA== 0\n", "tiktoken"),
        (b"\x0a\x0e\x0a\x05<unk>\x15\0\0\0\0\x18\x02", "sentencepiece"),
    ],
)
def test_a_missing_extra_is_an_error_that_names_it(
    content: bytes, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, extra, None)
    (tmp_path / "t.model").write_bytes(content)
    with pytest.raises(MissingDependencyError, match=rf"pip install 'executorch_mm\[{extra}\]'"):
        load_tokenizer(tmp_path / "t.model")


def test_importing_the_module_imports_no_tokenizer_library() -> None:
    code = (
        "import sys, executorch_mm.tokenizer, executorch_mm._engine.text_stream;"
        "print([m for m in ('tokenizers', 'sentencepiece', 'tiktoken', 'PIL', 'torch') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
