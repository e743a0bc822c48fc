"""How a project steers its raters: hidden anchors, calibration again and again, how far work may go before it is proven.

The settings are a row of the project; each change is an event with what changed and why. Raising the votes of an item, or the raters
beyond the pilot, is scaling: it asks for a kappa above 0.6 or for a reason, which is kept.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from fairlead.core.gates import percent
from fairlead.feedback.anchors import MAX_SHARE, MIN_SHARE, AnchorRule
from fairlead.feedback.recalibration import RecalibrationRule, may_scale
from fairlead.stats.intervals import Interval, undefined
from fairlead.stats.sampling import MIN_RANDOM_SHARE
from fairlead.store.annotation.database import Database, Rows
from fairlead.store.annotation.schema import Progress, Project
from fairlead.store.annotation.steering import Look, Rater
from fairlead.web.errors import invalid
from fairlead.web.events import record
from fairlead.web.projects import MAX_REASON, get_project

CHANGED, SCALED = "project.settings", "project.scaled"
MAX_VOTES = 100
_RATER = sa.select(Rater).where(Rater.project_id == sa.bindparam("project"), Rater.person_id == sa.bindparam("person"))
SITTING_MS = 30 * 60 * 1000
"""A break after which a rater's next item begins a new sitting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Steering:
    """Settings of one project."""

    anchor_share: float = AnchorRule().share
    """Of a rater's items; 0 for none."""
    every_items: int = RecalibrationRule().every_items
    """Items of a rater after which everybody calibrates again; 0 for never."""
    every_days: int = int(RecalibrationRule().every_days)
    """Days after which everybody calibrates again; 0 for never."""
    cap_before_round: int = 50
    """Production items of each rater until the project's first round passes."""
    pilot_raters: int = 10
    """Raters who may begin production before the project is scaled."""
    matches: bool = True
    """Do items go only to raters who have the language and skills that they ask for?"""
    test_items: int = 20
    """Pairs of the test of a language or skill."""
    test_share: float = 0.8
    """Of right answers that passes it."""
    random_share: float = 1.0
    """Of pairs that are opened at random; below 1 the others are chosen actively (`choosing`)."""
    choice_batch: int = 100
    """Pairs that are opened together while they are chosen actively."""
    scaled_because: str = ""
    """Why more raters than the pilot's may begin: a kappa, or somebody's reason. Empty until then."""

    def __post_init__(self) -> None:
        if self.anchor_share and not MIN_SHARE <= self.anchor_share <= MAX_SHARE:
            raise invalid(f"The share of anchors is {self.anchor_share:g}. Choose {MIN_SHARE:g} to {MAX_SHARE:g}, or 0 for none.")  # fmt: skip
        if not 1 <= self.test_items <= 200 or not 0.5 <= self.test_share <= 1:
            raise invalid(
                f"A test of {self.test_items} pairs that {percent(self.test_share)} right pass is none. Choose 1 to 200 pairs, and 50 to 100 %."
            )
        if not MIN_RANDOM_SHARE <= self.random_share <= 1 or not 5 <= self.choice_batch <= 10_000:
            raise invalid(
                f"{percent(self.random_share)} at random in batches of {self.choice_batch} cannot be. Choose 20 to 100 %, and 5 to 10,000 pairs."
            )
        for name in ("every_items", "every_days", "cap_before_round", "pilot_raters"):
            if not 0 <= getattr(self, name) <= 1_000_000:
                raise invalid(f"{name} is {getattr(self, name)}. Choose a number from 0 to 1,000,000.")

    @property
    def anchors(self) -> AnchorRule | None:
        """Where anchors stand; None when there are to be none."""
        return AnchorRule(share=self.anchor_share) if self.anchor_share else None

    def stored(self) -> dict[str, Any]:
        """What differs from the defaults."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value != getattr(Steering(), name)}


def steering_of(project: Project) -> Steering:
    """The settings of a project."""
    return Steering(**project.steering)


def known_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as a program or the command line names them, each of the type that it has.

    Raises:
        Refused: there is no such setting, or the value is not of its type.
    """
    types = {each.name: type(each.default) for each in dataclasses.fields(Steering) if each.name != "scaled_because"}
    found: dict[str, Any] = {}
    for name, value in values.items():
        if name not in types:
            raise invalid(f"{name} is no setting. Choose one of {', '.join(types)}.")
        if (
            isinstance(value, bool) is not (types[name] is bool)
            or not isinstance(value, (bool, int, float))
            or (types[name] is int and value != int(value))
        ):
            raise invalid(f"{name}={value} is no {types[name].__name__}. The default is {getattr(Steering(), name)}.")
        found[name] = types[name](value)
    return found


