"""A server with the OpenAI API in this process, whose answers a test writes."""

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server:
    """Answers by `script`: (status, headers, bytes) from a function of (number of the request, path, body)."""

    def __init__(self, script):
        self.requests, self.script, lock = [], script, threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    number = len(server.requests)
                    server.requests.append((self.path, body, dict(self.headers)))
                status, headers, data = server.script(number, self.path, body)
                with contextlib.suppress(
                    BrokenPipeError, ConnectionResetError
                ):  # the client may have waited long enough
                    self.send_response(status)
                    for name, value in {"Content-Length": str(len(data)), **headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    for piece in [data] if isinstance(data, bytes) else data:
                        self.wfile.write(piece)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()


def serving():
    """For a fixture: yields what starts a server by its script; all are closed at the end."""
    made = []

    def start(script):
        made.append(Server(script))
        return made[-1]

    yield start
    for server in made:
        server.close()


def good(body):
    """What a vLLM server says to a prompt of ids: the prompt backwards, and the last bits of the seed."""
    ids = [*body["prompt"][::-1], body["seed"] % 50][: body["max_tokens"]]
    choice = {"index": 0, "text": "x", "token_ids": ids, "finish_reason": "stop",
              "logprobs": {"token_logprobs": [-0.5] * len(ids), "tokens": ["?"] * len(ids)}}  # fmt: skip
    return {"choices": [choice]}


def said(found, status=200, **headers):
    return status, headers, json.dumps(found).encode()


def chat(text, reason="stop"):
    return {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": reason}]}


class ChatServer(Server):
    """A chat model: `say` makes of a request's body what the model says, or (status, headers, body). Counts 10 tokens read and 2 written."""

    def __init__(self, say, *, usage=True):
        self.asked = []
        """Bodies of the requests, with `authorization` and `path`."""
        one = threading.Lock()

        def script(number, path, body):
            with one:
                self.asked.append(
                    {**body, "path": path, "authorization": self.requests[number][2].get("Authorization")}
                )
                answer = say(self.asked[-1])
            if isinstance(answer, str):
                counts = {"usage": {"prompt_tokens": 10, "completion_tokens": 2}} if usage else {}
                return said({**chat(answer), **counts})
            status, headers, text = answer
            return status, headers, text.encode()

        super().__init__(script)


@contextlib.contextmanager
def chat_server(say, *, usage=True):
    """A chat model until the block ends."""
    server = ChatServer(say, usage=usage)
    try:
        yield server
    finally:
        server.close()
