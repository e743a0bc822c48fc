"""Scripts and style sheets, from memory: read when the server starts, so that no thread and no disk is asked for them, and no path can lead
out of their folder. A browser asks each time whether its copy still holds, and is told so without the file.

Example:
    app.mount("/static", StaticFolder(Path("static")))
"""

import hashlib
import mimetypes
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send


class StaticFolder:
    """ASGI application. Serves the files of one folder, by name."""

    def __init__(self, folder: Path) -> None:
        self._found = {path.name: _served(path) for path in sorted(folder.iterdir()) if path.is_file()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise HTTPException(404)
        request = Request(scope)
        if request.method not in ("GET", "HEAD"):
            raise HTTPException(405)
        found = self._found.get(scope["path"].removeprefix(scope.get("root_path", "")).removeprefix("/"))
        if found is None:
            raise HTTPException(404)
        content, headers = found
        is_known = headers["etag"] in request.headers.get("if-none-match", "")
        response = Response(status_code=304, headers=headers) if is_known else Response(content, headers=headers)
        await response(scope, receive, send)


def _served(path: Path) -> tuple[bytes, dict[str, str]]:
    content = path.read_bytes()
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return content, {
        "etag": f'"{hashlib.sha256(content).hexdigest()[:32]}"',
        "cache-control": "no-cache",
        "content-type": f"{kind}; charset=utf-8" if kind.startswith("text/") else kind,
    }
