"""The fields of the rating form to a submission. Names of fields: `rank_0` is the place given to what stands leftmost,
`rate_helpfulness_0` its rating; marked passages come from scripts, as JSON."""

import json
import re
from typing import Annotated, Any, cast

from fastapi import Depends, Request
from starlette.datastructures import FormData

from fairlead.web.answers import Choice, Edit, Span, Submission
from fairlead.web.errors import invalid

_CHOICE = re.compile(r"(left|right)([0-3])|tie|ranked|both_bad|skip")
_RANK, _RATE = re.compile(r"rank_([0-8])"), re.compile(r"rate_([a-z][a-z0-9_]{0,29})_([0-8])")
_KEPT = re.compile(rf"rationale|choice|edit_place|edit_text|spans|{_RANK.pattern}|{_RATE.pattern}")
"""Fields of a draft."""
_MAX_FIELDS = 100
"""More than nine replies with places and three criteria give."""


async def posted(request: Request) -> FormData:
    """The fields of a form whose names depend on the guideline; files are refused."""
    return await request.form(max_files=0)


Posted = Annotated[FormData, Depends(posted)]


def text_of(form: FormData, name: str, default: str = "") -> str:
    """A field as text with plain line ends."""
    found = form.get(name, default)
    if not isinstance(found, str):
        raise invalid("The form holds a file. Load the page again.")
    return found.replace("\r\n", "\n")


def _number(form: FormData, name: str) -> int | None:
    text = text_of(form, name)
    if not text:
        return None
    if not re.fullmatch(r"-?[0-9]{1,12}", text):
        raise invalid(f"{name} is {text[:20]}, which is no number. Load the page again.")
    return int(text)


def read_submission(form: FormData) -> Submission:
    """What was answered.

    Raises:
        Refused: nothing was chosen, or a field is not what it should be.
    """
    if len(form) > _MAX_FIELDS:
        raise invalid("The form has too many fields. Load the page again.")
    ranking = _ranking(form)
    choice = text_of(form, "choice") or ("ranked" if ranking else "")
    found = _CHOICE.fullmatch(choice)
    version = _number(form, "guideline_version")
    if found is None or version is None:
        raise invalid("No verdict was chosen. Choose one and send again.")
    is_skip = choice == "skip"
    return Submission(
        key=text_of(form, "key"), choice=cast(Choice, found[1] or choice), strength=int(found[2] or 0), guideline_version=version,
        ranking=ranking if choice == "ranked" else (), criteria={} if is_skip else _criteria(form), spans=() if is_skip else _spans(form),
        edit=None if is_skip else _edit(form), rationale=text_of(form, "rationale"), skip_reason=text_of(form, "skip_reason") if is_skip else "",
        active_ms=_number(form, "active_ms"), first_key_ms=_number(form, "first_key_ms"),
    )  # fmt: skip


def _ranking(form: FormData) -> tuple[tuple[int, ...], ...]:
    """Places by the reply to replies by place; gaps do not count, so 1, 3, 3 is the same as 1, 2, 2."""
    by_rank: dict[int, list[int]] = {}
    for name in form:
        if (found := _RANK.fullmatch(name)) and (rank := _number(form, name)) is not None:
            by_rank.setdefault(rank, []).append(int(found[1]))
    return tuple(tuple(sorted(by_rank[rank])) for rank in sorted(by_rank))


def _criteria(form: FormData) -> dict[str, tuple[int, ...]]:
    found: dict[str, dict[int, int]] = {}
    for name in form:
        if (match := _RATE.fullmatch(name)) and (rating := _number(form, name)) is not None:
            found.setdefault(match[1], {})[int(match[2])] = rating
    return {name: tuple(ratings[place] for place in sorted(ratings)) for name, ratings in sorted(found.items())}


def _spans(form: FormData) -> tuple[Span, ...]:
    text = text_of(form, "spans")
    if not text:
        return ()
    try:
        rows = json.loads(text)
        return tuple(_span(row) for row in rows)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise invalid("The marked passages cannot be read. Mark them again.") from error


def _span(row: dict[str, Any]) -> Span:
    numbers, words = [row[name] for name in ("place", "start", "end")], [row["label"], row.get("note", "")]
    if not all(type(number) is int for number in numbers) or not all(isinstance(word, str) for word in words):
        raise TypeError("a passage has a field of another type")
    return Span(place=numbers[0], start=numbers[1], end=numbers[2], label=words[0], note=words[1])


def _edit(form: FormData) -> Edit | None:
    place, text = _number(form, "edit_place"), text_of(form, "edit_text")
    return None if place is None or not text.strip() else Edit(place=place, text=text)


def read_draft(form: FormData) -> dict[str, str]:
    """The fields that are kept while they are written."""
    return {name: text_of(form, name) for name in list(form)[:_MAX_FIELDS] if _KEPT.fullmatch(name)}
