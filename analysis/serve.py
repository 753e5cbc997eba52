"""`serve`: a page over HTTP, for this machine only."""

import contextlib
import http.server
from collections.abc import Callable
from pathlib import Path

from datasets import InputError

LOOPBACK = ("127.0.0.1", "localhost")
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".md": "text/plain; charset=utf-8",
    ".json": "application/json",
    ".parquet": "application/octet-stream",
}


def serve(files: list[Path], port: int, announce: Callable[[str], object]) -> None:
    """Serves the files, the first one also as `/`, on 127.0.0.1 until Ctrl-C; port 0 takes a free one.

    Nothing else of the folder can be asked for. `announce` is called with the address. `InputError` where the port is
    taken.
    """
    try:
        server = _Server((LOOPBACK[0], port), _handler(files))
    except (OSError, OverflowError) as error:
        raise InputError(f"--port {port} cannot be used: {error}; --port 0 takes a free one") from None
    with server, contextlib.suppress(KeyboardInterrupt):
        announce(f"http://{LOOPBACK[0]}:{server.server_port}/")
        server.serve_forever()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True


def _handler(files: list[Path]) -> type[http.server.BaseHTTPRequestHandler]:
    served = {"/": files[0], **{f"/{file.name}": file for file in files}}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(with_content=True)

        def do_HEAD(self) -> None:
            self._answer(with_content=False)

        def _answer(self, with_content: bool) -> None:
            # A page of the network whose name has been pointed at this machine must not read this one.
            if self.headers.get("Host", "").partition(":")[0] not in LOOPBACK:
                return self.send_error(403)
            file = served.get(self.path.partition("?")[0])
            try:
                content = file.read_bytes() if file else None
            except OSError:
                content = None
            if file is None or content is None:
                return self.send_error(404)
            self.send_response(200)
            self.send_header("Content-Type", TYPES.get(file.suffix, "application/octet-stream"))
            self.send_header("Content-Length", str(len(content)))
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            if with_content:
                # A reader who closes the page before it has come in whole is no error.
                with contextlib.suppress(ConnectionError):
                    self.wfile.write(content)
            return None

        def log_message(self, *_: object) -> None:
            """Every request is not worth a line."""

    return Handler
