"""Ray Serve answers OpenAI's clients with the model in the wheel, one replica or two as many ask.

pip install "executorch_mm[ray-serve]"
python examples/clusters/ray_serve.py            # one question, its answer, and the end
python examples/clusters/ray_serve.py --stay     # until Ctrl-C, at http://127.0.0.1:8000/v1
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import signal
import urllib.request
from pathlib import Path

import executorch_mm
from executorch_mm.demo import make_scene, render
from executorch_mm.ray import EmmServer

MODEL = Path(executorch_mm.__file__).parent / "models" / "tiny_vlm"
PORT = int(os.environ.get("PORT", "8000"))


def ask(question: str) -> str:
    """A chat as OpenAI's clients send it, with the standard library alone; the answer is streamed."""
    image = io.BytesIO()
    render(make_scene(seed=7)).save(image, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(image.getvalue()).decode()}"
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": question}]
    messages = [{"role": "user", "content": content}]
    body = json.dumps({"model": "demo", "messages": messages, "stream": True}).encode()
    url = f"http://127.0.0.1:{PORT}/v1/chat/completions"
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    text = ""
    with urllib.request.urlopen(request) as lines:
        for line in lines:
            if line.startswith(b"data: {"):
                choices = json.loads(line[6:])["choices"]
                text += "".join(choice["delta"].get("content") or "" for choice in choices)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stay", action="store_true", help="until Ctrl-C")
    stay = parser.parse_args().stay

    import ray
    from ray import serve

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"port": PORT})
    deployment = serve.deployment(EmmServer).options(
        ray_actor_options={"num_cpus": 1},  # threads of each replica's model
        autoscaling_config={"min_replicas": 1, "max_replicas": 2, "target_ongoing_requests": 4},
        max_ongoing_requests=32,  # as ServerOptions.max_running: they share the model step by step
    )
    serve.run(deployment.bind({"demo": str(MODEL)}))
    try:
        print(ask("describe this picture"))
        if stay:
            signal.pause()
    except KeyboardInterrupt:
        pass
    finally:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main()
