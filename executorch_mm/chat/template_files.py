"""Which chat templates and special tokens the folders of a model have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from executorch_mm._files.json_files import read_object_if_there
from executorch_mm.errors import InputError

_DEFAULT = "default"
_FOR_TOOLS = "tool_use"


@dataclass(frozen=True)
class TemplateFiles:
    """What the folders of a model say about its chats.

    Attributes:
        templates: Jinja sources by name; a model's only one is called "default".
        special_tokens: Texts by name.
        adds_bos: Whether the tokenizer's configuration puts the beginning-of-text token before texts.
        response_template: How answers are to be read; None where the files do not say.
    """

    templates: Mapping[str, str] = field(default_factory=dict)
    special_tokens: Mapping[str, str] = field(default_factory=dict)
    adds_bos: bool = False
    response_template: object = None

    @classmethod
    def read(cls, folders: Sequence[Path]) -> TemplateFiles:
        """Reads the first folder that has a template; special tokens are of the first folder that names any.

        Args:
            folders: Looked at in order, for chat_template.jinja, chat_template.json, tokenizer_config.json
                and the folder additional_chat_templates.

        Raises:
            InputError: A file that should hold a template is damaged.
        """
        templates = next(filter(None, map(_templates_in, folders)), {})
        configs = [read_object_if_there(folder / "tokenizer_config.json", InputError) for folder in folders]
        config = next(filter(None, configs), {})
        configs += [read_object_if_there(folder / "processor_config.json", InputError) for folder in folders]
        responses = (each.get("response_template") for each in configs)
        response = next((each for each in responses if each is not None), None)
        return cls(templates, _special_tokens(config), config.get("add_bos_token") is True, response)

    def choose(self, template: str | None, *, has_tools: bool) -> str:
        """The source to use.

        Args:
            template: A name, a source, or None for the model's own.
            has_tools: Whether there are tools, for which some models have a template of its own.

        Raises:
            InputError: There is none, or several and none for this case.
        """
        if template is not None:
            return self.templates.get(template, template)
        if has_tools and _FOR_TOOLS in self.templates:
            return self.templates[_FOR_TOOLS]
        if _DEFAULT in self.templates:
            return self.templates[_DEFAULT]
        if self.templates:
            names = ", ".join(sorted(self.templates))
            raise InputError(
                "chat template: expected ChatOptions(template=...) with the name of one of this model's "
                f"templates: {names}"
            )
        raise InputError(
            "chat template: expected chat_template.jinja, chat_template.json or one in tokenizer_config.json "
            "beside the model or its tokenizer; or give chat_options=ChatOptions(template=...)"
        )


def _templates_in(folder: Path) -> dict[str, str]:
    """By name; a file of its own goes before what JSON files say."""
    try:
        named = {
            file.stem: file.read_text(encoding="utf-8")
            for file in sorted((folder / "additional_chat_templates").glob("*.jinja"))
        }
        if (folder / "chat_template.jinja").is_file():
            return {**named, _DEFAULT: (folder / "chat_template.jinja").read_text(encoding="utf-8")}
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"chat template in {folder}: {error}") from error
    for name in ("chat_template.json", "tokenizer_config.json"):
        found = read_object_if_there(folder / name, InputError).get("chat_template")
        if isinstance(found, str):
            return {**named, _DEFAULT: found}
        if isinstance(found, list):
            return {**named, **_named_templates(found, folder / name)}
        if isinstance(found, dict) and all(isinstance(source, str) for source in found.values()):
            return {**named, **found}
    return named


def _named_templates(entries: list[object], file: Path) -> dict[str, str]:
    named = {}
    for entry in entries:
        name, source = (entry.get("name"), entry.get("template")) if isinstance(entry, dict) else (None, None)
        if not isinstance(name, str) or not isinstance(source, str):
            raise InputError(f"{file}: chat_template: expected a list of {{name, template}}")
        named[name] = source
    return named


def _special_tokens(config: Mapping[str, object]) -> dict[str, str]:
    tokens = {}
    for name, value in config.items():
        text = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(text, str):
            tokens[name] = text
    return tokens
