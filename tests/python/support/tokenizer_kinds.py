"""A small tokenizer of every kind that the package reads, made by the library behind it."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from executorch_mm.tokenizer import Tokenizer, load_tokenizer

tokenizers = pytest.importorskip("tokenizers")

CORPUS = [
    "a large red circle left of a small blue square",
    "what colour is the triangle? it is green.",
    "two circles, a star and a cross: which picture has more?",
    "naïve café — “quotes” and 漢字かな交じり文 with 🙂 and 👩‍👩‍👧 in it",
    "numbers 1234567890 and code: if (a != b) { return c[0]; }\n\tindented",
] * 8
SPECIAL = ["<|pad|>", "<|bos|>", "<|user|>", "<|assistant|>", "<|end|>"]

Built = tuple[Tokenizer, Callable[[list[int]], str] | None]


def save_hf(tokenizer: object, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def byte_level() -> object:
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def llama_like(strip: bool) -> object:
    """BPE over ▁-marked text with byte fallback, as converted from SentencePiece."""
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    d = tokenizers.decoders
    n = tokenizers.normalizers
    steps = [n.Replace(" ", "▁")] if not strip else [n.Prepend("▁"), n.Replace(" ", "▁")]
    tokenizer.normalizer = n.Sequence(steps)
    chain = [d.Replace("▁", " "), d.ByteFallback(), d.Fuse()]
    tokenizer.decoder = d.Sequence([*chain, d.Strip(" ", 1, 0)] if strip else chain)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<unk>", "<s>", "</s>", *bytes_],
        show_progress=False,
        limit_alphabet=40,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    content = json.loads(tokenizer.to_str())
    for token in content["added_tokens"]:
        token["special"] = not token["content"].startswith("<0x")
    content["added_tokens"] = content["added_tokens"][:3]
    return tokenizers.Tokenizer.from_str(json.dumps(content))


def unigram_metaspace() -> object:
    tokenizer = tokenizers.Tokenizer(tokenizers.models.Unigram())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    tokenizer.decoder = tokenizers.decoders.Metaspace()
    trainer = tokenizers.trainers.UnigramTrainer(
        vocab_size=200, special_tokens=["<unk>", "<s>", "</s>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def word_piece() -> object:
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.decoder = tokenizers.decoders.WordPiece()
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=300, special_tokens=["[UNK]", "[CLS]", "[SEP]"], show_progress=False
    )
    tokenizer.train_from_iterator([*CORPUS, "do n't , you 're ' ok ' ."], trainer)
    return tokenizer


def words_without_decoder() -> object:
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    trainer = tokenizers.trainers.WordLevelTrainer(special_tokens=["<unk>"], show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def end_of_word_suffix() -> object:
    """A decoder that needs look-ahead: no space after the last word."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = tokenizers.decoders.BPEDecoder(suffix="</w>")
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<unk>"], end_of_word_suffix="</w>", show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


HF_KINDS: dict[str, Callable[[], object]] = {
    "byte-level": byte_level,
    "llama": lambda: llama_like(strip=True),
    "gemma": lambda: llama_like(strip=False),
    "metaspace": unigram_metaspace,
    "wordpiece": word_piece,
    "no decoder": words_without_decoder,
    "suffix": end_of_word_suffix,
}


def train_sentencepiece(folder: Path, **options: object) -> Path:
    sentencepiece = pytest.importorskip("sentencepiece")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "spm.model"
    with path.open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(CORPUS),
            model_writer=file,
            minloglevel=2,
            hard_vocab_limit=False,
            **options,
        )
    return path


SENTENCEPIECE_KINDS: dict[str, dict[str, object]] = {
    "sp bpe": {
        "model_type": "bpe",
        "vocab_size": 400,
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "character_coverage": 0.98,
    },
    "sp unigram": {"model_type": "unigram", "vocab_size": 150, "character_coverage": 0.98},
    "sp no prefix": {
        "model_type": "bpe",
        "vocab_size": 400,
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "add_dummy_prefix": False,
        "remove_extra_whitespaces": False,
    },
}


def write_ranks(folder: Path) -> Path:
    """All bytes and some longer tokens, each mergeable from shorter ones."""
    words = [" the", " red", "circle", "漢", "🙂"]
    ranks = {bytes([i]): i for i in range(256)}
    for word in words:
        data = word.encode()
        for size in range(2, len(data) + 1):
            ranks.setdefault(data[:size], len(ranks))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tokenizer.model"
    path.write_bytes(b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks.items()))
    return path


def write_tekken(folder: Path, special: list[dict[str, object]] | None = None) -> Path:
    ranks = [
        {"rank": i, "token_bytes": base64.b64encode(bytes([i])).decode(), "token_str": None}
        for i in range(256)
    ]
    ranks += [{"rank": 256, "token_bytes": base64.b64encode(b"ab").decode(), "token_str": "ab"}]
    ranks += [{"rank": 257, "token_bytes": base64.b64encode(b"abc").decode(), "token_str": "abc"}]
    config = {
        "pattern": r"\S+|\s+",
        "default_vocab_size": 277,
        "default_num_special_tokens": 20,
        "version": "v3",
    }
    content: dict[str, object] = {"config": config, "vocab": ranks}
    if special is not None:
        content["special_tokens"] = special
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tekken.json"
    path.write_text(json.dumps(content))
    return path


def write_llama2c(
    path: Path, tokens: list[tuple[bytes, float]], header: tuple[int, int, int] | None = (-1, 1, 2)
) -> Path:
    longest = max(len(token) for token, _ in tokens)
    data = struct.pack("<i", longest)
    if header is not None:
        number = len(tokens) if header[0] < 0 else header[0]
        data = struct.pack("<4i", number, *header[1:], longest)
    data += b"".join(struct.pack("<fi", score, len(token)) + token for token, score in tokens)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def small_llama2c(path: Path, header: tuple[int, int, int] | None = (-1, 1, 2)) -> Path:
    tokens = [(b"<unk>", 0.0), (b"\n<s>\n", 0.0), (b"\n</s>\n", 0.0)]
    tokens += [(b"<0x%02X>" % i, 0.0) for i in range(256)]
    merges = [" a", "ab", " ab", "bc", "é", "🙂", " ", "a", "b", "c"]
    tokens += [(merge.encode(), -float(i)) for i, merge in enumerate(merges)]
    return write_llama2c(path, tokens, header)


ALL_KINDS = [*HF_KINDS, *SENTENCEPIECE_KINDS, "tiktoken", "tekken", "llama2c"]


def build(name: str, folder: Path) -> Built:
    """Our tokenizer, and the library's own decoding of ids without special tokens."""
    folder = folder / name.replace(" ", "_")
    if name in HF_KINDS:
        library = HF_KINDS[name]()
        return load_tokenizer(save_hf(library, folder)), lambda ids: library.decode(
            ids, skip_special_tokens=True
        )
    if name in SENTENCEPIECE_KINDS:
        path = train_sentencepiece(folder, **SENTENCEPIECE_KINDS[name])
        import sentencepiece

        processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
        return load_tokenizer(path), processor.decode
    if name == "llama2c":
        return load_tokenizer(small_llama2c(folder / "tokenizer.bin")), None
    pytest.importorskip("tiktoken")
    writer = {"tiktoken": write_ranks, "tekken": write_tekken}[name]
    return load_tokenizer(writer(folder)), None
