"""Words added to a vocabulary: decoding, bytes and masks give the text that was encoded."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from executorch_mm import GenerationConfig, Regex
from executorch_mm._engine.constraint import Constraints
from executorch_mm._engine.text_stream import TextStream
from executorch_mm.tokenizer import Tokenizer, load_tokenizer

tokenizers = pytest.importorskip("tokenizers")

from tiny_tokenizers import CORPUS, KINDS, byte_level  # noqa: E402

# Letters that stand for bytes in a byte-level vocabulary, letters that do not, and both in one word.
WORDS = (
    *("café", "naïve", "Straße", "ñandú", "Ünï", "Ġword", "Ãļ", "ÿ\u0100x"),
    *("日本", "“quoted”", "İstanbul", "e\u0301x", "日é", "tab\tx", "New York"),
    *("õõ", "÷÷", "<|usér|>", "<\uff5cfin\u2581é\uff5c>", "¡¿", "ŀĠĊ"),
)
FLAGS = list(itertools.product([False, True], repeat=4))


def saved(library: object, folder: Path) -> Tokenizer:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(library.to_str(), encoding="utf-8")
    return load_tokenizer(folder)


def with_words(library: object, *, special: bool, normalized: bool = False, **flags: bool) -> object:
    added = [tokenizers.AddedToken(word, normalized=normalized, **flags) for word in WORDS]
    (library.add_special_tokens if special else library.add_tokens)(added)
    return library


def texts_with(word: str) -> Iterator[str]:
    yield from (word, f"how {word} many", f"how{word}many", word + word, f"{word} é漢", f"é{word}🙂")


@pytest.mark.parametrize(("special", "normalized", "single_word", "early"), FLAGS)
def test_a_byte_level_vocabulary_gives_the_text_back(
    tmp_path: Path, special: bool, normalized: bool, single_word: bool, early: bool
) -> None:
    if early:  # the words are in the model's own vocabulary too, as after training with special tokens
        library = tokenizers.Tokenizer(tokenizers.models.BPE())
        library.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        library.decoder = tokenizers.decoders.ByteLevel()
        alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=400, special_tokens=list(WORDS), initial_alphabet=alphabet, show_progress=False
        )
        library.train_from_iterator(CORPUS, trainer)
        content = json.loads(library.to_str())
        content["added_tokens"] = [
            {**token, "special": special, "normalized": normalized, "single_word": single_word}
            for token in content["added_tokens"]
        ]
        library = tokenizers.Tokenizer.from_str(json.dumps(content))
    else:
        library = with_words(byte_level(), special=special, normalized=normalized, single_word=single_word)
    tokenizer = saved(library, tmp_path)
    num_added = 0
    for word, text in [(added, text) for added in WORDS for text in texts_with(added)]:
        ids = tokenizer.encode(text)
        assert ids == library.encode(text, add_special_tokens=False).ids
        num_added += tokenizer.token_to_id(word) in ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == text
        assert b"".join(map(tokenizer.token_bytes, ids)) == text.encode()
        decoder = tokenizer.decoder(skip_special_tokens=False)
        assert "".join([*map(decoder.push, ids), decoder.flush()]) == text
    assert num_added > len(WORDS)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "byte_level"])
@pytest.mark.parametrize(("special", "normalized", "lstrip", "rstrip"), FLAGS)
def test_other_vocabularies_give_what_the_library_gives(
    kind: str, tmp_path: Path, special: bool, normalized: bool, lstrip: bool, rstrip: bool
) -> None:
    library = with_words(KINDS[kind](), special=special, normalized=normalized, lstrip=lstrip, rstrip=rstrip)
    tokenizer = saved(library, tmp_path)
    # The library forgets that a token is special where the normalizer changes its text.
    skips = [False] if special and normalized else [False, True]
    for word, skip in itertools.product(WORDS, skips):
        for text in texts_with(word):
            ids = tokenizer.encode(text)
            expected = library.decode(ids, skip_special_tokens=skip)
            assert tokenizer.decode(ids, skip_special_tokens=skip) == expected


def test_spaces_that_a_token_swallows_are_all_that_is_lost(tmp_path: Path) -> None:
    library = with_words(byte_level(), special=False, lstrip=True, rstrip=True)
    tokenizer = saved(library, tmp_path)
    for word in WORDS:
        assert tokenizer.decode(tokenizer.encode(f"how {word} many")) == f"how{word}many"


@pytest.mark.parametrize("letter", ["é", "Ġ", "Ã", "ÿ", "Ń"])
def test_a_byte_that_is_an_added_token_too_stays_a_byte(letter: str, tmp_path: Path) -> None:
    library = byte_level()
    plain = saved(library, tmp_path / "plain")
    library.add_tokens([letter])
    tokenizer = saved(library, tmp_path / "added")
    token = tokenizer.token_to_id(letter)
    assert token is not None
    assert tokenizer.vocab_size == plain.vocab_size  # no token of its own
    assert tokenizer.token_bytes(token) == plain.token_bytes(token)
    text = "驚 naïve Ā é à \x01"
    assert tokenizer.decode(plain.encode(text)) == text


def test_letters_that_the_alphabet_lacks_are_words_like_others(tmp_path: Path) -> None:
    """DeepSeek-Coder's alphabet lacks the bytes that no UTF-8 text has; their letters were added."""
    content = json.loads(byte_level().to_str())
    letters = [chr(byte) for byte in (*range(0xF5, 0x100), 0xC0, 0xC1)]
    for letter in letters:
        del content["model"]["vocab"][letter]
    library = tokenizers.Tokenizer.from_str(json.dumps(content))
    library.add_tokens(letters)
    tokenizer = saved(library, tmp_path)
    text = f"how {' '.join(letters)} ÷many"
    assert set(map(tokenizer.token_to_id, letters)) <= set(tokenizer.encode(text))
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_word_that_merges_make_stays_what_they_make(tmp_path: Path) -> None:
    library = byte_level()
    merged = [token for token in library.get_vocab() if len(token) > 1 and set(token) & set("ÃĠâï")]
    assert len(merged) > 5
    texts = {token: library.decode([library.token_to_id(token)]) for token in merged}
    library.add_tokens(merged)
    tokenizer = saved(library, tmp_path)
    for token in merged:
        token_id = tokenizer.token_to_id(token)
        assert token_id is not None
        assert tokenizer.token_bytes(token_id).decode("utf-8", "replace") == texts[token]


