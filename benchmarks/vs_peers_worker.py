"""One side of bench_vs_peers.py in a process of its own: python vs_peers_worker.py JOB.json RESULT.json

All sides are timed in the same way: by the clock when a token reaches Python. What they count is their own.
"""

from __future__ import annotations

import json
import math
import resource
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

CONTEXT = 1024  # of our export, so of all
Answer: TypeAlias = "tuple[int, int]"  # tokens that were read and tokens that were made
Run: TypeAlias = Callable[[list[int], int, Callable[..., Any]], Answer]


def ours(model: str, threads: int) -> tuple[Run, str]:
    from executorch_mm import GenerationConfig, MultimodalRunner, make_token_input

    runner = MultimodalRunner(f"{model}/model.pte", f"{model}/tokenizer.json", num_threads=threads)

    def run(ids: list[int], count: int, seen: Callable[..., Any]) -> Answer:
        config = GenerationConfig(max_new_tokens=count, temperature=0.0, ignore_eos=True)
        runner.reset()
        runner.generate(make_token_input(ids), config, seen)
        stats = runner.stats
        assert stats.num_threads == threads
        return stats.num_prompt_tokens - stats.num_cached_tokens, stats.num_generated_tokens

    return run, f"executorch_mm {version('executorch_mm')}"


def llama_cpp(model: str, threads: int) -> tuple[Run, str]:
    import xllamacpp

    options = xllamacpp.CommonParams()
    options.model.path = model
    options.port = 0
    options.n_parallel = 1
    options.n_ctx = CONTEXT
    options.cpuparams.n_threads = options.cpuparams_batch.n_threads = threads
    server = xllamacpp.Server(options)

    def run(ids: list[int], count: int, seen: Callable[..., Any]) -> Answer:
        last: dict[str, Any] = {}

        def piece(data: Any) -> None:
            for each in data if isinstance(data, list) else [data]:
                if each.get("choices") and each["choices"][0]["text"]:
                    seen()
                last.update(each)

        request = {"prompt": ids, "n_predict": count, "temperature": 0.0, "ignore_eos": True}
        server.handle_completions({**request, "stream": True, "cache_prompt": False}, piece)
        assert "timings" in last, last
        return last["timings"]["prompt_n"], last["timings"]["predicted_n"]

    return run, f"xllamacpp {version('xllamacpp')} ({xllamacpp.get_system_info()})"


def openvino(model: str, threads: int) -> tuple[Run, str]:
    import numpy as np
    import openvino
    import openvino_genai

    pipeline = openvino_genai.LLMPipeline(model, "CPU", INFERENCE_NUM_THREADS=threads)

    class Seen(openvino_genai.StreamerBase):
        def __init__(self, seen: Callable[..., Any]) -> None:
            super().__init__()
            self.seen = seen

        def write(self, token: int | list[int]) -> Any:
            for _ in token if isinstance(token, list) else [token]:
                self.seen()
            return openvino_genai.StreamingStatus.RUNNING

        def end(self) -> None:
            pass

    def run(ids: list[int], count: int, seen: Callable[..., Any]) -> Answer:
        config = openvino_genai.GenerationConfig(max_new_tokens=count, ignore_eos=True, do_sample=False)
        answer = pipeline.generate(openvino.Tensor(np.array([ids])), config, Seen(seen))
        metrics = answer.perf_metrics
        return metrics.get_num_input_tokens(), metrics.get_num_generated_tokens()

    return run, f"openvino-genai {version('openvino-genai')}"


