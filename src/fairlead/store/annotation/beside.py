"""Work of the server in a thread of its own, while a block lasts."""

import contextlib
import threading
from collections.abc import Callable, Generator


@contextlib.contextmanager
def beside(work: Callable[[threading.Event], None], *, name: str) -> Generator[None]:
    """Run `work` beside the block; it is given what is set when it must end, and waited for."""
    ended = threading.Event()
    thread = threading.Thread(target=work, args=(ended,), name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
