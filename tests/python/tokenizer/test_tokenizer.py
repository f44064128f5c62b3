"""Every tokenizer adapter against the library behind it, and the rules all of them share."""

from __future__ import annotations

import base64
import functools
import json
import random
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from executorch_mm import GenerationConfig, Regex
from executorch_mm._engine.constraint import Constraints
from executorch_mm.errors import InputError, TokenizerError
from executorch_mm.tokenizer import IncrementalDecoder, Tokenizer, load_tokenizer
from tokenizer_kinds import (
    ALL_KINDS,
    CORPUS,
    HF_KINDS,
    SENTENCEPIECE_KINDS,
    Built,
    build,
    byte_level,
    save_hf,
    small_llama2c,
    write_llama2c,
    write_ranks,
    write_tekken,
)

tokenizers = pytest.importorskip("tokenizers")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Built]:
    """name -> (our tokenizer, the library's own decoding of ids without special tokens)."""
    root = tmp_path_factory.mktemp("tokenizers")
    return functools.cache(lambda name: build(name, root))


REVERSIBLE = ["byte-level", "llama", "gemma", "sp bpe", "sp no prefix", "tiktoken", "tekken", "llama2c"]
TEXTS = [
    "a large red circle",
    "漢字 and 🙂👩‍👩‍👧 é",
    "two  spaces\n\tand a tab ",
    " leading space",
    "ab",
    "",
    "x" * 200,
    "unseen: ∀ẞ٣",
]


def pieces_of(decoder: IncrementalDecoder, ids: list[int]) -> list[str]:
    return [*(decoder.push(token_id) for token_id in ids), decoder.flush()]


@pytest.mark.parametrize("kind", ALL_KINDS)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_pieces_joined_equal_decode_for_any_ids(
    kind: str, built: Callable[[str], Built], data: st.DataObject
) -> None:
    tokenizer, _ = built(kind)
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size + 3), max_size=30))
    skip = data.draw(st.booleans())
    pieces = pieces_of(tokenizer.decoder(skip_special_tokens=skip), ids)
    assert "".join(pieces) == tokenizer.decode(ids, skip_special_tokens=skip)


@pytest.mark.parametrize("kind", [*HF_KINDS, *SENTENCEPIECE_KINDS])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_decode_equals_the_library_where_its_bytes_are_utf8(
    kind: str, built: Callable[[str], Built], data: st.DataObject
) -> None:
    tokenizer, library = built(kind)
    assert library is not None
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=30))
    expected = library(ids)
    if kind in ("llama", "gemma") and "\ufffd" in expected:
        return  # HF's ByteFallback replaces the whole run of byte tokens; ours only the broken ones
    assert tokenizer.decode(ids) == expected


@pytest.mark.parametrize("control", [[], [1], [2], [1, 2]])
def test_sentencepiece_joins_no_bytes_across_a_control_token(
    built: Callable[[str], Built], control: list[int]
) -> None:
    tokenizer, library = built("sp bpe")
    assert library is not None
    first, second = (tokenizer.token_to_id(f"<0x{byte:02X}>") for byte in "é".encode())
    assert first is not None
    assert second is not None
    ids = [first, *control, second]
    assert tokenizer.decode(ids) == library(ids) == ("\ufffd\ufffd" if control else "é")
    assert "".join(pieces_of(tokenizer.decoder(), ids)) == library(ids)


@pytest.mark.parametrize("kind", REVERSIBLE)
@pytest.mark.parametrize("text", TEXTS)
def test_decode_gives_encoded_text_back(kind: str, text: str, built: Callable[[str], Built]) -> None:
    tokenizer, _ = built(kind)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert "".join(pieces_of(tokenizer.decoder(), ids)) == text


@pytest.mark.parametrize("kind", REVERSIBLE)
@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=30))
def test_decode_gives_any_text_back(kind: str, built: Callable[[str], Built], text: str) -> None:
    if any(unicodedata.category(char) in ("Cs", "Cn") for char in text) or "\u2581" in text or "<" in text:
        return
    tokenizer, _ = built(kind)
    if kind.startswith("sp") and "\0" in text:
        return  # SentencePiece ends a text there
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("kind", ["byte-level", "tiktoken", "tekken", "sp bpe", "llama", "llama2c"])
def test_a_piece_is_never_half_a_character(kind: str, built: Callable[[str], Built]) -> None:
    tokenizer, _ = built(kind)
    text = "é漢🙂👩‍👩‍👧∀ẞ٣"  # the last three are in no vocabulary: bytes, however training breaks its ties
    pieces = pieces_of(tokenizer.decoder(), tokenizer.encode(text))
    assert "".join(pieces) == text
    assert all("\ufffd" not in piece for piece in pieces)
    assert sum(piece == "" for piece in pieces) > 3