def onnxruntime_genai(model: str, threads: int) -> tuple[Run, str]:
    import numpy as np
    import onnxruntime_genai

    config = onnxruntime_genai.Config(model)
    config.overlay(json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}}}))
    loaded = onnxruntime_genai.Model(config)

    def run(ids: list[int], count: int, seen: Callable[..., Any]) -> Answer:
        params = onnxruntime_genai.GeneratorParams(loaded)
        whole = len(ids) + count
        params.set_search_options(max_length=CONTEXT, min_length=whole, do_sample=False)
        generator = onnxruntime_genai.Generator(loaded, params)
        generator.append_tokens(np.array(ids, dtype=np.int32))
        read = generator.token_count()
        for _ in range(count):
            generator.generate_next_token()
            generator.get_next_tokens()
            seen()
        return read, generator.token_count() - read

    return run, f"onnxruntime-genai {version('onnxruntime-genai')}, onnxruntime {version('onnxruntime')}"


def held_by_gguf(model: str) -> Iterator[tuple[str, int]]:
    import gguf

    for tensor in gguf.GGUFReader(model).tensors:
        yield tensor.tensor_type.name, int(tensor.n_elements)


def held_by_openvino(model: str) -> Iterator[tuple[str, int]]:
    import openvino

    for node in openvino.Core().read_model(f"{model}/openvino_model.xml").get_ops():
        if node.get_type_name() == "Constant":
            kind, shape = node.get_element_type().to_string(), [*node.get_output_shape(0)]
            yield (
                kind + (f" in groups of {shape[-1]}" if "4" in kind and len(shape) == 3 else ""),
                math.prod(shape),
            )


def held_by_onnx(model: str) -> Iterator[tuple[str, int]]:
    import onnx

    graph = onnx.load(f"{model}/model.onnx", load_external_data=False).graph
    sizes = {each.name: (math.prod(each.dims), each.data_type) for each in graph.initializer}
    for node in graph.node:
        numbers = {each.name: each.i for each in node.attribute}
        if node.op_type == "MatMulNBits":  # an embedding that shares the head's weights counts with the head
            packed, scales = node.input[1:3]
            said = f"{numbers['bits']} bits in blocks of {numbers['block_size']}"
            yield (
                f"{said}, accuracy level {numbers.get('accuracy_level', 0)}",
                sizes.pop(packed)[0] * 8 // numbers["bits"],
            )
            sizes.pop(scales)
    for count, kind in sizes.values():
        yield onnx.TensorProto.DataType.Name(kind).lower(), count


HELD = {"llama.cpp": held_by_gguf, "openvino": held_by_openvino, "onnxruntime-genai": held_by_onnx}
SIDES = {"ours": ours, "llama.cpp": llama_cpp, "openvino": openvino, "onnxruntime-genai": onnxruntime_genai}


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    if "held" in job:
        held: dict[str, int] = {}
        for kind, count in HELD[job["held"]](job["model"]):
            held[kind] = held.get(kind, 0) + count
        Path(sys.argv[2]).write_text(json.dumps(held))
        return
    result: dict[str, Any] = {"prefill_s": {}, "token_s": {}, "counts": []}
    before = time.perf_counter()
    run, result["version"] = SIDES[job["side"]](job["model"], job["threads"])
    result["load_s"] = time.perf_counter() - before

    def timed(ids: list[int], count: int) -> tuple[float, float]:
        """Seconds to the first token, and of each token behind it."""
        stamps: list[float] = []
        start = time.perf_counter()
        counts = run(ids, count, lambda *_: stamps.append(time.perf_counter()))
        assert len(stamps) == count, f"{len(stamps)} of {count} tokens were seen when they came"
        result["counts"].append([len(ids), count, *counts])
        return stamps[0] - start, (stamps[-1] - stamps[0]) / max(count - 1, 1)

    timed(job["first"], 1)
    result["first_token_s"] = time.time() - job["started"]
    for length, prompts in job["prefill"].items():
        result["prefill_s"][length] = min(timed(prompt, 1)[0] for prompt in prompts)
    for length, prompts in job["decode"].items():
        result["token_s"][length] = min(timed(prompt, job["tokens"] + 1)[1] for prompt in prompts)
    result["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    Path(sys.argv[2]).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
