"""OpenAI's ratings: axis evaluations of summaries, and WebGPT comparisons, whose two answers have a score each."""

from collections.abc import Iterator, Sequence
from typing import Any

from fairlead.core.io import Row
from fairlead.core.records import Messages, Preference
from fairlead.formats.base import Format, Gathered, Item, LeftOut, Pairing, Unusable, Values, mostly
from fairlead.formats.comparisons import compared, openai_prompt, split_of
from fairlead.formats.conversations import prompts_by, user
from fairlead.formats.fields import keep, mapping, number, text
from fairlead.formats.ranking import Candidate, ranked_preferences


def _gather_posts(rows: Sequence[Row]) -> Iterator[Gathered]:
    """All ratings of the summaries of one post, which stand anywhere in a file; rows without a rating belong to no post."""
    posts: dict[Messages, list[tuple[Row, dict[str, Any]]]] = {}
    for row in rows:
        try:
            prompt, rating = openai_prompt(row.values), _rating(row.values)
        except Unusable as fault:
            yield Gathered(members=[row], row=None, left_out=[LeftOut(reason=str(fault), row=row)])
        else:
            posts.setdefault(prompt, []).append((row, rating))
    for ratings in posts.values():
        members = [row for row, _ in ratings]
        first = members[0]
        yield Gathered(
            members=members,
            row=Row(first.where, first.number, {**first.values, "ratings": [rating for _, rating in ratings]}),
        )


def _rating(values: Values) -> dict[str, Any]:
    summary = mapping(values.get("summary"), "summary")
    overall = number(mapping(summary.get("axes"), "axes").get("overall"))
    if overall is None:
        raise Unusable("no overall rating")
    return {"text": text(summary, "text"), "overall": overall, "policy": keep(summary, "policy").get("policy", "")}


def _read_axis(row: Row, *, pairs: Pairing = "all") -> list[Item]:
    """Pairs of the distinct summaries of a post by their mean overall rating."""
    prompt = openai_prompt(row.values)
    by_text: dict[str, list[dict[str, Any]]] = {}
    for rating in row.values["ratings"]:
        by_text.setdefault(rating["text"], []).append(rating)
    candidates: list[Candidate] = []
    for summary, ratings in by_text.items():
        score = sum(rating["overall"] for rating in ratings) / len(ratings)
        meta = {"policy": ratings[0]["policy"], "score": score, "num_ratings": len(ratings)}
        candidates.append(Candidate(text=summary, score=score, meta=meta))
    return ranked_preferences(prompt, candidates, pairs=pairs, split=split_of(row.values))


def _question(values: Values) -> Messages:
    return user(text(mapping(values.get("question"), "question"), "full_text"))


def _read_webgpt(row: Row) -> list[Item]:
    values = row.values
    first, second = (number(values.get(name)) for name in ("score_0", "score_1"))
    if first is None or second is None:
        raise Unusable("score_0 or score_1 is not a number")
    pair = Preference(
        prompt=_question(values), chosen=text(values, "answer_0"), rejected=text(values, "answer_1"), num_votes=1,
        meta=keep(values, "score_0", "score_1") | keep(mapping(values["question"], "question"), "dataset", "id"),
    )  # fmt: skip
    return [compared(pair, "tie" if first == second else "a" if first > second else "b")]


OPENAI_AXIS = Format(
    name="openai_axis", kind="preferences", detect=mostly(lambda v: {"info", "summary"} <= set(v) and isinstance(v["summary"], dict)),
    read=_read_axis, gather=_gather_posts, also={"prompts": prompts_by(openai_prompt)},
    pairings=("all", "adjacent", "best_vs_each", "best_vs_worst"),
    doc="OpenAI axis evaluations: one rated `summary` a row; the summaries of one post are ranked by their mean overall rating.",
)  # fmt: skip
WEBGPT = Format(
    name="webgpt", kind="preferences", read=_read_webgpt,
    detect=mostly(lambda v: {"question", "answer_0", "answer_1", "score_0", "score_1"} <= set(v)), also={"prompts": prompts_by(_question)},
    doc="WebGPT comparisons: `answer_0`, `answer_1` and their scores; equal scores are ties. The quotes stay behind.",
)  # fmt: skip