def change_settings(
    database: Database,
    project_id: str,
    *,
    by: str | None,
    votes_per_item: int,
    reason: str = "",
    **changes: float | bool,
) -> None:
    """Set what steers a project. More votes an item is scaling, and asks for a kappa above 0.6 or a reason.

    Args:
        changes: fields of `Steering`.
    Raises:
        Refused: a value that cannot be, or scaling without either.
    """
    if not 1 <= votes_per_item <= MAX_VOTES:
        raise invalid(f"Votes an item are {votes_per_item}. Choose 1 to {MAX_VOTES}.")
    with database.write() as rows:
        project = get_project(rows, project_id)
        before = steering_of(project)
        after = dataclasses.replace(before, **changes)  # pyright: ignore[reportArgumentType] - numbers, checked at construction
        content: dict[str, Any] = {"before": before.stored(), "after": after.stored(), "votes_per_item": votes_per_item}
        more = votes_per_item - project.votes_per_item
        if more > 0:
            content["scaled_because"] = _permission_to_scale(rows, project_id, reason)
        record(rows, CHANGED, person_id=by, project_id=project_id, content=content)
        project.steering, project.votes_per_item = after.stored(), votes_per_item
        if more:
            rows.execute(sa.update(Progress).where(Progress.project_id == project_id, Progress.use == "production")
                         .values(num_lacking=Progress.num_lacking + more))  # fmt: skip


def scale(database: Database, project_id: str, *, by: str | None, reason: str = "") -> None:
    """Let more raters than the pilot's into production: with a kappa above 0.6, or with a reason that is kept."""
    with database.write() as rows:
        project = get_project(rows, project_id)
        because = _permission_to_scale(rows, project_id, reason)
        record(rows, SCALED, person_id=by, project_id=project_id, content={"because": because})
        project.steering = dataclasses.replace(steering_of(project), scaled_because=because).stored()


def _permission_to_scale(rows: Rows, project_id: str, reason: str) -> str:
    if len(reason) > MAX_REASON or "\0" in reason:
        raise invalid(f"The reason is too long. Shorten it to {MAX_REASON} characters.")
    permission = may_scale(last_kappa(rows, project_id), override=reason)
    if not permission.is_granted:
        raise invalid(
            f"{permission.reason[0].upper()}{permission.reason[1:]}. Wait for it, or write why to scale without."
        )
    return permission.reason


def last_kappa(rows: Rows, project_id: str) -> Interval:
    """The rolling kappa as it was last computed."""
    look = rows.get(Look, project_id)
    found = look.found.get("kappa") if look is not None else None
    return undefined("not computed yet", n=0) if found is None else Interval(found["value"], found["low"], found["high"], found["n"], "")  # fmt: skip


def rater_of(rows: Rows, project_id: str, person_id: str) -> Rater:
    """The row of a rater in a project; a new one where there is none."""
    found = rows.scalar(_RATER, {"project": project_id, "person": person_id})
    if found is None:
        found = Rater(project_id=project_id, person_id=person_id, num_given=0, side_lead=0, num_production=0, sitting=0, place=0, given_at=0,
                      num_missed=0, passed_round=0, is_waived=False, items_since=0)  # fmt: skip
        rows.add(found)
        rows.flush()
    return found


def forget_derived(rows: Rows) -> None:
    """Before a replay: what events say of raters is unknown."""
    rows.execute(sa.update(Rater).values(passed_round=0, is_waived=False))
