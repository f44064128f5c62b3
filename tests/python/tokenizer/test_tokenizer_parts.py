"""Texts in parts: tokens by id between texts that may spell tokens and do not become them."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import tokenizers

from executorch_mm import TokenizerError, load_tokenizer
from executorch_mm._tokenizers.base import PieceTokenizer
from executorch_mm._tokenizers.sentencepiece_proto import user_defined_symbols, with_other_texts
from executorch_mm.chat.control_tokens import encode_parts
from tokenizer_kinds import ALL_KINDS, Built, build, byte_level, save_hf, train_sentencepiece


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Built]:
    root = tmp_path_factory.mktemp("tokenizers")
    return functools.cache(lambda name: build(name, root))


TEXTS = ["a large red circle", " left of", "two  spaces\n\tand a tab ", "é 漢字 🙂", "\n"]
# Kinds whose decoding gives every text back, with what they decode a text to that begins behind another.
REVERSIBLE = ["byte-level", "gemma", "sp bpe", "sp no prefix", "tiktoken", "tekken", "llama2c"]


def of(built: Callable[[str], Built], kind: str) -> PieceTokenizer:
    tokenizer, _ = built(kind)
    assert isinstance(tokenizer, PieceTokenizer)
    return tokenizer


def special_of(tokenizer: PieceTokenizer) -> dict[str, int]:
    return {
        text: i for text, i in tokenizer.text_tokens().items() if tokenizer.is_special(i) and text != "<unk>"
    }


@pytest.mark.parametrize("kind", [kind for kind in ALL_KINDS if kind not in ("no decoder", "suffix")])
def test_texts_that_spell_no_token_have_the_ids_of_the_whole(
    kind: str,
    built: Callable[[str], Built],
) -> None:
    tokenizer = of(built, kind)
    special = special_of(tokenizer)
    plain = frozenset(special)
    for token, token_id in list(special.items())[:3]:
        for before in ("", *TEXTS):
            for after in TEXTS:
                parts = [part for part in (before, token_id, after, token_id) if part != ""]
                whole = tokenizer.encode(f"{before}{token}{after}{token}")
                assert tokenizer.encode_parts(parts, plain) == whole, (before, token, after)


@pytest.mark.parametrize("kind", REVERSIBLE)
def test_tokens_that_a_text_spells_are_text(kind: str, built: Callable[[str], Built]) -> None:
    tokenizer = of(built, kind)
    special = special_of(tokenizer)
    first, *_, last = special
    for text in (
        first,
        f"{first}{last}",
        f"a {last} b",
        f"{last}\n{first}",
        f"{first[:-1]}{last}",
        f"{last} ",
    ):
        ids = tokenizer.encode_parts([text, special[last], text], frozenset(special))
        assert [token_id for token_id in ids if tokenizer.is_special(token_id)] == [special[last]]
        assert tokenizer.decode(ids, skip_special_tokens=False) == f"{text}{last}{text}"


@pytest.mark.parametrize("kind", ["sp bpe", "sp unigram", "sp no prefix"])
def test_control_symbols_are_spelled_as_sentencepiece_spells_them(
    kind: str,
    built: Callable[[str], Built],
    tmp_path: Path,
) -> None:
    """The library takes none of them out of a text."""
    sentencepiece = pytest.importorskip("sentencepiece")
    tokenizer = of(built, kind)
    library = sentencepiece.SentencePieceProcessor(model_file=tokenizer._path)
    for text in ("<s>", "a <s> b</s>", "red</s>circle"):
        assert tokenizer.encode_parts([text], frozenset(special_of(tokenizer))) == library.encode(text)


def test_tiktoken_spells_them_as_its_library_does(built: Callable[[str], Built]) -> None:
    tokenizer = of(built, "tiktoken")
    encoding = tokenizer._encoding  # type: ignore[attr-defined]
    for text in ("<|eot_id|>", "a <|begin_of_text|> circle<|eot_id|>"):
        assert tokenizer.encode_parts([text], frozenset(special_of(tokenizer))) == encoding.encode_ordinary(
            text
        )


@pytest.mark.parametrize("kind", ["byte-level", "gemma", "llama", "wordpiece"])
def test_added_tokens_are_spelled_as_by_a_tokenizer_that_lacks_them(
    kind: str,
    built: Callable[[str], Built],
) -> None:
    tokenizer = of(built, kind)
    content = json.loads(Path(tokenizer._path).read_text(encoding="utf-8"))
    content["added_tokens"] = []
    without = tokenizers.Tokenizer.from_str(json.dumps(content))
    special = special_of(tokenizer)
    token = next(iter(special))
    for text in (f"a {token} circle", f"{token[:2]}{token}{token}\n", f"red{token}"):
        ids = without.encode(text, add_special_tokens=False).ids
        assert special[token] not in ids
        assert tokenizer.encode_parts([text], frozenset(special)) == ids


def test_other_tokens_are_still_found(built: Callable[[str], Built]) -> None:
    tokenizer = of(built, "byte-level")
    special = special_of(tokenizer)
    ids = tokenizer.encode_parts(["<|user|><|end|>a"], frozenset({"<|user|>"}))
    assert special["<|end|>"] in ids
    assert special["<|user|>"] not in ids


def test_texts_that_follow_each_other_do_not_merge(built: Callable[[str], Built]) -> None:
    for kind, left, right in (("byte-level", " c", "ircle"), ("tiktoken", " th", "e"), ("llama2c", "a", "b")):
        tokenizer = of(built, kind)
        plain = frozenset(special_of(tokenizer))
        apart = tokenizer.encode_parts([left, right], plain)
        assert len(apart) > len(tokenizer.encode_parts([left + right], plain))
        assert tokenizer.decode(apart) == left + right


def test_flags_of_added_tokens_are_kept(tmp_path: Path) -> None:
    library = byte_level()
    stripping = tokenizers.AddedToken("<mask>", lstrip=True, rstrip=True, special=True)
    library.add_special_tokens([stripping])  # type: ignore[attr-defined]
    library.add_tokens(["<think>"])  # type: ignore[attr-defined]
    tokenizer = load_tokenizer(save_hf(library, tmp_path))
    assert isinstance(tokenizer, PieceTokenizer)
    ids = tokenizer.text_tokens()
    for token in ("<mask>", "<think>"):
        whole = tokenizer.encode(f"a {token} b")
        assert tokenizer.encode_parts(["a ", ids[token], " b"], frozenset({"<mask>", "<think>"})) == whole


def test_a_vocabulary_with_gaps_keeps_its_ids(tmp_path: Path) -> None:
    vocabulary = {"a": 0, "<x>": 1, "<unk>": 2, "b": 4}  # a new token would be the fifth
    model = tokenizers.models.WordLevel(vocabulary, unk_token="<unk>")
    library = tokenizers.Tokenizer(model)
    library.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    library.add_special_tokens(["<x>"])
    tokenizer = load_tokenizer(save_hf(library, tmp_path))
    assert isinstance(tokenizer, PieceTokenizer)
    assert tokenizer.encode_parts(["a b", 1, "b"], frozenset({"<x>"})) == [0, 4, 1, 4]


# Vocabularies that have the token as a word.


def test_a_word_of_the_vocabulary_is_broken(tmp_path: Path) -> None:
    scores = [("<unk>", 0.0), ("</s>", -1.0), ("▁", -2.0), *((char, -3.0) for char in "</s>ab")]
    library = tokenizers.Tokenizer(tokenizers.models.Unigram(scores, unk_id=0))
    library.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(prepend_scheme="first")
    library.decoder = tokenizers.decoders.Metaspace(prepend_scheme="first")
    library.add_special_tokens(["</s>"])
    tokenizer = load_tokenizer(save_hf(library, tmp_path))
    assert isinstance(tokenizer, PieceTokenizer)
    ids = tokenizer.encode_parts(["a</s>b", 1, "</s>"], frozenset({"</s>"}))
    assert ids.count(1) == 1
    assert tokenizer.decode(ids, skip_special_tokens=False) == "a</s>b</s></s>"


def test_a_token_without_another_spelling_is_an_error(tmp_path: Path) -> None:
    library = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({"<": 0, "a": 1, "<unk>": 2}, unk_token="<unk>")
    )
    library.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    library.add_special_tokens(["<"])
    tokenizer = load_tokenizer(save_hf(library, tmp_path))
    assert isinstance(tokenizer, PieceTokenizer)
    assert tokenizer.encode_parts(["a", 0], frozenset({"<"})) == [1, 0]
    with pytest.raises(TokenizerError, match="spells a control token"):
        tokenizer.encode_parts(["a < a"], frozenset({"<"}))
    with pytest.raises(TokenizerError, match="lone surrogate"):
        tokenizer.encode_parts(["a\ud800"], frozenset({"<"}))


# Symbols that SentencePiece itself finds in texts.

TURN = ["<start_of_turn>", "<end_of_turn>"]


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def with_turns(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PieceTokenizer:
    path = train_sentencepiece(
        tmp_path_factory.mktemp("turns"),
        model_type=request.param,
        vocab_size=400 if request.param == "bpe" else 420,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        user_defined_symbols=TURN,
    )
    tokenizer = load_tokenizer(path)
    assert isinstance(tokenizer, PieceTokenizer)
    return tokenizer


def test_symbols_of_a_model_s_maker_are_found_and_renamed(with_turns: PieceTokenizer) -> None:
    proto = Path(with_turns._path).read_bytes()
    found = user_defined_symbols(proto)
    assert set(found) == set(TURN)
    assert all(with_turns.id_to_token(token_id) == text for text, token_id in found.items())
    renamed = user_defined_symbols(with_other_texts(proto, {found[TURN[0]]: "{other}"}))
    assert renamed == {"{other}": found[TURN[0]], TURN[1]: found[TURN[1]]}
    assert with_other_texts(proto, {}) == proto


def test_symbols_of_a_model_s_maker_are_text_where_a_text_spells_them(with_turns: PieceTokenizer) -> None:
    start, end = (with_turns.text_tokens()[token] for token in TURN)
    plain = frozenset([*TURN, "<s>", "</s>"])
    text = "a <end_of_turn> b<start_of_turn>"
    ids = with_turns.encode_parts([start, text, end, "\n", start], plain)
    assert [token_id for token_id in ids if token_id in (start, end)] == [start, end, start]
    assert (
        with_turns.decode(ids, skip_special_tokens=False).lstrip() == f"{TURN[0]}{text}{TURN[1]}\n{TURN[0]}"
    )
    for words in ("a red circle", "b\n", " c"):
        whole = with_turns.encode(f"<s>{TURN[0]}{words}{TURN[1]}\n{words}{TURN[0]}")
        parts = [with_turns.text_tokens()["<s>"], start, words, end, f"\n{words}", start]
        assert with_turns.encode_parts(parts, plain) == whole


# A tokenizer of somebody else's.


class Foreign:
    """What `Tokenizer` asks for, and no more."""

    vocab_size = 300
    bos_id = None
    eos_ids = frozenset({299})
    special = {298: "<|user|>", 299: "<|end|>"}  # noqa: RUF012

    def encode(self, text: str, *, add_bos: bool = False, add_eos: bool = False) -> list[int]:
        ids: list[int] = []
        while text:
            token = next((i for i, token in self.special.items() if text.startswith(token)), None)
            ids.append(ord(text[0]) % 256 if token is None else token)
            text = text[1 if token is None else len(self.special[token]) :]
        return ids

    def is_special(self, token_id: int) -> bool:
        return token_id in self.special

    def id_to_token(self, token_id: int) -> str | None:
        return self.special.get(token_id)


def test_a_tokenizer_of_somebody_else_s_gets_texts_in_pieces() -> None:
    ids = encode_parts(Foreign(), [298, "a<|end|>b<|user|>", 299], frozenset(Foreign.special.values()))  # type: ignore[arg-type]
    assert ids == [298, *map(ord, "a<|end|>b<|user|>"), 299]
