"""A tokenizer for models whose tokens mean nothing, and greedy answers through it."""

from __future__ import annotations

from collections.abc import Sequence

from executorch_mm import GenerationConfig, MultimodalRunner, make_token_input


class NumberTokenizer:
    """Token 12 is the text " 12"."""

    vocab_size = 64
    bos_id = None
    eos_ids: frozenset[int] = frozenset()

    def encode(self, text: str, *, add_bos: bool = False, add_eos: bool = False) -> list[int]:
        return [int(word) for word in text.split()]

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        return "".join(f" {token}" for token in ids)

    def decoder(self, *, skip_special_tokens: bool = True, after: Sequence[int] = ()) -> NumberTokenizer:
        return self

    def push(self, token_id: int) -> str:
        return f" {token_id}"

    def flush(self) -> str:
        return ""

    def token_bytes(self, token_id: int) -> bytes:
        return self.push(token_id).encode()

    def is_special(self, token_id: int) -> bool:
        return False

    def id_to_token(self, token_id: int) -> str | None:
        return str(token_id)

    def token_to_id(self, token: str) -> int | None:
        return int(token)


def answer(runner: MultimodalRunner, prompt: list[int], count: int) -> list[int]:
    """The tokens that `runner` answers to the tokens of `prompt`."""
    text = runner.generate_text(make_token_input(prompt), GenerationConfig(max_new_tokens=count))
    return [int(word) for word in text.split()]
