"""Ports for servers that tests start as programs of their own."""

import contextlib
import socket
from collections.abc import Iterator


@contextlib.contextmanager
def kept_port() -> Iterator[int]:
    """A port of this machine that nobody else is given while the block runs.

    It is bound here and not listened on. A server that binds with SO_REUSEADDR, as asyncio's do, may listen on it, also again after it was
    killed; the kernel gives it to no connection, as it may a port that was free a moment ago.
    """
    with socket.socket() as keeper:
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keeper.bind(("127.0.0.1", 0))
        yield keeper.getsockname()[1]
