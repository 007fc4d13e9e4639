"""An object store for tests: S3 in memory on a port of loopback, which is printed.

It handles one request at a time, so that a put with a condition is atomic as it is at S3. It is a process of its own:
deltalake holds the interpreter's lock while it waits for an answer. ``PUT /lose`` with the end of a path as its body
makes the next successful put of such a path answer "slow down"; ``GET /lost`` counts the answers that were lost so.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server


class Server:
    """The WSGI application."""

    def __init__(self) -> None:
        self._s3 = DomainDispatcherApplication(create_backend_app)
        self._lock = threading.Lock()
        self._loses = ""
        self._lost = 0

    def __call__(self, environment: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environment["REQUEST_METHOD"], environment["PATH_INFO"]
        with self._lock:
            if path == "/lose":
                self._loses = environment["wsgi.input"].read(int(environment["CONTENT_LENGTH"])).decode()
                self._lost = 0
            if path in ("/lose", "/lost"):
                start("200 OK", [])
                return [b"%d" % self._lost]
            said: list[Any] = []
            body = b"".join(self._s3(environment, lambda *answer: said.extend(answer)))
            if self._loses and method == "PUT" and path.endswith(self._loses) and said[0].startswith("2"):
                self._loses, self._lost = "", self._lost + 1
                start("503 Slow Down", [("Content-Length", "0")])
                return []
        start(*said)
        return [body]


if __name__ == "__main__":
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, Server(), threaded=True)
    print(server.server_port, flush=True)
    server.serve_forever()
