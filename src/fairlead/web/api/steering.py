"""Who rates what, for programs: settings, the active choice of pairs, scores of a reward model, more votes for single pairs."""

import dataclasses
from typing import Annotated

from fastapi import APIRouter, Body

from fairlead.web import drift, policy, projects, scoring, steering
from fairlead.web.api.access import Data, Who
from fairlead.web.api.models import (  # fmt: skip
    ArmShown,
    ChoiceShown,
    MoreVotesSent,
    ScoreSent,
    ScoresShown,
    SteeringSent,
    SteeringShown,
)
from fairlead.web.errors import invalid
from fairlead.web.inclusion import choice_state
from fairlead.web.steering_status import steering_status

router = APIRouter(tags=["steering"])
Scores = Annotated[list[ScoreSent], Body(max_length=20_000)]


@router.get("/projects/{project_id}/steering")
def get_steering(who: Who, data: Data, project_id: str) -> SteeringShown:
    """The settings that steer who rates what, and how it stands."""
    policy.may_see_votes(who)
    with data.read() as rows:
        project = projects.get_project(rows, project_id)
        return SteeringShown(
            votes_per_item=project.votes_per_item,
            settings=dataclasses.asdict(steering.steering_of(project)),
            status=steering_status(rows, project),
        )


@router.post("/projects/{project_id}/steering")
def change_steering(who: Who, data: Data, project_id: str, sent: SteeringSent) -> SteeringShown:
    """Change some of them; the rest stays. More votes an item need a kappa above 0.6 or a reason."""
    policy.may_change_project(who)
    with data.read() as rows:
        votes = projects.get_project(rows, project_id).votes_per_item
    steering.change_settings(data, project_id, by=who.person_id, votes_per_item=sent.votes_per_item or votes, reason=sent.reason,
                             **steering.known_settings(sent.settings))  # fmt: skip
    return get_steering(who, data, project_id)


@router.get("/projects/{project_id}/choice")
def get_choice(who: Who, data: Data, project_id: str) -> ChoiceShown:
    """How the active choice of pairs goes: pairs by arm."""
    policy.may_see_votes(who)
    with data.read() as rows:
        found = choice_state(rows, projects.get_project(rows, project_id))
    arms = [ArmShown(name=arm.name, num_chosen=arm.num_chosen, num_rated=arm.num_rated, num_twice=arm.differ.n,
                     differ=arm.differ.value if arm.differ.n else None) for arm in found.arms]  # fmt: skip
    return ChoiceShown(is_on=found.is_on, num_batches=found.num_batches, num_scores=found.num_scores, arms=arms)


@router.post("/projects/{project_id}/scores")
def put_scores(who: Who, data: Data, project_id: str, sent: Scores) -> ScoresShown:
    """Say what a reward model thinks of completions, named by id or by their whole text."""
    policy.may_import(who)
    if any(bool(each.completion_id) == bool(each.completion) for each in sent):
        raise invalid("A score names no completion, or names it twice. Send completion_id, or completion with the whole text.")  # fmt: skip
    given = [scoring.GivenScore(completion_id=each.completion_id, text=each.completion, value=each.score) for each in sent]  # fmt: skip
    put = scoring.put_scores(data, project_id, given, by=who.person_id)
    return ScoresShown(num_scores=put.num_scores, num_unknown=put.num_unknown)


@router.post("/projects/{project_id}/more-votes", status_code=204)
def ask_more_votes(who: Who, data: Data, project_id: str, sent: MoreVotesSent) -> None:
    """Ask more votes for single pairs than the project does."""
    policy.may_change_project(who)
    drift.ask_more_votes(
        data, project_id, sent.items, extra=sent.extra, by=who.person_id, reason=sent.reason, key=sent.key
    )
