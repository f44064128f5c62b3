"""A stand-in for the Hugging Face Hub on this machine, with one repository: owner/tiny."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "c" * 40


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serves the files of a folder as owner/tiny; gives the address for HF_ENDPOINT."""
    files = {path.name: path for path in folder.iterdir()}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("TinyHub", (Hub,), {"files": files}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


class Hub(BaseHTTPRequestHandler):
    """The requests that huggingface_hub makes for one repository."""

    files: dict[str, Path]

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        api, resolve = "/api/models/owner/tiny", "/owner/tiny/resolve/"
        if path.startswith(f"{api}/tree/"):
            self._send(json.dumps([self._entry(name) for name in self.files]).encode())
        elif path.startswith(api):
            siblings = [{"rfilename": name} for name in self.files]
            self._send(json.dumps({"id": "owner/tiny", "sha": COMMIT, "siblings": siblings}).encode())
        elif path.startswith(resolve) and path.removeprefix(resolve).split("/", 1)[1] in self.files:
            self._send(self.files[path.removeprefix(resolve).split("/", 1)[1]].read_bytes())
        else:
            self._send(b"{}", 404, {"X-Error-Code": "RepoNotFound"})

    def _entry(self, name: str) -> dict[str, object]:
        data = self.files[name].read_bytes()
        return {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}

    def _send(self, body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass
