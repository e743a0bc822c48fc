"""Raters without a browser, many at once: each logs in, reads, thinks, votes, and has the next item fetched meanwhile, as the page does.

    python -m benchmarks.annotation.raters --url http://127.0.0.1:8643 --project ID --raters 200 --think 5 --seconds 60

A process of its own beside the server. Every rater comes from an address of its own (127.0.x.y), for the server limits each address. As
`rate.js` does it: while an item is on screen the next one is fetched (`/next?without=...`); a verdict is sent with a key of its own, and
again with the same key until it is acknowledged; one item in ten gets a rationale with a draft. Prints one JSON object at the end.

    submit   from sending a verdict to its acknowledgement
    next     from asking for the next item to having it
    ready    from sending a verdict to having the next item: 0 where it was there already
"""

import argparse
import asyncio
import json
import random
import re
import secrets
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from urllib.parse import urlencode, urlsplit

from benchmarks.annotation.wire import Answer, Connection

PASSWORD = "a long password"
STRENGTHS = (1, 2, 3)
AGREES = (
    0.85  # of votes are for the reply that ends in 0: raters who only guess would have the project paused for its kappa
)
DRAFTS = 0.1  # share of items with a rationale
RAMP_S = 0.08  # between two raters' arrivals: a login costs the server some 50 ms of hashing
_ASSIGNMENT = re.compile(r'data-assignment="([^"]*)"')
_VERSION = re.compile(r'name="guideline_version" value="(\d+)"')
_NOTHING = re.compile(r'data-nothing="([^"]*)"')
_REPLY = re.compile(r'<div class="prose" dir="auto">(.*?)</div>', re.DOTALL)
_LAST = re.compile(r"([01])\s*(?:</[^>]+>\s*)*$")
_CSRF = re.compile(r'name="csrf" content="([^"]+)"')


@dataclass(slots=True)
class Plan:
    """What all raters share."""

    host: str
    port: int
    project: str
    think_s: float
    warm_s: float
    seconds: float
    started: float = 0.0
    """Clock at which the last rater had arrived; times count from `warm_s` after it."""
    journal: IO[str] | None = None
    """Keys that were acknowledged, a line each, written before anything else is done."""
    times: dict[str, list[float]] = field(default_factory=lambda: {"submit": [], "next": [], "ready": []})
    told: Counter[str] = field(default_factory=Counter)
    """Answers other than expected, by status; `lost` for broken connections."""

    def note(self, name: str, seconds: float) -> None:
        """Keep a time that lies in the window."""
        if self.started and self.warm_s <= time.monotonic() - self.started <= self.warm_s + self.seconds:
            self.times[name].append(seconds)

    @property
    def is_over(self) -> bool:
        """Has everybody gone home?"""
        return bool(self.started) and time.monotonic() - self.started > self.warm_s + self.seconds


class Rater:
    """One person with two connections, as a browser has them: one for verdicts, one for items."""

    def __init__(self, plan: Plan, number: int) -> None:
        self.plan, self.number, self.draw = plan, number, random.Random(number)
        source = f"127.0.{1 + number // 200}.{1 + number % 200}"
        self.votes, self.pages = (Connection(plan.host, plan.port, source=source) for _ in range(2))
        self.cookies: dict[str, str] = {}
        self.csrf = ""
        self.num_acknowledged = 0

    async def get(self, path: str) -> Answer:
        """A page, asked for again until it comes."""
        while True:
            try:
                answer = await self.pages.request("GET", path, cookies=self.cookies)
                self.cookies |= answer.cookies
                if answer.status < 500 and answer.status != 429:
                    return answer
                self.plan.told[str(answer.status)] += 1
            except OSError:
                self.plan.told["lost"] += 1
            if self.plan.is_over:
                raise Over
            await asyncio.sleep(0.05 + 0.1 * self.draw.random())

    async def post(self, path: str, form: dict[str, str], *, accepts: str = "application/json") -> Answer:
        """A form; sent again with the same key where no answer came, as the outbox does."""
        while True:
            try:
                headers = {"accept": accepts, "x-csrf-token": self.csrf}
                answer = await self.votes.request("POST", path, cookies=self.cookies, headers=headers, form=form)
                self.cookies |= {name: value for name, value in answer.cookies.items() if value}
                if answer.status < 500 and answer.status != 429:
                    return answer
                self.plan.told[str(answer.status)] += 1
            except OSError:
                self.plan.told["lost"] += 1
            if self.plan.is_over:
                raise Over
            await asyncio.sleep(0.05 + 0.1 * self.draw.random())

    async def log_in(self) -> str:
        """Through the form; return the first page of work."""
        page = await self.get("/login")
        self.csrf = _found(_CSRF, page)
        answer = await self.post(
            "/login", {"csrf": self.csrf, "name": f"rater {self.number}", "password": PASSWORD}, accepts="text/html"
        )
        assert answer.status == 303, f"login of rater {self.number}: {answer.status}"
        first = await self.get(f"/p/{self.plan.project}/rate")
        self.csrf = _found(_CSRF, first)
        for path in re.findall(r'(?:href|src)="(/static/[^"]+)"', first.text):
            await self.get(path)
        return first.text

    async def work(self, page: str) -> None:
        """Vote until it is over or there is nothing left."""
        while not self.plan.is_over:
            assignment, version = _ASSIGNMENT.search(page), _VERSION.search(page)
            if assignment is None or not assignment[1] or version is None:
                reason = _NOTHING.search(page)
                self.plan.told[f"nothing: {reason[1]}" if reason else "no item"] += 1
                await asyncio.sleep(0.5)
                page = (await self.get(f"/p/{self.plan.project}/next")).text
                continue
            coming = asyncio.ensure_future(self.next_item([assignment[1]]))
            try:
                await self.think(assignment[1])
                sent = time.monotonic()
                voting = asyncio.ensure_future(self.vote(assignment[1], version[1], _better(page)))
                page, arrived = await coming
                self.plan.note("ready", max(0.0, arrived - sent))
                await voting
            except Over:
                coming.cancel()
                raise

    async def think(self, assignment: str) -> None:
        """Read both replies; now and then write."""
        pause = self.draw.expovariate(1 / self.plan.think_s) if self.plan.think_s else 0.0
        if self.plan.think_s and self.draw.random() < DRAFTS:
            await asyncio.sleep(pause / 2)
            await self.post(f"/a/{assignment}/draft", {"rationale": "It answers what was asked."})
            pause /= 2
        await asyncio.sleep(pause)

    async def next_item(self, without: list[str]) -> tuple[str, float]:
        """The next item and when it was there."""
        began = time.monotonic()
        answer = await self.get(f"/p/{self.plan.project}/next?{urlencode({'without': ','.join(without)})}")
        now = time.monotonic()
        if answer.status == 200:
            self.plan.note("next", now - began)
        else:
            self.plan.told[str(answer.status)] += 1
        return answer.text, now

    async def vote(self, assignment: str, version: str, better: str) -> None:
        """Send until acknowledged."""
        key = secrets.token_hex(16)
        form = {
            "key": key,
            "choice": f"{better if self.draw.random() < AGREES else _OTHER[better]}{self.draw.choice(STRENGTHS)}",
            "guideline_version": version,
            "active_ms": str(self.draw.randrange(1000, 60_000)),
        }
        began = time.monotonic()
        answer = await self.post(f"/a/{assignment}/verdict", form)
        if answer.status != 200:
            self.plan.told[f"verdict {answer.status}"] += 1
            return
        self.plan.note("submit", time.monotonic() - began)
        self.num_acknowledged += 1
        if self.plan.journal is not None:
            self.plan.journal.write(f"{key}\n")
            self.plan.journal.flush()