@pytest.mark.parametrize("kind", REVERSIBLE)
def test_token_bytes_joined_are_the_bytes_of_the_text(kind: str, built: Callable[[str], Built]) -> None:
    tokenizer, _ = built(kind)
    text = "a red 漢🙂 é"
    joined = b"".join(tokenizer.token_bytes(token_id) for token_id in tokenizer.encode(text))
    assert joined.removeprefix(b" ") == text.encode()


class RandomAnswer:
    """Stands for a Generation; what comes is any token that is allowed."""

    def __init__(self, seed: int, vocab_size: int) -> None:
        self.tokens: list[int] = []
        self.vocab_size = vocab_size  # of the logits
        self._rng = random.Random(seed)

    def next(self, _: object, allowed: NDArray[np.uint32], check: object) -> int | None:  # no guesses here
        bits = np.unpackbits(allowed.view(np.uint8), bitorder="little")[: self.vocab_size]
        return self.next_forced(self._rng.choice(np.flatnonzero(bits).tolist()))

    def next_forced(self, token: int) -> int | None:
        self.tokens.append(token)
        return token


@pytest.mark.parametrize("kind", REVERSIBLE)
def test_masks_allow_the_tokens_that_spell_the_format(kind: str, built: Callable[[str], Built]) -> None:
    pytest.importorskip("llguidance")
    tokenizer, _ = built(kind)
    constraints = Constraints(tokenizer, [], tokenizer.vocab_size + 70)  # logits may be wider
    pattern = r"( red|ﬁ café|<\|user\|>|🙂 漢)\{\"first_name\": [a-c0-9é漢]{1,5}\}"
    for seed in range(20):
        constraint = constraints.start(GenerationConfig(response_format=Regex(pattern)))
        answer = RandomAnswer(seed, tokenizer.vocab_size + 70)
        while constraint.next(answer, ()) is not None:  # type: ignore[arg-type]
            pass
        assert max(answer.tokens) < tokenizer.vocab_size
        assert not any(tokenizer.is_special(token) for token in answer.tokens)
        text = b"".join(map(tokenizer.token_bytes, answer.tokens)).decode()
        assert re.fullmatch(pattern, text)
        shown = tokenizer.decoder(after=tokenizer.encode("a"))
        assert "".join(pieces_of(shown, answer.tokens)) == text


def test_a_format_needs_tokens_that_spell_by_themselves(built: Callable[[str], Built]) -> None:
    tokenizer, _ = built("suffix")
    with pytest.raises(InputError, match=r"^response_format: .*tokenizer"):
        Constraints(tokenizer, [], 400).start(GenerationConfig(response_format=Regex("a")))


def test_an_unfinished_character_comes_as_one_replacement_character_from_flush(
    built: Callable[[str], Built],
) -> None:
    tokenizer, _ = built("byte-level")
    ids = tokenizer.encode("🙂")
    assert len(ids) > 1
    assert pieces_of(tokenizer.decoder(), ids[:-1]) == [""] * (len(ids) - 1) + ["\ufffd"]


def test_bytes_that_cannot_become_a_character_are_replaced_as_soon_as_that_is_known(
    built: Callable[[str], Built],
) -> None:
    tokenizer, _ = built("tiktoken")
    smile = list("🙂".encode())  # the id of a byte is the byte
    assert pieces_of(tokenizer.decoder(), [*smile[:2], ord("a"), 0xFF]) == ["", "", "\ufffda", "\ufffd", ""]


@pytest.mark.parametrize(
    ("kind", "text", "special"),
    [
        ("byte-level", "<|user|>what?<|end|><|assistant|>", ["<|user|>", "<|end|>", "<|assistant|>"]),
        ("llama", "<s>hi there</s>", ["<s>", "</s>"]),
        ("sp bpe", "<s>hi there</s>and", ["<s>", "</s>"]),
        ("tiktoken", "<|begin_of_text|>hi<|eot_id|>", ["<|begin_of_text|>", "<|eot_id|>"]),
        ("tekken", "<s>[INST]hi[/INST]", ["<s>", "[INST]", "[/INST]"]),
        ("llama2c", "<s>ab</s>", ["<s>", "</s>"]),
    ],
)
def test_special_tokens_written_in_the_text_are_recognised_and_skipped_in_decoding(
    kind: str, text: str, special: list[str], built: Callable[[str], Built]
) -> None:
    tokenizer, _ = built(kind)
    ids = tokenizer.encode(text)
    assert [i for i in ids if tokenizer.is_special(i)] == [tokenizer.token_to_id(token) for token in special]
    assert tokenizer.decode(ids, skip_special_tokens=False).replace(" ", "") == text.replace(" ", "")
    plain = text
    for token in special:
        plain = plain.replace(token, "")
    assert tokenizer.decode(ids).strip() == plain


