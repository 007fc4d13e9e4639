"""The pages of runs over HTTP, on this machine only: an index of all data sets, and what lies in their ``_runs``."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from features.errors import GristmillError
from pipeline.catalog import Catalog
from pipeline.report.index import store_index
from pipeline.store import DatasetStore

LOOPBACK = "127.0.0.1"
_ADDRESS = re.compile(r"/([^/]+)/(_runs/(?:index\.html|[A-Za-z0-9-]+/(?:report\.html|report\.json|events\.jsonl)))")
_TYPES = {".html": "text/html; charset=utf-8", ".json": "application/json", ".jsonl": "application/jsonl"}
_POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"


@contextmanager
def serve_pages(catalog: Catalog, port: int) -> Iterator[str]:
    """Serve the pages of a catalog's runs until the context ends; gives their address. ``port`` 0: any free one."""
    try:
        server = ThreadingHTTPServer((LOOPBACK, port), _handler(catalog))
    except OSError as error:
        raise GristmillError(
            f"serve: port {port} for the pages of runs cannot be had ({error.strerror}); cure: another --reports-port"
        ) from error
    thread = threading.Thread(target=server.serve_forever, name="pages of runs", daemon=True)
    thread.start()
    try:
        yield f"http://{LOOPBACK}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def find(catalog: Catalog, address: str) -> tuple[str, bytes] | None:
    """The type and the bytes of what lies at a path of these pages; ``None`` where nothing does."""
    if address == "/":
        return _TYPES[".html"], store_index(catalog).encode()
    match = _ADDRESS.fullmatch(address)
    if match is None or match.group(1) not in catalog.datasets:
        return None
    path = match.group(2)
    found = DatasetStore(catalog.store, match.group(1)).read(path)
    return None if found is None else (_TYPES[path[path.rindex(".") :]], found.content)


def _handler(catalog: Catalog) -> type[BaseHTTPRequestHandler]:
    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            host = (self.headers.get("Host") or "").rpartition(":")[0]
            try:
                found = find(catalog, self.path.partition("?")[0]) if host in (LOOPBACK, "localhost") else None
            except GristmillError as error:
                self.send_error(500, explain=str(error))
                return
            if found is None:
                self.send_error(404)
                return
            kind, content = found
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Content-Security-Policy", _POLICY)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the library's own name
            del format, args

    return Pages