class Over(Exception):
    """The time is up."""


_OTHER = {"left": "right", "right": "left"}


def _better(page: str) -> str:
    """The side of the reply that ends in 0."""
    left, right = _REPLY.findall(page)[-2:]
    ends = [found[1] if (found := _LAST.search(text)) else "" for text in (left, right)]
    return "left" if ends[0] == "0" or ends[1] == "1" else "right"


def _found(pattern: re.Pattern[str], page: Answer) -> str:
    found = pattern.search(page.text)
    assert found is not None, f"answer {page.status} holds no {pattern.pattern}"
    return found[1]


async def everybody(plan: Plan, num_raters: int) -> int:
    """Let them arrive one by one, then work together; return the acknowledged verdicts."""
    raters = [Rater(plan, number) for number in range(num_raters)]

    async def come(rater: Rater) -> None:
        await asyncio.sleep(rater.number * RAMP_S)
        try:
            page = await rater.log_in()
            waiting.discard(rater.number)
            if not waiting:
                plan.started = time.monotonic()
            await rater.work(page)
        except Over:
            pass

    waiting = set(range(num_raters))
    await asyncio.gather(*(come(rater) for rater in raters))
    return sum(rater.num_acknowledged for rater in raters)


def percentiles(seconds: list[float]) -> dict[str, float | int]:
    """In milliseconds."""
    found = sorted(seconds)
    at = (
        {f"p{q}": round(1000 * found[min(len(found) - 1, int(q / 100 * len(found)))], 1) for q in (50, 95, 99)}
        if found
        else {}
    )
    return {"n": len(found), **at, **({"max": round(1000 * found[-1], 1)} if found else {})}


def main() -> None:
    """Rate, then say how it was."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--project", required=True, help="its id")
    parser.add_argument("--raters", type=int, default=200)
    parser.add_argument(
        "--think", type=float, default=5.0, help="mean seconds between having an item and voting, exponential"
    )
    parser.add_argument("--warm", type=float, default=5.0, help="seconds after the last arrival that are not counted")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--journal", type=Path, help="file to which acknowledged keys are added")
    args = parser.parse_args()
    where = urlsplit(args.url)
    assert where.hostname is not None and where.port is not None, f"no host and port in {args.url}"
    plan = Plan(where.hostname, where.port, args.project, args.think, args.warm, args.seconds)
    if args.journal:
        plan.journal = args.journal.open("a", encoding="ascii")
    num = asyncio.run(everybody(plan, args.raters))
    cpu = time.process_time()
    rates = {name: round(len(found) / args.seconds, 1) for name, found in plan.times.items()}
    print(json.dumps({"ms": {name: percentiles(found) for name, found in plan.times.items()}, "per_s": rates, "acknowledged": num,
                      "told": dict(plan.told), "own_cpu_s": round(cpu, 1)}))  # fmt: skip


if __name__ == "__main__":
    main()
