"""For `nox -s frozen`, which freezes it: model, libraries and lazy modules have to be there."""

from executorch_mm import MultimodalRunner, SpeechRunner, build_info, inspect_model
from executorch_mm.demo import make_scene, render

with MultimodalRunner.demo() as runner:
    question = {"type": "text", "text": "What do you see?"}
    image = {"type": "image", "image": render(make_scene(seed=7))}
    answer = runner.chat([{"role": "user", "content": [image, question]}], temperature=0.0).text
if answer != "a red star, a green star and a green circle":  # what README.md says of the same image
    raise SystemExit(f"wrong answer: {answer}")
print(answer, build_info().backends, SpeechRunner.__name__, inspect_model.__name__)
