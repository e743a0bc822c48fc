"""A client of the rating application's API, for scripts and simulated raters. Standard library only, no page and no database is touched.

Whatever may be sent twice without harm (every read, and every submission, for it carries a key) is sent again when the network or the server fails.

Example:
    with Client("https://rate.example.org", token=os.environ["FAIRLEAD_TOKEN"]) as client:
        project = client.find_project("harmless")
        while (item := client.take_next(project.id)) is not None:
            client.submit(item, choice="left", strength=2)
        client.lead(project.id).costs()["total"]         # what leads and adjudicators do
        client.desk(project.id).take_task()              # demonstrations and conversations
"""

import hmac
import http.client
import json
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlencode, urlsplit

from fairlead.core.errors import ConfigError, FairleadError, explain
from fairlead.core.io import atomic_path
from fairlead.web.client_desk import Desk
from fairlead.web.client_lead import Lead
from fairlead.web.client_records import Assignment, Choice, Imported, Project, Saved, Turn, Vote

TIMEOUT_S = 60.0
MAX_ATTEMPTS = 6
FIRST_WAIT_S, MAX_WAIT_S = 0.5, 20.0
MAX_AGE_S = 300
"""Of a webhook's signature."""
_AGAIN = frozenset({429, 502, 503, 504})
_Parameters = Mapping[str, str | int | bool]


class ApiError(FairleadError, RuntimeError):
    """The server said no."""

    exit_code = 2

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message

    def __reduce__(self) -> tuple[type["ApiError"], tuple[int, str, str]]:
        return type(self), (self.status, self.code, self.message)


class Unreachable(FairleadError, ConnectionError):
    """No answer after all attempts. What was sent may have been stored: send it again with the same key."""

    exit_code = 4


def new_key() -> str:
    """A key for one submission."""
    return secrets.token_hex(16)


