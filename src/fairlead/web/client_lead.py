"""What leads and adjudicators do in one project over the API. Answers are data as `/api/v1/openapi.json` describes them.

Example:
    lead = client.lead(project.id)
    while item := lead.next_case():
        case = lead.case(item)
        lead.decide(case, choice="left", reason="The other one invents a source.")
"""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import quote

Data = dict[str, Any]


class Ask(Protocol):
    """One request to the API."""

    def __call__(self, method: str, path: str, body: Any = None, **parameters: str | int | bool) -> Any:
        """Send and read."""
        ...


class Lead:
    """One project through the eyes of its lead; adjudicators may use what is about disagreements. As thread-safe as its client: not."""

    def __init__(self, ask: Ask, project_id: str) -> None:
        self._ask, self._place = ask, f"/projects/{quote(project_id)}"

    def _get(self, path: str, **parameters: str | int | bool) -> Any:
        return self._ask("GET", self._place + path, None, **parameters)

    def _post(self, path: str, body: Any = None) -> Any:
        return self._ask("POST", self._place + path, body)

    def disagreements(self, **wanted: str | int | bool) -> Iterator[Data]:
        """Items on which votes differ, all pages.

        Args:
            wanted: kind, state, use, sort, field, value, flagged as the page has them.
        """
        page, last = 1, 1
        while page <= last:
            found = self._get("/disagreements", page=page, **wanted)
            yield from found["disputes"]
            page, last = page + 1, found["num_pages"]

    def next_case(self, *, without: str = "") -> str:
        """The most disputed item that is not decided; empty when there is none."""
        return self._get("/adjudicate", without=without)["item"]

    def case(self, item: str) -> Data:
        """One item with its votes, nobody named."""
        return self._get(f"/items/{quote(item)}")

    def decide(
        self, case: Mapping[str, Any], *, choice: str, reason: str, key: str | None = None, **answers: Any
    ) -> int:
        """Decide an item in the frame of `case`; return the number of the event. ranking=[[2], [0, 1]] and criteria as in `Client.submit`."""
        sent = {"key": key or secrets.token_hex(16), "choice": choice, "reason": reason, **answers}
        sent["guideline_version"] = case["guideline_version"]
        return self._post(f"/items/{quote(case['item'])}/decision", sent)["event"]

    def revoke_decision(self, item: str, *, key: str | None = None) -> None:
        """Take a decision back."""
        self._post(f"/items/{quote(item)}/revoke", {"key": key or secrets.token_hex(16)})

    def make_anchor(self, item: str) -> None:
        """Serve a decided pair as a hidden anchor."""
        self._post(f"/items/{quote(item)}/anchor")

    def discussion(self) -> Data:
        """Disagreements of the newest calibration round, and whether raters may read them."""
        return self._get("/discussion")

    def open_discussion(self, *, is_open: bool = True) -> None:
        """Open or close it to raters."""
        self._post("/discussion", {"is_open": is_open})

    def costs(self) -> Data:
        """The ledger, in dollars."""
        return self._get("/costs")

    def set_costs(self, *, dollars_per_vote: float, limit_dollars: float | None = None) -> Data:
        """Set price and limit from now on."""
        return self._post("/costs", {"dollars_per_vote": dollars_per_vote, "limit_dollars": limit_dollars})

    def add_payment(self, *, kind: str, dollars: float, note: str, key: str | None = None) -> Data:
        """Enter what was paid beside votes, to `human` or `ai`."""
        sent = {"key": key or secrets.token_hex(16), "kind": kind, "dollars": dollars, "note": note}
        return self._post("/costs/payment", sent)

    def override_budget(self, reason: str) -> Data:
        """Go on beyond the limit, on record."""
        return self._post("/costs/override", {"reason": reason})

    def steering(self) -> Data:
        """Settings, and how what they steer goes."""
        return self._get("/steering")

    def watched(self) -> Data:
        """Raters through hidden anchors, open alarms, rounds, the rolling kappa."""
        return self._get("/watched")

    def choice(self) -> Data:
        """How the active choice of pairs goes."""
        return self._get("/choice")

    def ask_more_votes(self, items: Sequence[str], *, extra: int = 1, reason: str, key: str | None = None) -> None:
        """Ask more votes for single pairs."""
        sent = {"key": key or secrets.token_hex(16), "items": list(items), "extra": extra, "reason": reason}
        self._post("/more-votes", sent)

    def change_steering(self, *, votes_per_item: int | None = None, reason: str = "", **settings: Any) -> Data:
        """Change settings; what is not named stays."""
        return self._post("/steering", {"votes_per_item": votes_per_item, "settings": settings, "reason": reason})

    def scale(self, reason: str = "") -> Data:
        """Let more raters begin than the pilot's."""
        return self._post("/scale", {"reason": reason})

    def open_round(self, reason: str, *, key: str | None = None) -> int:
        """Ask everybody to calibrate again; return the round's number."""
        return self._post("/rounds", {"key": key or secrets.token_hex(16), "reason": reason})["number"]

    def answer_alarm(self, number: int, act: str, *, reason: str = "") -> None:
        """ask, rerate or close."""
        self._post(f"/alarms/{number}", {"act": act, "reason": reason})

    def make_anchors(self) -> int:
        """Make anchors of the calibration pairs on which raters agree; return how many are new."""
        return self._post("/anchors")["num_new"]

    def waive(self, person: str, reason: str) -> None:
        """Let a rater into production without the calibration, on record."""
        self._post("/waive", {"person": person, "reason": reason})

    def agreement(self) -> Data:
        """Agreement overall, by slice, criterion and pair of raters."""
        return self._get("/agreement")

    def quality(self) -> Data:
        """Agreement in short, with gates."""
        return self._get("/quality")

    def calibration(self) -> Data | None:
        """Who has passed the newest round."""
        return self._get("/calibration")

    def raters(self) -> Data:
        """Every rater's measures."""
        return self._get("/raters")

    def labels(self) -> Data:
        """What votes become under each method."""
        return self._get("/labels")

    def guideline(self, version: int | None = None) -> Data:
        """The newest version, or an earlier one."""
        return self._get("/guideline", **({} if version is None else {"version": version}))

    def publish_guideline(self, text: str, *, replaces: int, rules: Mapping[str, Any] | None = None) -> Data:
        """Publish the version that follows `replaces`."""
        return self._post("/guideline", {"text": text, "replaces": replaces, "rules": dict(rules or {})})

    def guideline_history(self) -> Data:
        """Versions with agreement before and after."""
        return self._get("/guideline/history")

    def guideline_document(self, version: int | None = None) -> str:
        """A guideline with everything that it asks of a verdict, as Markdown."""
        return self._get("/guideline/document", **({} if version is None else {"version": version}))

    def demonstrations(self, *, state: str = "") -> Iterator[Data]:
        """All conversations of a project of demonstrations with their replies."""
        after = ""
        while True:
            page = self._get("/demonstrations", state=state, after=after, limit=1000)
            yield from page["demonstrations"]
            after = page["next"]
            if not after:
                return

    def demonstration_counts(self) -> Data:
        """By state and by person."""
        return self._get("/demonstrations/counts")

    def chats(self) -> Iterator[Data]:
        """Conversations of all raters, oldest first."""
        after = 0
        while True:
            page = self._get("/chats", after=after, limit=1000)
            yield from page["chats"]
            after = page["next"]
            if not after:
                return

    def chat(self, chat: str) -> Data:
        """One conversation of anybody."""
        return self._get(f"/chats/{quote(chat)}")

    def webhooks(self) -> Sequence[Data]:
        """Those of the project, and how their deliveries go."""
        return self._get("/webhooks")

    def make_webhook(self, url: str, events: Sequence[str], *, key: str | None = None) -> Data:
        """Tell an address what happens; return its `id` and the `secret` of its signatures, which is shown once."""
        return self._post("/webhooks", {"key": key or secrets.token_hex(16), "url": url, "events": list(events)})
