"""HTTP/1.1 for a load generator: one kept connection, one request at a time, as little work as possible. Plain TCP, no redirects."""

import asyncio
import urllib.parse
from dataclasses import dataclass

LIMIT_S = 15.0  # as the outbox of the page


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    cookies: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()


class Connection:
    """To one server from one address of this machine; opened when needed, and again after it broke."""

    def __init__(self, host: str, port: int, *, source: str) -> None:
        self._host, self._port, self._source = host, port, source
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def request(
        self, method: str, path: str, *, cookies: dict[str, str], headers: dict[str, str] | None = None, form: dict[str, str] | None = None
    ) -> Answer:  # fmt: skip
        """Send and read.

        Raises:
            OSError: no connection, or it broke; what the server did with the request is not known.
        """
        body = b"" if form is None else urllib.parse.urlencode(form).encode()
        lines = [
            f"{method} {path} HTTP/1.1",
            f"host: {self._host}:{self._port}",
            *(f"{k}: {v}" for k, v in (headers or {}).items()),
        ]
        if cookies:
            lines.append("cookie: " + "; ".join(f"{name}={value}" for name, value in cookies.items()))
        if form is not None:
            lines += [
                "content-type: application/x-www-form-urlencoded",
                f"content-length: {len(body)}",
                f"origin: http://{self._host}:{self._port}",
            ]
        try:
            async with asyncio.timeout(LIMIT_S):
                return await self._exchange("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        except (OSError, EOFError, TimeoutError) as error:
            self.close()
            raise ConnectionError(str(error)) from error
        except asyncio.CancelledError:
            self.close()
            raise

    async def _exchange(self, message: bytes) -> Answer:
        if self._streams is not None and self._streams[0].at_eof():  # hung up while idle, as browsers see it too
            self.close()
        if self._streams is None:
            self._streams = await asyncio.open_connection(
                self._host, self._port, local_addr=(self._source, 0), limit=1 << 20
            )
        reader, writer = self._streams
        writer.write(message)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers: dict[str, str] = {}
        cookies: dict[str, str] = {}
        for line in head[1:]:
            name, _, value = line.partition(": ")
            if name.lower() == "set-cookie":
                cookie, _, rest = value.partition("=")
                cookies[cookie] = rest.split(";")[0].strip('"')
            elif name:
                headers[name.lower()] = value
        size = int(headers.get("content-length", "0"))
        body = await reader.readexactly(size) if size else b""
        if headers.get("transfer-encoding") == "chunked":
            body = await _chunks(reader)
        if headers.get("connection") == "close":
            self.close()
        return Answer(int(head[0].split()[1]), headers, cookies, body)

    def close(self) -> None:
        """Forget the connection."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    parts: list[bytes] = []
    while size := int(await reader.readuntil(b"\r\n"), 16):
        parts.append(await reader.readexactly(size))
        await reader.readexactly(2)
    await reader.readexactly(2)
    return b"".join(parts)
