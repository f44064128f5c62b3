"""Chats with images that are cut into tiles; tools/fixtures/chat/make_tiles_golden.py expands them too."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import AddedToken, Tokenizer
from tokenizers.models import BPE

TEMPLATES = Path(__file__).parents[2] / "data" / "chat" / "templates"
ROWS = 4  # that the encoder gives for a tile
MEDIA_TOKEN = {"SmolVLM": "<image>", "Idefics3": "<image>", "InternVL": "<IMG_CONTEXT>"}
_SPECIAL = ["<|im_start|>", "<end_of_utterance>", "<video>", "<fake_token_around_image>", "<global-img>"]
_SPECIAL += ["<image>", "<IMG_CONTEXT>", "<img>", "</img>"]
_SPECIAL += [f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)]
_MERGES = "\n+\n U+s e+r Us+er A+s s+i As+si s+t a+n st+an stan+t Assi+stant"


def make_tokenizer() -> Tokenizer:
    """Fewer than 64 tokens, so that the models of tests/models take them; two line ends are one token."""
    merges = [(left, right) for left, right in (pair.split("+") for pair in _MERGES.split(" "))]
    words = ["<unk>", *"\n :?AUadehinorstw", *(left + right for left, right in merges)]
    tokenizer = Tokenizer(BPE({word: i for i, word in enumerate(words)}, merges, unk_token="<unk>"))
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in _SPECIAL])
    assert tokenizer.get_vocab_size() < 64
    return tokenizer


def template(family: str) -> str:
    """SmolVLM's own, which is Idefics 3's; InternVL's with the parts that matter here."""
    if family != "InternVL":
        return (TEMPLATES / "smolvlm.jinja").read_text(encoding="utf-8")
    return (
        "{% for message in messages %}<|im_start|>{% for part in message.content %}"
        "{% if part.type == 'image' %}<IMG_CONTEXT>\n{% else %}{{ part.text }}{% endif %}"
        "{% endfor %}{% endfor %}"
    )


class Case(NamedTuple):
    """One message with images of (height, width), for an image processor with tiles of 28 x 28."""

    family: str
    images: list[tuple[int, int]]
    config: dict[str, Any]

    def messages(self, images: list[object]) -> list[dict[str, Any]]:
        content: list[dict[str, Any]] = [{"type": "text", "text": "what? "}]
        for image in images:
            content += [{"type": "image", "image": image}, {"type": "text", "text": "and this?"}]
        return [{"role": "user", "content": content}]


def _idefics3(longest: int, **more: object) -> dict[str, Any]:
    return {"size": {"longest_edge": longest}, "max_image_size": {"longest_edge": 28}, **more}


_GRID = {"size": {"height": 28, "width": 28}, "crop_to_patches": True, "min_patches": 1, "max_patches": 12}
CASES = {
    "not cut": Case("SmolVLM", [(20, 28)], _idefics3(28)),
    "not to be cut": Case("SmolVLM", [(100, 70)], _idefics3(112, do_image_splitting=False)),
    "1 x 2": Case("SmolVLM", [(25, 60)], _idefics3(56)),
    "2 x 2": Case("SmolVLM", [(50, 60)], _idefics3(56)),
    "1 x 4": Case("SmolVLM", [(20, 100)], _idefics3(112)),
    "4 x 3": Case("SmolVLM", [(100, 70)], _idefics3(112)),
    "4 x 1": Case("Idefics3", [(100, 20)], _idefics3(112)),
    "3 x 4": Case("Idefics3", [(70, 100)], _idefics3(112)),
    "2 x 1 and 2 x 2": Case("Idefics3", [(90, 40), (60, 60)], _idefics3(56)),
    "InternVL, not cut": Case("InternVL", [(28, 30)], _GRID),
    "InternVL, 1 x 2 and 3 x 2": Case("InternVL", [(30, 60), (300, 200)], _GRID),
}
