"""A server for models that OpenAI's clients understand; needs the extra `server`.

    from executorch_mm import MultimodalModel
    from executorch_mm.server import serve

    serve({"demo": MultimodalModel.demo})

`executorch-mm serve` is the same on the command line.
"""

from executorch_mm._files.extras import import_extra

for _module in ("starlette", "uvicorn", "prometheus_client", "python_multipart"):
    import_extra(_module, "server", "executorch_mm.server")

from executorch_mm.server.app import make_app  # noqa: E402
from executorch_mm.server.models import Loader, Model  # noqa: E402
from executorch_mm.server.options import ServerOptions  # noqa: E402
from executorch_mm.server.run import BackgroundServer, serve  # noqa: E402

__all__ = ["BackgroundServer", "Loader", "Model", "ServerOptions", "make_app", "serve"]
