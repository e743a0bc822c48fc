"""A chat model behind HTTP on this machine, as an OpenAI-compatible server speaks; what it says is the test's.

Example:
    with chat_server(lambda body: "A") as server:
        server.url, server.asked
"""

import contextlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

Say = Callable[[dict[str, Any]], "str | tuple[int, dict[str, str], str]"]
"""Request -> what the model says, or (status, headers, body)."""


@dataclass
class ChatServer:
    url: str
    asked: list[dict[str, Any]] = field(default_factory=list)
    """Bodies of the requests, with `authorization` and `path`."""


@contextlib.contextmanager
def chat_server(say: Say, *, usage: bool = True) -> Iterator[ChatServer]:
    """Runs until the block ends. Counts 10 tokens read and 2 written for each answer."""
    lock = threading.Lock()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            body |= {"path": self.path, "authorization": self.headers.get("Authorization")}
            with lock:
                found.asked.append(body)
                said = say(body)
            if isinstance(said, str):
                counts = {"usage": {"prompt_tokens": 10, "completion_tokens": 2}} if usage else {}
                said = (
                    200,
                    {},
                    json.dumps({"choices": [{"message": {"role": "assistant", "content": said}}], **counts}),
                )
            status, headers, text = said
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the client waited long enough
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(text.encode()))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = ChatServer(f"http://127.0.0.1:{server.server_address[1]}/v1")
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()