@pytest.mark.parametrize("kind", ["byte-level", "sp bpe", "tiktoken", "tekken", "llama2c"])
def test_bos_and_eos_are_added_once(kind: str, built: Callable[[str], Built]) -> None:
    tokenizer, _ = built(kind)
    bos = tokenizer.bos_id
    assert bos is not None
    plain = tokenizer.encode("ab")
    once = tokenizer.encode("ab", add_bos=True, add_eos=True)
    assert once[1:-1] == plain
    assert once[0] == bos
    assert once[-1] in tokenizer.eos_ids
    written = tokenizer.decode(once, skip_special_tokens=False)
    again = tokenizer.encode(written, add_bos=True, add_eos=True)
    assert [i for i in again if tokenizer.is_special(i)] == [bos, once[-1]]
    assert tokenizer.encode("", add_bos=True) == [bos]


@pytest.mark.parametrize("kind", ["byte-level", "sp bpe", "sp unigram", "tiktoken", "tekken", "llama2c"])
def test_a_written_bos_and_an_added_one_give_the_same_ids(kind: str, built: Callable[[str], Built]) -> None:
    tokenizer, _ = built(kind)
    assert tokenizer.bos_id is not None
    written = tokenizer.id_to_token(tokenizer.bos_id)
    assert tokenizer.encode(f"{written}ab") == tokenizer.encode("ab", add_bos=True)


def test_asking_for_a_bos_that_does_not_exist_is_an_error(built: Callable[[str], Built]) -> None:
    tokenizer, _ = built("no decoder")
    assert tokenizer.bos_id is None
    assert tokenizer.eos_ids == frozenset()
    with pytest.raises(TokenizerError, match="add_bos=True"):
        tokenizer.encode("red", add_bos=True)
    with pytest.raises(TokenizerError, match="add_eos=True"):
        tokenizer.encode("red", add_eos=True)


@pytest.mark.parametrize("kind", ["llama", "sp bpe", "llama2c", "metaspace"])
def test_text_after_a_prompt_keeps_its_leading_space(kind: str, built: Callable[[str], Built]) -> None:
    tokenizer, _ = built(kind)
    whole = tokenizer.encode("ab ab")
    prompt = tokenizer.encode("ab")
    assert whole[: len(prompt)] == prompt
    rest = whole[len(prompt) :]
    assert "".join(pieces_of(tokenizer.decoder(after=prompt), rest)) == " ab"
    assert "".join(pieces_of(tokenizer.decoder(), rest)) == "ab"


@pytest.mark.parametrize("kind", [kind for kind in ALL_KINDS if kind != "suffix"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_decoding_after_a_prompt_continues_its_text(
    kind: str, built: Callable[[str], Built], data: st.DataObject
) -> None:
    tokenizer, _ = built(kind)
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=12))
    cut = data.draw(st.integers(0, len(ids)))
    prompt = tokenizer.decode(ids[:cut])
    if "\ufffd" in prompt + tokenizer.decode(ids):
        return  # a prompt does not end within a character
    assert prompt + "".join(pieces_of(tokenizer.decoder(after=ids[:cut]), ids[cut:])) == tokenizer.decode(ids)


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_ids_beyond_the_vocabulary_have_no_text_and_negative_ids_are_errors(
    kind: str, built: Callable[[str], Built]
) -> None:
    tokenizer, _ = built(kind)
    assert isinstance(tokenizer, Tokenizer)
    beyond = tokenizer.vocab_size + 5
    assert (tokenizer.decode([beyond]), tokenizer.token_bytes(beyond)) == ("", b"")
    assert tokenizer.id_to_token(beyond) is None
    assert not tokenizer.is_special(beyond)
    for call in (tokenizer.token_bytes, tokenizer.id_to_token, tokenizer.decoder().push):
        with pytest.raises(TokenizerError, match="not negative"):
            call(-1)
    with pytest.raises(TokenizerError, match="integers, got str"):
        tokenizer.decode(["a"])  # type: ignore[list-item]


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_the_largest_id_has_a_token_that_is_found_again(kind: str, built: Callable[[str], Built]) -> None:
    tokenizer, _ = built(kind)
    largest = tokenizer.vocab_size - 1
    token = tokenizer.id_to_token(largest)
    assert token is not None
    assert tokenizer.token_to_id(token) == largest
    assert tokenizer.token_to_id("no such token ☃☃") is None


@pytest.mark.parametrize("kind", ["byte-level", "llama2c"])
@pytest.mark.parametrize(
    ("text", "message"), [(b"ab", "must be a str, got bytes"), ("a\ud800", "lone surrogate at")]
)
def test_what_cannot_be_encoded_is_a_typed_error(
    kind: str, text: str, message: str, built: Callable[[str], Built]
) -> None:
    with pytest.raises(InputError, match=message):
        built(kind)[0].encode(text)


