"""Ray Serve itself: clients are answered by replicas, streamed, and replicas come and go."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import executorch_mm
from executorch_mm import MultimodalRunner
from executorch_mm.demo import make_scene, render
from serving import ask, image_part, said

ray = pytest.importorskip("ray")
serve = pytest.importorskip("ray.serve", reason="the extra executorch_mm[ray-serve] is not installed")
openai = pytest.importorskip("openai")
pytestmark = pytest.mark.ray

from executorch_mm.ray import EmmServer  # noqa: E402

ROOT = Path(__file__).parents[3]
MODEL = str(Path(executorch_mm.__file__).parent / "models" / "tiny_vlm")
SCENES = [make_scene(seed=seed) for seed in range(900_000_000, 900_000_006)]
QUESTION = "describe this picture"


class Told(EmmServer):
    """A replica that says which it is."""

    def who(self) -> tuple[int, int]:
        model: Any = self._state.models._loaded["demo"].task.result()
        with model.session() as session:
            return os.getpid(), session._requests.session.num_threads

    def running(self) -> int:
        return int(self._state.places.num_running)

    def steps(self) -> int:
        model: Any = self._state.models._loaded["demo"].task.result()
        return int(model.steps)


class Gated(MultimodalRunner):
    """After its third token it waits for a file, and takes its time then."""

    gate = Path()
    steps = 0

    def astream_chat(self, messages: Any, config: Any = None, **options: Any) -> Any:
        self.steps = 0

        def wait(_tokens: list[int], _logits: object) -> None:
            self.steps += 1
            while self.steps > 3 and not self.gate.exists():
                time.sleep(0.01)
            time.sleep(0.02)

        return super().astream_chat(messages, config.replace(logits_processors=[wait]), **options)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


PORT = free_port()
URL = f"http://127.0.0.1:{PORT}"


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # replicas cannot import it
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=200 * 2**20)
    serve.start(http_options={"port": PORT})
    yield
    serve.shutdown()
    ray.shutdown()


@pytest.fixture
def client() -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0) as client:
        yield client


def deployed(bound: object, kind: type[EmmServer] = Told, **options: Any) -> Any:
    options = {"ray_actor_options": {"num_cpus": 1}, "max_ongoing_requests": 32, **options}
    return serve.run(serve.deployment(kind).options(**options).bind(bound), route_prefix="/")


def until(happens: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end
        time.sleep(0.05)


def replicas(handle: Any) -> set[int]:
    """Processes that answer, of which Serve chooses two at random for each call."""
    return {handle.who.remote().result()[0] for _ in range(12)}


def test_replicas_answer_as_a_runner_does_and_a_killed_one_is_replaced(client: Any) -> None:
    handle = deployed({"demo": MODEL}, num_replicas=2, health_check_period_s=1)
    with MultimodalRunner.demo(num_threads=1) as runner:
        messages = [[{"role": "user", "content": [render(scene), QUESTION]}] for scene in SCENES]
        expected = [runner.chat(each, max_new_tokens=40).text for each in messages]

    def answer(scene: Any) -> str:
        made = client.chat.completions.create(
            model="demo", messages=said(QUESTION, image_part(scene)), max_tokens=40, stream=True
        )
        return "".join(chunk.choices[0].delta.content or "" for chunk in made)

    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(answer, SCENES)) == expected

    before = replicas(handle)
    assert len(before) == 2
    os.kill(min(before), signal.SIGKILL)
    until(lambda: len(replicas_or_none(handle) - before) == 1)
    assert [answer(scene) for scene in SCENES] == expected


def replicas_or_none(handle: Any) -> set[int]:
    try:
        return replicas(handle)
    except ray.exceptions.RayActorError:  # a call that was on its way to the one that is gone
        return set()


def test_pieces_come_before_the_answer_ends_and_a_client_that_leaves_ends_it(
    client: Any, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"

    def load() -> Any:
        Gated.gate = gate
        return Gated.demo(num_threads=1)

    handle = deployed({"demo": load})
    options = {"model": "demo", "messages": said("how many"), "max_tokens": 400}
    options["extra_body"] = {"ignore_eos": True}
    scene = said(QUESTION, image_part(SCENES[0]))

    chunks = client.chat.completions.create(**{**options, "messages": scene, "max_tokens": 12}, stream=True)
    early = [next(chunks), next(chunks)]  # the answer cannot have ended
    gate.touch()
    assert early[1].choices[0].delta.content
    assert [*chunks][-1].choices[0].finish_reason == "length"

    gate.unlink()
    leaving = client.chat.completions.create(**{**options, "messages": scene}, stream=True)
    next(leaving)
    assert handle.running.remote().result() == 1
    leaving.close()
    gate.touch()
    until(lambda: handle.running.remote().result() == 0)
    assert handle.steps.remote().result() < 400


def test_serve_starts_replicas_where_many_ask(client: Any, tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    def load() -> Any:
        Gated.gate = gate
        return Gated.demo(num_threads=1)

    quick = {"upscale_delay_s": 0, "metrics_interval_s": 0.2, "look_back_period_s": 1}
    deployed(
        {"demo": load},
        autoscaling_config={"min_replicas": 1, "max_replicas": 2, "target_ongoing_requests": 1, **quick},
    )

    def answer(_number: int) -> str:
        made = client.chat.completions.create(
            model="demo", messages=said(QUESTION, image_part(SCENES[0])), max_tokens=8, stream=True
        )
        return "".join(chunk.choices[0].delta.content or "" for chunk in made)

    with ThreadPoolExecutor(6) as threads:
        answers = [threads.submit(answer, number) for number in range(6)]
        try:
            until(lambda: running_replicas() == 2)
        finally:
            gate.touch()
        assert len({each.result() for each in answers}) == 1


def running_replicas() -> int:
    deployment = serve.status().applications["default"].deployments["Told"]
    return int(deployment.replica_states.get("RUNNING", 0))


def test_threads_follow_the_cpus_of_a_replica() -> None:
    handle = deployed({"demo": MODEL}, ray_actor_options={"num_cpus": 2})
    assert handle.who.remote().result()[1] == 2


def test_a_model_that_cannot_be_loaded_fails_the_deployment_and_serve_says_why() -> None:
    with pytest.raises(RuntimeError):
        deployed({"demo": "nowhere.pte"}, max_constructor_retry_count=1)
    message = serve.status().applications["default"].deployments["Told"].message
    assert "ModelLoadError" in message
    assert "nowhere.pte" in message


def test_the_route_has_a_prefix_and_errors_their_shape(client: Any) -> None:
    serve.run(serve.deployment(EmmServer).bind({"demo": MODEL}), route_prefix="/llm")
    assert ask(URL, "/llm/health").json == {"status": "ok"}
    with (
        openai.OpenAI(base_url=f"{URL}/llm/v1", api_key="none", max_retries=0) as prefixed,
        pytest.raises(openai.NotFoundError, match="there is no model 'other'"),
    ):
        prefixed.chat.completions.create(model="other", messages=said("hi"))


def test_the_example_runs() -> None:
    program = ROOT / "examples" / "clusters" / "ray_serve.py"
    environment = {**os.environ, "PORT": str(free_port())}
    serve.shutdown()
    made = subprocess.run(
        [sys.executable, str(program)],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        check=True,
    )
    scene = make_scene(seed=7)
    assert all(f"{shape.colour} {shape.shape}" in made.stdout for shape in scene.shapes)