class AnyAllowed:
    """Stands for a Generation: answers any of the tokens that a format allows, added words where it can."""

    def __init__(self, seed: int, preferred: frozenset[int]) -> None:
        self.tokens: list[int] = []
        self._preferred = preferred
        self._rng = random.Random(seed)

    def next(self, _: object, allowed: NDArray[np.uint32], check: object) -> int | None:
        ids = np.flatnonzero(np.unpackbits(allowed.view(np.uint8), bitorder="little")).tolist()
        return self.next_forced(self._rng.choice([token for token in ids if token in self._preferred] or ids))

    def next_forced(self, token: int) -> int | None:
        self.tokens.append(token)
        return token


@pytest.mark.parametrize("words", [WORDS[:4], WORDS[4:8], WORDS[8:12], WORDS[12:16], WORDS[16:]])
def test_masks_allow_added_words_where_their_text_is_wanted(words: tuple[str, ...], tmp_path: Path) -> None:
    pytest.importorskip("llguidance")
    tokenizer = saved(with_words(byte_level(), special=False), tmp_path)
    added = frozenset(token for token in map(tokenizer.token_to_id, WORDS) if token is not None)
    constraints = Constraints(tokenizer, [], tokenizer.vocab_size)
    wanted = "|".join(word.replace("|", r"\|") for word in words)
    used: set[int] = set()
    for seed in range(40):
        constraint = constraints.start(GenerationConfig(response_format=Regex(f"x({wanted}){{1,3}}é")))
        answer = AnyAllowed(seed, added)
        while constraint.next(answer, ()) is not None:  # type: ignore[arg-type]
            pass
        text = tokenizer.decode(answer.tokens)
        rest = text.removeprefix("x").removesuffix("é")
        for word in sorted(words, key=len, reverse=True):
            rest = rest.replace(word, "")
        assert rest == ""
        used |= added & set(answer.tokens)
    assert {tokenizer.id_to_token(token) for token in used} == set(words)


def test_an_added_word_ends_an_answer_as_a_stop_text(tmp_path: Path) -> None:
    tokenizer = saved(with_words(byte_level(), special=True), tmp_path)
    for word in WORDS:
        stream = TextStream(tokenizer, [f"how{word}"])
        ids = tokenizer.encode(f"see how{word} many")
        assert "".join([*map(stream.push, ids), stream.finish()]) == "see "
        assert stream.stopped == f"how{word}"