def test_truncation_and_padding_in_the_file_are_ignored(tmp_path: Path) -> None:
    library = byte_level()
    library.enable_truncation(max_length=2)
    library.enable_padding(length=20)
    tokenizer = load_tokenizer(save_hf(library, tmp_path))
    assert (
        tokenizer.decode(tokenizer.encode("a large red circle left of it")) == "a large red circle left of it"
    )
    assert 2 < len(tokenizer.encode("a large red circle left of it")) < 20


def test_sentencepiece_ids_equal_the_library(built: Callable[[str], Built]) -> None:
    tokenizer, library = built("sp bpe")
    assert library is not None
    processor = library.__self__
    for text in [*CORPUS[:5], *TEXTS]:
        assert tokenizer.encode(text) == processor.encode(text)


def test_llama2c_ids_equal_sentencepiece_for_the_same_vocabulary(
    tmp_path: Path, built: Callable[[str], Built]
) -> None:
    _, library = built("sp bpe")
    assert library is not None
    processor = library.__self__
    tokens = [
        (processor.id_to_piece(i).replace("▁", " ").encode(), processor.get_score(i))
        for i in range(processor.vocab_size())
    ]
    ours = load_tokenizer(write_llama2c(tmp_path / "tokenizer.bin", tokens))
    for text in [*CORPUS[:5], *TEXTS, " ".join(CORPUS)]:
        assert ours.encode(text) == processor.encode(text)
        assert ours.decode(processor.encode(text)) == text


@pytest.mark.parametrize("header", [(-1, 1, 2), (0, 0, 0), None])
def test_llama2c_files_with_either_header_are_read(
    header: tuple[int, int, int] | None, tmp_path: Path
) -> None:
    tokenizer = load_tokenizer(small_llama2c(tmp_path / "t.bin", header))
    assert (tokenizer.bos_id, tokenizer.eos_ids) == (1, frozenset({2}))
    assert [tokenizer.id_to_token(i) for i in tokenizer.encode("abc é")] == [" ab", "c", " ", "é"]
    assert tokenizer.decode(tokenizer.encode("abc é")) == "abc é"


def test_tekken_ids_are_ranks_after_the_special_tokens(tmp_path: Path) -> None:
    pytest.importorskip("tiktoken")
    listed = [
        {"rank": i, "token_str": text, "is_control": True} for i, text in enumerate(["<unk>", "<s>", "</s>"])
    ]
    tokenizer = load_tokenizer(write_tekken(tmp_path, listed))
    assert tokenizer.encode("abc<s>a") == [
        20 + 256,
        20 + ord("c"),
        1,
        20 + ord("a"),
    ]  # rank 257 is beyond default_vocab_size
    assert tokenizer.token_to_id("<SPECIAL_7>") == 7
    assert tokenizer.vocab_size == 277


def test_llama3_special_tokens_follow_the_ranks(built: Callable[[str], Built]) -> None:
    tokenizer, _ = built("tiktoken")
    first = tokenizer.vocab_size - 256
    assert tokenizer.token_to_id("<|begin_of_text|>") == first == tokenizer.bos_id
    assert tokenizer.token_to_id("<|eot_id|>") == first + 9
    assert tokenizer.eos_ids == {first + 1, first + 8, first + 9}


def test_tiktoken_ids_equal_the_library(tmp_path: Path) -> None:
    tiktoken = pytest.importorskip("tiktoken")
    path = write_ranks(tmp_path)
    pattern = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+"
    lines = [line.split() for line in path.read_text().splitlines()]
    ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
    special = {"<|begin_of_text|>": len(ranks), "<|eot_id|>": len(ranks) + 9}
    library = tiktoken.Encoding("reference", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)
    ours = load_tokenizer(path)
    text = "<|begin_of_text|> the red circle, 12 漢字 🙂<|eot_id|> the"
    ids = library.encode(text, allowed_special="all")
    assert ours.encode(text) == ids
    assert len(ids) < len(text)
    assert ours.decode(ids, skip_special_tokens=False) == library.decode(ids) == text


def test_tiktoken_special_tokens_come_from_the_configuration_when_there_is_one(tmp_path: Path) -> None:
    pytest.importorskip("tiktoken")
    path = write_ranks(tmp_path)
    added = {
        "1000": {"content": "<|im_start|>", "special": True},
        "1001": {"content": "<|im_end|>", "special": True},
        "1002": {"content": "<tool>", "special": False},
    }
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": "<|im_end|>", "added_tokens_decoder": added})
    )
    tokenizer = load_tokenizer(path)
    ids = tokenizer.encode("<|im_start|><tool>hi<|im_end|>")
    assert (ids[:2], ids[-1], tokenizer.eos_ids, tokenizer.bos_id) == ([1000, 1002], 1001, {1001}, None)
    assert tokenizer.decode(ids) == "<tool>hi"
