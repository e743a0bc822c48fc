"""Disagreements: the list, one item with its votes, nobody named, the decision on it, and the discussion of a calibration round."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from fairlead.store.annotation.database import Rows
from fairlead.store.annotation.schema import Item
from fairlead.web import adjudication, disputes, policy
from fairlead.web.api.access import Data, Who
from fairlead.web.api.models import KeySent, Sent, TurnShown
from fairlead.web.api.plain import plain
from fairlead.web.cases import Case, order_for
from fairlead.web.discussion import is_open, read_discussion, set_discussion
from fairlead.web.importing import texts_of
from fairlead.web.policy import Actor
from fairlead.web.projects import get_project
from fairlead.web.undecided import num_undecidable, waiting_of

router = APIRouter(tags=["disagreements"])
Short = Annotated[str, Query(max_length=120)]


class DisputeShown(BaseModel):
    """One line of the list."""

    item: str
    about: str
    """Beginning of the last turn."""
    counts: list[int]
    """Votes for one reply, for the other (the more frequent first, so that nothing tells the order), ties, both bad; of a ranking on the most
    disputed pair of its replies."""
    num_pairs: int
    """Of its replies; 1 of a pair."""
    num_differ: int
    """Of them, those on which votes differ."""
    disagreement: float
    """Share of pairs of votes that differ; of a ranking the mean over all pairs of its replies."""
    use: str
    num_flags: int
    is_decided: bool


class DisputesShown(BaseModel):
    """A page of the list."""

    disputes: list[DisputeShown]
    num: int
    num_pages: int
    slices: dict[str, list[str]]
    """Fields and values that `field` and `value` may be."""
    num_nobody: int
    """Disputed items that everybody who may decide has voted on: invite another adjudicator."""
    age_s: int


class SaidShown(BaseModel):
    """One vote; who gave it is not told, and letters are drawn anew for every item."""

    rater: str
    words: str
    choice: str
    ratings: str
    rationale: str
    note: str
    """Of a flag."""
    passages: list[dict[str, Any]]
    """That were marked: where, label, quote, note."""
    edit: str
    """A reply as the rater would have it; empty where nothing was edited."""
    guideline_version: int


class CaseShown(BaseModel):
    """A disputed item as this reader sees it: which side is which completion is not said."""

    item: str
    use: str
    prompt: list[TurnShown]
    replies: list[str]
    """From left to right."""
    votes: list[SaidShown]
    options: list[str]
    """Choices that the newest guideline allows; beside a ranking, of three or more replies."""
    criteria: list[dict[str, Any]]
    """By which a decision rates every reply."""
    decided: str
    """The choice that was made, in the frame of this answer; empty before."""
    decided_words: str
    reason: str
    decided_under: int | None
    """Version of the guideline."""
    guideline_version: int
    """The newest."""


class NextCaseShown(BaseModel):
    """The item that comes next."""

    item: str
    """Empty when nothing is left that this person may decide."""
    num_own: int
    """Disputed items that wait for somebody else, for this person voted on them or has them to rate."""
    num_nobody: int
    """Of them, those that everybody who may decide has voted on: invite another adjudicator."""


class DecisionSent(KeySent):
    """What an adjudicator decides, in the frame of the item as it was given."""

    choice: str
    """left, right, tie or both_bad, as the guideline allows; ranked of three or more replies."""
    reason: str
    guideline_version: int
    ranking: list[list[int]] = Field(default_factory=list, max_length=9)
    """Places from the left, best first, equal ones together; of three or more replies."""
    criteria: dict[str, list[int]] = Field(default_factory=dict, max_length=9)
    """By criterion: the rating of the reply at each place."""


class DecidedShown(BaseModel):
    """The receipt."""

    event: int


class OpenSent(Sent):
    """Open or close the discussion to raters."""

    is_open: bool


class DiscussionShown(BaseModel):
    """The disagreements of the newest calibration round."""

    is_open: bool
    cases: list[CaseShown]


@router.get("/projects/{project_id}/disagreements")
def list_disputes(
    who: Who, data: Data, project_id: str, kind: Short = "any", state: Short = "open", use: Short = "all", sort: Short = "disagreement",
    field: Short = "", value: Annotated[str, Query(max_length=300)] = "", flagged: bool = False, page: int = 1,
) -> DisputesShown:  # fmt: skip
    """Items on which votes differ, a page at a time. Filters and sorts are the names of the page: see its error for them."""
    policy.may_adjudicate(who)
    wanted = disputes.Wanted(
        kind=kind, state=state, use=use, sort=sort, field=field, value=value, flagged=flagged, page=page
    )
    with data.read() as rows:
        get_project(rows, project_id)
        num_nobody = num_undecidable(rows, project_id)
    found = disputes.find_disputes(data, project_id, wanted)
    shown = [
        DisputeShown(item=row.item_id, about=row.about, counts=list(row.counts), num_pairs=row.num_pairs,
                     num_differ=row.num_differ, disagreement=row.disagreement, use=row.use,
                     num_flags=row.num_flags, is_decided=row.is_decided)
        for row in found.rows
    ]  # fmt: skip
    slices = {name: list(values) for name, values in found.slices.items()}
    return DisputesShown(
        disputes=shown,
        num=found.num,
        num_pages=found.num_pages,
        slices=slices,
        num_nobody=num_nobody,
        age_s=found.age_s,
    )


@router.get("/projects/{project_id}/adjudicate")
def next_case(who: Who, data: Data, project_id: str, without: Short = "") -> NextCaseShown:
    """The most disputed item that is not decided and that this person neither voted on nor has to rate."""
    policy.may_adjudicate(who)
    with data.read() as rows:
        get_project(rows, project_id)
        waiting = waiting_of(rows, project_id, who.person_id)
    item = adjudication.next_case(data, who, project_id, without=without) or ""
    return NextCaseShown(item=item, num_own=waiting.num_own, num_nobody=waiting.num_nobody)


@router.get("/projects/{project_id}/items/{item_id}")
def get_case(who: Who, data: Data, project_id: str, item_id: str) -> CaseShown:
    """One item with its votes, nobody named."""
    policy.may_adjudicate(who)
    with data.read() as rows:
        get_project(rows, project_id)
        return _shown(rows, who, adjudication.read_case(rows, who, project_id, item_id))


def _shown(rows: Rows, who: Actor, case: Case) -> CaseShown:
    item = rows.get_one(Item, case.item_id)
    whole = texts_of(rows, item)
    texts = [whole.completions[int(digit)].text for digit in order_for(item.id, who.person_id, len(whole.completions))]
    votes = [
        SaidShown(rater=said.name, words=said.words, choice=said.choice, ratings=said.ratings, rationale=said.rationale, note=said.note,
                  passages=plain(said.passages), edit=said.edit, guideline_version=said.guideline_version)
        for said in case.said
    ]  # fmt: skip
    return CaseShown(
        item=case.item_id, use=case.use, prompt=[TurnShown(role=turn.role, content=turn.content) for turn in whole.prompt.messages],
        replies=texts, votes=votes, decided=case.decided, reason=case.reason, decided_under=case.decided_under,
        options=[option.value.rstrip("0123") for option in case.options], criteria=plain(case.rules.criteria), decided_words=case.decided_words,
        guideline_version=case.guideline_version,
    )  # fmt: skip


@router.post("/projects/{project_id}/items/{item_id}/decision")
def decide(who: Who, data: Data, project_id: str, item_id: str, sent: DecisionSent) -> DecidedShown:
    """Record a decision with its reason, or change an earlier one. It replaces no vote."""
    policy.may_adjudicate(who)
    ruling = adjudication.Ruling(
        key=sent.key, choice=sent.choice, reason=sent.reason, guideline_version=sent.guideline_version,
        ranking=tuple(tuple(tied) for tied in sent.ranking), criteria={name: tuple(given) for name, given in sent.criteria.items()},
    )  # fmt: skip
    return DecidedShown(event=adjudication.decide(data, who, project_id, item_id, ruling))


@router.post("/projects/{project_id}/items/{item_id}/revoke", status_code=204)
def revoke(who: Who, data: Data, project_id: str, item_id: str, sent: KeySent) -> None:
    """Take a decision back; the item is open again."""
    policy.may_adjudicate(who)
    adjudication.revoke(data, who, project_id, item_id, key=sent.key)


@router.post("/projects/{project_id}/items/{item_id}/anchor", status_code=204)
def make_anchor(who: Who, data: Data, project_id: str, item_id: str) -> None:
    """Serve a decided pair as a hidden anchor; a repeat is refused."""
    policy.may_change_project(who)
    adjudication.make_anchor(data, who, project_id, item_id)


@router.get("/projects/{project_id}/discussion")
def get_discussion(who: Who, data: Data, project_id: str) -> DiscussionShown:
    """The disagreements of the newest calibration round, most disputed first; for raters once it is open and they have rated the round."""
    policy.may_discuss(who)
    with data.read() as rows:
        get_project(rows, project_id)
        cases = read_discussion(rows, who, project_id)
        return DiscussionShown(is_open=is_open(rows, project_id), cases=[_shown(rows, who, case) for case in cases])


@router.post("/projects/{project_id}/discussion", status_code=204)
def open_discussion(who: Who, data: Data, project_id: str, sent: OpenSent) -> None:
    """Open or close it to raters."""
    policy.may_change_project(who)
    set_discussion(data, project_id, is_open=sent.is_open, by=who.person_id)
