"""`fairlead report --follow`: the report of what trains now, on this machine only, updating itself.

    GET /             the page
    GET /live.json    {"revision": ..., "main": ...}: what the page replaces when the revision changed

Read-only, on the loopback address, for requests that name it as their host (another site's page cannot read it by a name of its own
that leads here). The page loads nothing from elsewhere, and its policy lets it ask this server alone.
"""

import hashlib
import http.server
import json
import re
import urllib.parse
from pathlib import Path
from typing import ClassVar

from fairlead.core.errors import DataError
from fairlead.report.live import nothing_trains, read_live
from fairlead.report.page import build_report
from fairlead.report.run import RunReport

HOSTS = frozenset({"127.0.0.1", "localhost", "[::1]"})
_MAIN = re.compile(r"<main>.*</main>", re.DOTALL)
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def make_server(home: Path, *, port: int) -> http.server.ThreadingHTTPServer:
    """A server on 127.0.0.1 that is not running yet; port 0 takes a free one."""

    class Handler(_Handler):
        place = home

    return http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)


class _Handler(http.server.BaseHTTPRequestHandler):
    server_version, sys_version = "Fairlead", ""
    place: ClassVar[Path]

    def do_GET(self) -> None:
        """Answer, or refuse what is not from this machine's own pages."""
        host = urllib.parse.urlsplit(f"//{self.headers.get('Host', '')}")
        name = f"[{host.hostname}]" if host.hostname and ":" in host.hostname else host.hostname
        if name not in HOSTS:
            self._answer(403, "text/plain", "This page is for this machine: open it as http://127.0.0.1.\n")
            return
        page = build_report(_look(self.place), is_live=True) if self.path in ("/", "/live.json") else ""
        if self.path == "/":
            self._answer(200, "text/html", page)
        elif self.path == "/live.json":
            found = _MAIN.search(page)
            main = found[0] if found else ""
            body = {"revision": hashlib.sha256(main.encode()).hexdigest()[:16], "main": main}
            self._answer(200, "application/json", json.dumps(body))
        else:
            self._answer(404, "text/plain", "Nothing is here; the page is at /.\n")

    def do_HEAD(self) -> None:
        """As GET, without the body."""
        self.do_GET()

    def _answer(self, code: int, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(code)
        for name, value in {
            "Content-Type": f"{kind}; charset=utf-8",
            "Content-Length": str(len(body)),
            **_HEADERS,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: a line a poll would hide what matters."""


def _look(home: Path) -> RunReport:
    """What trains, or what there is to say instead."""
    try:
        return read_live(home) or _words(nothing_trains(home))
    except DataError as error:
        return _words(str(error))


def _words(answer: str) -> RunReport:
    return RunReport(name="live", created="", scope="", model="", answer=answer, key_figures=(), stages=(), lineage=(), command="")  # fmt: skip
