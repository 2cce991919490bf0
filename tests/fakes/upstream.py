"""A server on a local port that answers each path as it is told, to show what failing ones do."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODELS = {"data": [{"id": "m", "max_model_len": 64}]}


@dataclass
class Scripted:
    """Status and body per path; a list of bodies is streamed as events, bytes go as they are.

    `asked` collects the headers and body of every request; `hold` keeps streams open at their end.
    `end` closes the port.
    """

    url: str = ""
    answers: dict[str, tuple[int, Any]] = field(default_factory=dict)
    asked: list[tuple[str, Mapping[str, str], Any]] = field(default_factory=list)
    hold: bool = False
    left: threading.Event = field(default_factory=threading.Event)
    end: Callable[[], None] = lambda: None


@contextmanager
def scripted() -> Iterator[Scripted]:
    """A running server, ended with the block."""
    script = Scripted(answers={"/v1/models": (200, MODELS), "/health": (200, "")})

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            length = int(self.headers["content-length"])
            self._answer(json.loads(self.rfile.read(length)))

        def _answer(self, body: Any) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            script.asked.append((self.path, headers, body))
            status, said = script.answers.get(self.path, (404, {"error": {"message": "no path"}}))
            try:
                self._say(status, said)
            except ConnectionError:
                script.left.set()

        def _say(self, status: int, said: Any) -> None:
            self.send_response(status)
            self.end_headers()
            if isinstance(said, list):
                self._stream(said)
            else:
                self.wfile.write(said if isinstance(said, bytes) else json.dumps(said).encode())

        def _stream(self, events: list[Any]) -> None:
            for event in events:
                text = event if isinstance(event, str) else json.dumps(event)
                self.wfile.write(f"data: {text}\n\n".encode())
            while script.hold:
                try:
                    self.connection.settimeout(0.02)
                    if not self.connection.recv(1):
                        script.left.set()
                        return
                except TimeoutError:
                    continue

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    script.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()

    def end() -> None:
        script.hold = False
        server.shutdown()
        server.server_close()

    script.end = end
    try:
        yield script
    finally:
        end()