class Client:
    """A connection of one token. Not thread-safe: one client a thread. Closes its connection at the end of a `with` block."""

    def __init__(self, url: str, *, token: str, timeout_s: float = TIMEOUT_S, max_attempts: int = MAX_ATTEMPTS) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                explain(
                    "url",
                    url,
                    "is no address of a server",
                    expected="https://NAME or http://NAME:PORT",
                    remedy="Correct it",
                )
            )
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._line = kind(parts.hostname, parts.port, timeout=timeout_s)
        self._token, self._max_attempts = token, max_attempts
        self.reason = ""
        """Why `take_next` gave nothing: paused, finished, waiting or calibration."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._line.close()

    def me(self) -> tuple[str, str]:
        """Name and role that the token stands for."""
        found = self._json("GET", "/me")
        return found["name"], found["role"]

    def lead(self, project_id: str) -> Lead:
        """What leads and adjudicators do in a project."""
        return Lead(self._json, project_id)

    def desk(self, project_id: str) -> Desk:
        """What one writes, reviews and says in a project."""
        return Desk(self._json, project_id)

    def list_projects(self) -> list[Project]:
        """All, by name."""
        return [Project(**each) for each in self._json("GET", "/projects")]

    def find_project(self, name: str) -> Project:
        """One by name.

        Raises:
            ApiError: there is none.
        """
        for project in self.list_projects():
            if project.name == name:
                return project
        raise ApiError(404, "missing", f"There is no project {name}. Make it, or correct the name.")

    def create_project(self, name: str, *, kind: str = "comparison", votes_per_item: int = 3, calibration_items: int = 50) -> Project:  # fmt: skip
        """Make one; where an answer was lost, the one that was made is given."""
        sent = {"name": name, "kind": kind, "votes_per_item": votes_per_item, "calibration_items": calibration_items}
        before = {project.id for project in self.list_projects()}
        try:
            return Project(**self._json("POST", "/projects", sent))
        except ApiError:
            made = [project for project in self.list_projects() if project.name == name and project.id not in before]
            if not made:
                raise
            return made[0]

    def set_state(self, project_id: str, state: str) -> Project:
        """Pause (`paused`) or open (`open`)."""
        return Project(**self._json("POST", f"/projects/{quote(project_id)}/state", {"state": state}))

    def import_file(
        self, project_id: str, file: Path | str, *, is_strict: bool = False, format: str = "", mapping: Path | str | None = None,
        with_drafts: bool = False, group_size: int = 2, is_gold: bool = False, test: str = "",
    ) -> Imported:  # fmt: skip
        """Put a file of pairs, rated items or conversations into a project, up to 64 MB; what it has already is left alone.

        Args:
            group_size: completions of an item; beyond 2 all of a prompt, up to this many, are ranked.
            is_gold: the file's answers are right: its pairs are hidden anchors, never items.
            test: with gold, the language or skill whose test these pairs are (skill:code, language:de), in place of anchors.
            format: of the file; recognised when empty.
            mapping: file that says which column of a vendor's table is what.
            with_drafts: of demonstrations, offer the replies that the file has as drafts.
        """
        file = Path(file)
        ending = "".join(file.suffixes[-2:]) if file.suffix == ".gz" else file.suffix
        answer = self._json("POST", f"/projects/{quote(project_id)}/import", file.read_bytes(), ending=ending, strict=is_strict, format=format,
                            mapping=Path(mapping).read_text(encoding="utf-8") if mapping else "", drafts=with_drafts,
                            group_size=group_size, gold=is_gold, test=test)  # fmt: skip
        return Imported(**answer)

    def take_next(self, project_id: str, *, without: Sequence[str] = ()) -> Assignment | None:
        """The next item of this rater; None when there is none now, and `reason` says why."""
        answer = self._json("POST", f"/projects/{quote(project_id)}/next", {"without": list(without)})
        self.reason = answer["reason"]
        return None if answer["assignment"] is None else _assignment(answer["assignment"])

    def assignment(self, assignment_id: str) -> Assignment:
        """One of one's own items again."""
        return _assignment(self._json("GET", f"/assignments/{quote(assignment_id)}"))

    def submit(
        self, assignment: Assignment, *, choice: str, strength: int = 0, rationale: str = "", skip_reason: str = "", active_ms: int | None = None,
        key: str | None = None, **answers: Any,
    ) -> Saved:  # fmt: skip
        """Vote; safe to repeat with the same key.

        Args:
            choice: left, right, tie, both_bad or skip, as `assignment.options` has them; ranked for three or more replies.
            key: made anew when left out.
            answers: ranking=[[2], [0, 1]] (places from the left, best first), criteria={"correct": [5, 3]},
                spans=[{"place": 0, "start": 4, "end": 9, "label": "bad"}], edit={"place": 0, "text": "..."}.
        """
        sent = {
            "key": key or new_key(), "choice": choice, "strength": strength, "guideline_version": assignment.guideline_version,
            "rationale": rationale, "skip_reason": skip_reason, "active_ms": active_ms, **answers,
        }  # fmt: skip
        return Saved(**self._json("POST", f"/assignments/{quote(assignment.id)}/verdict", sent))

    def undo(self, project_id: str, *, key: str | None = None) -> str:
        """Take back the last verdict; return its assignment."""
        return self._json("POST", f"/projects/{quote(project_id)}/undo", {"key": key or new_key()})["assignment"]

    def flag(self, assignment_id: str, note: str, *, key: str | None = None) -> None:
        """Remark that something is wrong with an item."""
        self._json("POST", f"/assignments/{quote(assignment_id)}/flag", {"key": key or new_key(), "note": note})

    def status(self, project_id: str) -> dict[str, Any]:
        """Counts."""
        return self._json("GET", f"/projects/{quote(project_id)}/status")

    def votes(self, project_id: str, *, after: int = 0) -> Iterator[Vote]:
        """All votes that stand now, oldest first, page by page.

        Args:
            after: the event of the last vote that the caller has.
        """
        while page := self._json("GET", f"/projects/{quote(project_id)}/votes", after=after, limit=1000):
            yield from (Vote(**each) for each in page)
            after = page[-1]["event"]

    def export(
        self, project_id: str, out: Path | str, *, format: str = "native", method: str = "auto", is_blind: bool = False, with_outside: bool = False
    ) -> None:  # fmt: skip
        """Write the archive of all votes, in a format of `fairlead votes convert`."""
        asked = {"format": format, "method": method, "blind": is_blind, "outside": with_outside}
        content = self._request("GET", f"/projects/{quote(project_id)}/export", None, asked)
        with atomic_path(out) as draft:
            draft.write_bytes(content)

    def invite(
        self, role: str = "rater", *, languages: Sequence[str] = (), skills: Sequence[str] = (), key: str | None = None
    ) -> str:
        """A link that lets one person in, who then has these languages and skills."""
        sent = {"key": key or new_key(), "role": role, "languages": list(languages), "skills": list(skills)}
        return self._json("POST", "/invites", sent)["link"]

    def tokens(self) -> list[dict[str, Any]]:
        """One's own, without secrets."""
        return self._json("GET", "/tokens")

    def revoke_token(self, token_id: str) -> None:
        """End one of one's own tokens."""
        self._json("DELETE", f"/tokens/{quote(token_id)}")

    def _json(self, method: str, path: str, body: Any = None, **parameters: str | int | bool) -> Any:
        return _data(self._request(method, path, body, parameters))

    def _request(self, method: str, path: str, body: Any, parameters: _Parameters) -> bytes:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": kind, "Accept": "application/json"}
        asked = (
            "/api/v1"
            + path
            + (
                f"?{urlencode({k: str(v).lower() if isinstance(v, bool) else v for k, v in parameters.items()})}"
                if parameters
                else ""
            )
        )
        wait_s, last = FIRST_WAIT_S, ""
        for attempt in range(self._max_attempts):
            if attempt:
                time.sleep(wait_s * (0.5 + secrets.randbelow(1000) / 1000))
                wait_s = min(2 * wait_s, MAX_WAIT_S)
            try:
                self._line.request(method, asked, body=data, headers=headers)
                answer = self._line.getresponse()
                content = answer.read()
            except (OSError, http.client.HTTPException) as error:
                self._line.close()
                last = f"{type(error).__name__}: {error}"
                continue
            if answer.status < 300:
                return content
            last = str(answer.status)
            if answer.status not in _AGAIN:
                raise _refusal(answer.status, content)
        raise Unreachable(explain(f"{self._line.host}:{self._line.port}", None, f"gives no good answer ({last})", expected="the rating application",
                                  remedy="Try again later; what carries a key is stored once"))  # fmt: skip