# Tokens that tokenizer_config.json adds to formats that do not hold them.

ADDED = {"<|im_start|>": True, "<|usér|>": True, "café": False, "日本": False, "<tool>": False}


def write_added(folder: Path, first: int, gap: int = 0) -> dict[str, int]:
    ids = {text: first + i + (gap if i else 0) for i, text in enumerate(ADDED)}
    entries = {str(ids[text]): {"content": text, "special": special} for text, special in ADDED.items()}
    config = {"added_tokens_decoder": entries, "eos_token": "<|im_start|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return ids


def sentencepiece_model(folder: Path) -> Path:
    sentencepiece = pytest.importorskip("sentencepiece")
    path = folder / "tokenizer.model"
    with path.open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(CORPUS),
            model_writer=file,
            minloglevel=2,
            hard_vocab_limit=False,
            model_type="bpe",
            vocab_size=340,
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            character_coverage=0.98,
            user_defined_symbols=["<start_of_turn>"],
        )
    return path


def tiktoken_ranks(folder: Path) -> Path:
    import base64

    pytest.importorskip("tiktoken")
    path = folder / "tokenizer.model"
    path.write_bytes(b"".join(base64.b64encode(bytes([i])) + b" %d\n" % i for i in range(256)))
    return path


@pytest.mark.parametrize("gap", [0, 7])
@pytest.mark.parametrize("make", [sentencepiece_model, tiktoken_ranks])
def test_tokens_of_the_configuration_are_found_and_decoded(
    make: Callable[[Path], Path], gap: int, tmp_path: Path
) -> None:
    path = make(tmp_path)
    first = 256 if make is tiktoken_ranks else load_tokenizer(path).vocab_size
    ids = write_added(tmp_path, first, gap)
    tokenizer = load_tokenizer(path)
    assert tokenizer.vocab_size == max(ids.values()) + 1
    for text, token in ids.items():
        assert tokenizer.token_to_id(text) == token
        assert tokenizer.id_to_token(token) == text
        assert tokenizer.token_bytes(token) == text.encode()
        assert tokenizer.is_special(token) == ADDED[text]
        for whole in texts_with(text):
            found = tokenizer.encode(whole)
            assert found.count(token) == whole.count(text)
            assert tokenizer.decode(found, skip_special_tokens=False) == whole
            shown = whole.replace(text, "") if ADDED[text] else whole
            if make is sentencepiece_model and ADDED[text]:
                shown = shown.removeprefix(" ")  # no text begins with a space there
            assert tokenizer.decode(found) == shown
    assert ids["<|im_start|>"] in tokenizer.eos_ids
    if gap:
        assert (tokenizer.id_to_token(first + 1), tokenizer.token_bytes(first + 1)) == (None, b"")
        assert tokenizer.decode([first + 1]) == ""


def test_pieces_between_added_tokens_are_those_of_sentencepiece(tmp_path: Path) -> None:
    path = sentencepiece_model(tmp_path)
    import sentencepiece

    library = sentencepiece.SentencePieceProcessor(model_file=str(path))
    ids = write_added(tmp_path, library.vocab_size())
    tokenizer = load_tokenizer(path)
    assert tokenizer.encode("how many<tool>") == [*library.encode("how many"), ids["<tool>"]]
    behind = library.encode("how red")[len(library.encode("how")) :]
    assert tokenizer.encode("<tool> red") == [ids["<tool>"], *behind]
    for text in ("naïve café 🙂", "how many", ""):
        assert tokenizer.encode(text.replace("café", "cafe")) == library.encode(text.replace("café", "cafe"))


def test_a_piece_is_a_control_token_where_the_configuration_says_so(tmp_path: Path) -> None:
    path = sentencepiece_model(tmp_path)
    plain = load_tokenizer(path)
    turn = plain.token_to_id("<start_of_turn>")
    assert turn is not None
    assert plain.decode(plain.encode("how<start_of_turn>")) == "how<start_of_turn>"
    entries = {str(turn): {"content": "<start_of_turn>", "special": True}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": entries}))
    tokenizer = load_tokenizer(path)
    assert tokenizer.vocab_size == plain.vocab_size
    assert tokenizer.encode("how<start_of_turn>") == plain.encode("how<start_of_turn>")
    assert tokenizer.is_special(turn)
    assert tokenizer.decode(tokenizer.encode("how<start_of_turn>")) == "how"
