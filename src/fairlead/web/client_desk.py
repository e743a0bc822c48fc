"""What a person writes, reviews and says in one project over the API: demonstrations and live conversations.

Example:
    desk = client.desk(project.id)
    while task := desk.take_task():
        desk.hand_in(task, "Here is how:") if task["part"] == "write" else desk.review(task, "accept")
"""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from fairlead.web.client_lead import Ask, Data


class Desk:
    """One person's desk in one project. As thread-safe as its client: not."""

    def __init__(self, ask: Ask, project_id: str) -> None:
        self._ask, self._place = ask, f"/projects/{quote(project_id)}"
        self.reason = ""
        """Why `take_task` gave nothing: paused, finished or waiting."""

    def take_task(self) -> Data | None:
        """The next thing to write or to review; None when there is none now."""
        answer = self._ask("POST", f"{self._place}/writing/next")
        self.reason = answer["reason"]
        return answer["task"]

    def task(self, task_id: str) -> Data:
        """One of one's own tasks again."""
        return self._ask("GET", f"/writing/{quote(task_id)}")

    def _send(self, task: Mapping[str, Any], act: str, key: str | None, **values: Any) -> Data:
        return self._ask("POST", f"/writing/{quote(task['id'])}/{act}", {"key": key or secrets.token_hex(16), **values})

    def hand_in(self, task: Mapping[str, Any], text: str, *, took_draft: bool = False, key: str | None = None) -> Data:
        """Hand a reply in for somebody else to review."""
        return self._send(task, "reply", key, text=text, guideline_version=task["guideline_version"], took_draft=took_draft)  # fmt: skip

    def review(self, task: Mapping[str, Any], decision: str, *, text: str = "", reason: str = "", key: str | None = None) -> Data:  # fmt: skip
        """accept, edit (with the whole text as it shall be) or return (with a reason)."""
        return self._send(task, "review", key, decision=decision, text=text, reason=reason, guideline_version=task["guideline_version"])  # fmt: skip

    def skip(self, task: Mapping[str, Any], reason: str, *, key: str | None = None) -> Data:
        """Put a task aside; it goes to somebody else."""
        return self._send(task, "skip", key, reason=reason)

    def take_back(self, task: Mapping[str, Any], *, key: str | None = None) -> Data:
        """Get an own reply back that nobody has begun to review."""
        return self._send(task, "take-back", key)

    def save(self, task: Mapping[str, Any], text: str, *, took_draft: bool = False) -> None:
        """Keep what is being written."""
        self._ask("PUT", f"/writing/{quote(task['id'])}/draft", {"text": text, "took_draft": took_draft})

    def written(self) -> Sequence[Data]:
        """One's own replies and what became of them."""
        return self._ask("GET", f"{self._place}/written")

    def talk(self, chat: str = "") -> Data:
        """Where a conversation stands: one's own by its id, or the latest."""
        return self._ask("GET", f"{self._place}/talk", chat=chat)

    def say(self, text: str, *, chat: str = "", key: str | None = None) -> str:
        """Say something to the policy; return the conversation. Ask `talk` until two replies are there, then vote on its assignment."""
        return self._ask("POST", f"{self._place}/say", {"key": key or secrets.token_hex(16), "text": text, "chat": chat})["chat"]  # fmt: skip

    def ask_again(self, chat: str, *, key: str | None = None) -> None:
        """Let the policy try once more after a failure."""
        self._ask("POST", f"{self._place}/again", {"key": key or secrets.token_hex(16), "chat": chat})

    def own_figures(self) -> Data:
        """What one has chosen, how fast, how long it will take."""
        return self._ask("GET", f"{self._place}/own")