def _data(content: bytes) -> Any:
    """JSON, or the text of a document."""
    try:
        return json.loads(content) if content else None
    except ValueError:
        return content.decode()


def _assignment(values: Mapping[str, Any]) -> Assignment:
    return Assignment(
        **{**values, "prompt": tuple(Turn(**turn) for turn in values["prompt"]), "replies": tuple(values["replies"]),
           "criteria": tuple(values["criteria"]), "places": tuple(values["places"]),
           "options": tuple(Choice(**option) for option in values["options"])}
    )  # fmt: skip


def _refusal(status: int, content: bytes) -> ApiError:
    try:
        error = json.loads(content)["error"]
        return ApiError(status, str(error["code"]), str(error["message"]))
    except (ValueError, KeyError, TypeError):
        return ApiError(status, "http", f"The server answered {status}. Check the address.")


def verify_webhook(
    secret: str, signature: str, body: bytes, *, now_s: float | None = None, max_age_s: int = MAX_AGE_S
) -> bool:
    """Was a webhook's request made by the server that shares the secret, and lately?

    Args:
        signature: the header `Fairlead-Signature`.
        body: as it came, byte for byte.
    """
    stamp, _, given = signature.partition(",v1=")
    at = stamp.removeprefix("t=")
    if not at.isascii() or not at.isdigit() or len(at) > 12:
        return False
    made = hmac.new(secret.encode(), f"{at}.".encode() + body, "sha256").hexdigest()
    is_recent = abs((time.time() if now_s is None else now_s) - int(at)) <= max_age_s
    return hmac.compare_digest(made.encode(), given.encode()) and is_recent
