"""/v1/embeddings: vectors of texts, and of images where the model has them."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from executorch_mm import ClipModel, EmbeddingModel
from executorch_mm._openai import schemas
from executorch_mm._openai.chat_request import required_model
from executorch_mm._openai.failures import ApiError, invalid
from executorch_mm._openai.fields import Fields
from executorch_mm.chat.local_media import MediaAccess
from executorch_mm.chat.messages import read_messages
from executorch_mm.server.endpoints import Endpoint
from executorch_mm.server.options import ServerOptions
from executorch_mm.server.state import Served, ServerState

_MOST_INPUTS = 2048  # as in OpenAI's API
_TOGETHER = 16  # inputs that are computed before the server looks whether the client is still there


@dataclass(frozen=True)
class _Asked:
    """What a request asks for.

    Attributes:
        model: Its name.
        inputs: Texts, and parts of messages with an image.
        form: Of the vectors: "float", "base64".
        dimensions: That they are expected to have; None for those of the model.
    """

    model: str
    inputs: list[Any]
    form: str
    dimensions: int | None


def _read(fields: Fields, _options: ServerOptions) -> _Asked:
    model = required_model(fields)
    inputs = _inputs(fields.take("input", schemas.EMBEDDED))
    form = fields.choice("encoding_format", "float", "base64") or "float"
    dimensions = fields.integer("dimensions", 1)
    fields.ignore("user")
    fields.finish()
    return _Asked(model, inputs, form, dimensions)


async def _answer(asked: _Asked, request: Request, state: ServerState, served: Served) -> Response:
    kinds = (EmbeddingModel, ClipModel)
    model = await state.models.of_kind(asked.model, served, kinds, "gives no embeddings")
    vectors = await state.work.run(
        request.receive, _vectors(asked.inputs, cast("EmbeddingModel | ClipModel", model), state, served)
    )
    if asked.dimensions not in (None, vectors.shape[1]):
        expected = f"expected {vectors.shape[1]}, which the model gives, got {asked.dimensions}"
        raise invalid("dimensions", expected)
    data = [
        {"object": "embedding", "index": index, "embedding": _shown(vector, asked.form)}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": served.num_prompt, "total_tokens": served.num_prompt}
    return JSONResponse({"object": "list", "model": served.model, "data": data, "usage": usage})


async def _vectors(
    inputs: list[Any], model: EmbeddingModel | ClipModel, state: ServerState, served: Served
) -> np.ndarray[Any, np.dtype[np.float32]]:
    num_images = sum(not isinstance(each, str) for each in inputs)
    if num_images > state.options.max_media:
        message = f"input: expected at most {state.options.max_media} images, got {num_images}"
        raise ApiError(413, message, "input", "too_many_media")
    access = MediaAccess(state.fetch, state.options.media_folder or "")

    def compute(first: int) -> list[Any]:
        several = inputs[first : first + _TOGETHER]
        if isinstance(model, ClipModel):
            return [of_clip(model, each, index) for index, each in enumerate(several, first)]
        for index, each in enumerate(several, first):
            if not isinstance(each, str):
                raise invalid(f"input[{index}]", f"expected a text: {served.model} sees no images")
            served.num_prompt += model.count_tokens(each)
        return list(model.encode(several))

    def of_clip(clip: ClipModel, each: Any, index: int) -> Any:
        if isinstance(each, str):
            served.num_prompt += len(clip.tokenizer.encode(each))
            return clip.encode_text([each])[0]
        return clip.encode_image([_image(each, f"input[{index}]", access)])[0]

    async with state.places.place(served.seconds_left(state.options.timeout)):
        served.begins()
        rows: list[Any] = []
        for first in range(0, len(inputs), _TOGETHER):
            if served.seconds_left(state.options.timeout) == 0.001:
                raise ApiError(503, "the time is over: ask for fewer at a time", "input", "timeout")
            rows += await asyncio.to_thread(compute, first)
    return np.stack(rows)


def _inputs(given: Any) -> list[Any]:
    """Texts, and parts of messages with an image."""
    if given is None:
        raise invalid("input", "expected texts, got none", "missing_required_parameter")
    inputs = given if isinstance(given, list) else [given]
    if not inputs or len(inputs) > _MOST_INPUTS:
        raise invalid("input", f"expected 1 to {_MOST_INPUTS} texts, got {len(inputs)}")
    for index, each in enumerate(inputs):
        if isinstance(each, dict) and each.get("type") == "image_url":
            continue
        if not isinstance(each, str) or not each:
            expected = "a text that is not empty (no token ids), or an image_url as in messages"
            raise invalid(f"input[{index}]" if isinstance(given, list) else "input", f"expected {expected}")
    return inputs


def _image(part: dict[str, Any], where: str, access: MediaAccess) -> Any:
    try:
        (image,) = read_messages([{"role": "user", "content": [part]}], access).media
    except ValueError as error:  # InputError
        raise type(error)(str(error).replace("messages[0].content[0]", where)) from error
    return image.value


def _shown(vector: np.ndarray[Any, np.dtype[np.float32]], form: str) -> object:
    if form == "float":
        return vector.tolist()
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


EMBEDDINGS = Endpoint(
    "/v1/embeddings", "Vectors of texts and images", _read, _answer, {"model": "clip", "input": ["hi"]}
)
