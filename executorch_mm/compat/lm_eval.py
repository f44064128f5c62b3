"""A runner as a model of EleutherAI's lm-evaluation-harness, which has to be installed beside this package.

import lm_eval
from executorch_mm import MultimodalRunner
from executorch_mm.compat.lm_eval import make_lm

results = lm_eval.simple_evaluate(make_lm(MultimodalRunner("model.pte", "tokenizer.json")), tasks=["piqa"])
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from executorch_mm import GenerationConfig, MultimodalRunner, make_token_input
from executorch_mm.errors import InputError, MissingDependencyError, shown


class Request(Protocol):
    """What the harness asks: its `Instance`."""

    @property
    def args(self) -> tuple[Any, ...]:
        """A context and a continuation, a text, or a context and options."""
        ...


class Template(Protocol):
    """What makes prompts of messages: a `ChatTemplate`."""

    @property
    def source(self) -> str:
        """Its text."""
        ...

    def render(self, messages: Any, *, add_generation_prompt: bool = True) -> str:
        """A prompt."""
        ...


def make_lm(runner: MultimodalRunner, *, max_gen_toks: int = 256, template: Template | None = None) -> Any:
    """A model for `lm_eval.simple_evaluate` and `lm_eval.evaluate`.

    Args:
        runner: Answers. Its conversation is overwritten.
        max_gen_toks: Tokens of an answer at most, where the task does not say.
        template: What `apply_chat_template=True` of the harness applies: a `ChatTemplate`.

    Returns:
        An `lm_eval.api.model.LM` with the methods of `LmEvalRequests`.

    Raises:
        MissingDependencyError: The harness is not installed.
        InputError: The tokenizer has neither a beginning-of-text token nor an end token.
    """
    try:
        base = importlib.import_module("lm_eval.api.model").LM
    except ImportError as error:
        raise MissingDependencyError(
            f"executorch_mm.compat.lm_eval needs the package 'lm_eval': pip install lm-eval ({error})"
        ) from error
    return type("ExecutorchMMLM", (LmEvalRequests, base), {})(
        runner, max_gen_toks=max_gen_toks, template=template
    )


class LmEvalRequests:
    """The three kinds of requests of lm-evaluation-harness.

    Tokens, contexts and windows are those of the harness's own models (`TemplateLM` in lm_eval/api/model.py).

    Args:
        runner: Answers. Its conversation is overwritten.
        max_gen_toks: Tokens of an answer at most, where the task does not say.
        template: Of chats.

    Raises:
        InputError: The tokenizer has neither a beginning-of-text token nor an end token.
    """

    def __init__(
        self, runner: MultimodalRunner, *, max_gen_toks: int = 256, template: Template | None = None
    ) -> None:
        super().__init__()
        self._template = template
        self._runner = runner
        self._max_gen_toks = max_gen_toks
        self._read: list[int] | None = None  # what the conversation holds
        tokenizer = runner.tokenizer
        ends = sorted(tokenizer.eos_ids)
        first = tokenizer.bos_id if tokenizer.bos_id is not None else next(iter(ends), None)
        if first is None:
            raise InputError("runner: its tokenizer has neither a <bos> nor an <eos> token")
        self._first = first
        runner.reset()
        runner.prefill("a")
        self._has_bos = runner.history[0] == tokenizer.bos_id
        runner.reset()

    def loglikelihood(
        self,
        requests: Sequence[Request],
        disable_tqdm: bool = False,  # noqa: ARG002
    ) -> list[tuple[float, bool]]:
        """How likely continuations are.

        Args:
            requests: A context and a continuation each. What is too long is cut from the context's front.
            disable_tqdm: Of the harness; no bar is shown.

        Returns:
            For each the logarithm of its probability, and whether it is the greedy one.

        Raises:
            CapacityError: A continuation alone does not fit into the context.
        """
        results = []
        for request in requests:
            context, continuation = self._pair(*request.args)
            results.append(self._score(context, continuation))
            self._remember("loglikelihood", request, results[-1])
        return results

    def loglikelihood_rolling(
        self,
        requests: Sequence[Request],
        disable_tqdm: bool = False,  # noqa: ARG002
    ) -> list[float]:
        """How likely whole texts are. Those longer than the context are read in windows, each token once.

        Args:
            requests: A text each.
            disable_tqdm: Of the harness; no bar is shown.

        Returns:
            For each the logarithm of its probability.
        """
        results = []
        for request in requests:
            ids = self._runner.tokenizer.encode(request.args[0])
            results.append(sum(self._score(*window)[0] for window in self._windows(ids)))
            self._remember("loglikelihood_rolling", request, results[-1])
        return results

    def generate_until(
        self,
        requests: Sequence[Request],
        disable_tqdm: bool = False,  # noqa: ARG002
    ) -> list[str]:
        """Answers.

        Args:
            requests: A context and options each: `until`, `max_gen_toks`, `do_sample`, `temperature` and
                other fields of GenerationConfig.
            disable_tqdm: Of the harness; no bar is shown.

        Returns:
            The texts, up to what ends them.

        Raises:
            InputError: An option is unknown or wrong.
        """
        results = []
        for request in requests:
            context, options = request.args
            config = self._config(options)
            room = self._runner.capacity - config.max_new_tokens
            if room < 1:
                raise InputError(f"max_gen_toks: {config.max_new_tokens} tokens leave no room for a context")
            self._read = None
            self._runner.reset()
            ids = self._encode(context)[-room:]
            results.append(self._runner.generate_text([make_token_input(ids)], config))
            self._remember("generate_until", request, results[-1])
        return results

    @property
    def tokenizer_name(self) -> str:
        """By which the harness tells its caches of requests apart.

        Raises:
            InputError: There is no template.
        """
        return f"executorch_mm {hashlib.sha256(self._chats().source.encode()).hexdigest()[:16]}"

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The source of the template, for the harness's report; None where none is applied.

        Raises:
            InputError: There is no template.
        """
        return self._chats().source if chat_template else None

    def apply_chat_template(
        self, chat_history: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True
    ) -> str:
        """A prompt of messages.

        Args:
            chat_history: The messages.
            add_generation_prompt: End with the beginning of an answer; else the last message is gone on with.

        Raises:
            InputError: There is no template, or it refuses the messages.
        """
        text = self._chats().render(list(chat_history), add_generation_prompt=add_generation_prompt)
        if add_generation_prompt:
            return text
        last = str(chat_history[-1]["content"]).strip()
        return text[: text.rindex(last) + len(last)]

    def _chats(self) -> Template:
        if self._template is None:
            raise InputError("apply_chat_template: expected make_lm(runner, template=ChatTemplate(...))")
        return self._template

    def _encode(self, text: str) -> list[int]:
        ids = self._runner.tokenizer.encode(text)
        return [self._first, *ids] if self._has_bos and ids[:1] != [self._first] else ids

    def _pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """The tokens of both together, cut where the context ends but for its last blanks."""
        if not context:
            ids = self._runner.tokenizer.encode(continuation)
            return ([self._first], ids) if ids[:1] != [self._first] else (ids[:1], ids[1:])
        kept = context.rstrip()
        whole = self._encode(context + continuation)
        num_context = len(self._encode(kept)) if kept else 0
        return (whole[:num_context], whole[num_context:]) if num_context else ([self._first], whole)

    def _score(self, context: Sequence[int], continuation: Sequence[int]) -> tuple[float, bool]:
        if not continuation:
            return 0.0, True
        room = max(self._runner.capacity - len(continuation), 1)
        read = list(context[-room:])
        if read != self._read:
            self._read = None
            self._runner.reset()
            self._runner.prefill([make_token_input(read)])
            self._read = read
        score = self._runner.score([make_token_input(list(continuation))])
        return score.total, score.is_greedy

    def _windows(self, ids: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
        """Contexts and what follows them; but for the first they are as long as there is room for."""
        size = self._runner.capacity - 1
        for begin in range(0, len(ids), size):
            end = min(begin + size, len(ids))
            context = [self._first] if begin == 0 else list(ids[max(end - size - 1, 0) : begin])
            yield context, list(ids[begin:end])

    def _config(self, options: Mapping[str, Any]) -> GenerationConfig:
        if not isinstance(options, Mapping):
            raise InputError(f"generation_kwargs: expected a mapping, got {shown(options)}")
        fields = dict(options)
        until = fields.pop("until", None) or ()
        length = fields.pop("max_gen_toks", None)
        fields["stop"] = [until] if isinstance(until, str) else [text for text in until if text]
        fields["max_new_tokens"] = self._max_gen_toks if length is None else length
        if not fields.pop("do_sample", False):
            fields["temperature"] = 0.0
        elif "temperature" not in fields:
            fields["temperature"] = 1.0
        return GenerationConfig(**fields)

    def _remember(self, kind: str, request: Request, result: object) -> None:
        """For `use_cache` of the harness."""
        hook = getattr(self, "cache_hook", None)
        if hook is not None:
            hook.add_partial(kind, request.args, result)
