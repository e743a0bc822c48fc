"""Environments in worker processes: an answer that is slow, eats memory or crashes costs its own rollout, never the run.

Example:
    environment = make_environment(section.environments, say=print)      # a core.protocols.Environment
    environment.step(turns)
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from fairlead.core.protocols import Observation, Turn
from fairlead.core.records import to_dict
from fairlead.core.tool_section import CustomEnvironmentSection, EnvironmentSection
from fairlead.rewards.environments.registry import build_answerer
from fairlead.rewards.pool import Job, Outcome, WorkerPool


@dataclass(slots=True, kw_only=True, eq=False)
class PooledEnvironment:
    """A `core.protocols.Environment`. Its state is the workers' alone."""

    sections: Sequence[EnvironmentSection]
    pool: WorkerPool
    say: Callable[[str], None]
    _said: set[str] = field(default_factory=set[str], init=False, repr=False)

    def step(self, turns: Sequence[Turn]) -> list[Observation]:
        """What all environments say to each turn, joined; one that failed on it makes the whole a failure.

        Raises:
            EngineError: workers do not start.
        """
        places = [
            (i, section) for i, turn in enumerate(turns) for section in self.sections if _may_answer(section, turn.text)
        ]
        outcomes = self.pool.run([_job(section, turns[i]) for i, section in places])
        answers: list[list[Observation]] = [[] for _ in turns]
        for (i, section), outcome in zip(places, outcomes, strict=True):
            if outcome.failure:
                self._tell(section.kind, outcome)
                answers[i].append(Observation(failure=f"{section.kind}: {outcome.failure}: {outcome.detail}"))
            elif outcome.answer is not None:
                answers[i].append(Observation(**outcome.answer))
        return [join_observations(found) for found in answers]

    def _tell(self, kind: str, outcome: Outcome) -> None:
        """Say it once; the metric counts the rest."""
        if kind not in self._said:
            self._said.add(kind)
            self.say(
                f"tools.environments: {kind} failed on a turn ({outcome.failure}: {outcome.detail}), so its rollout is dropped. "
                "Said once; rl/tool_failed counts them."
            )


def make_environment(sections: Sequence[EnvironmentSection], *, say: Callable[[str], None]) -> PooledEnvironment:
    """The environment of a recipe; each of its parts is built here once, so that what it needs is known to be there.

    Raises:
        ConfigError: what a part needs is not there.
    """
    for section in sections:
        build_answerer(section)
    return PooledEnvironment(sections=sections, pool=WorkerPool(), say=say)


def join_observations(found: Sequence[Observation]) -> Observation:
    """Several answers to one turn as one."""
    failures = [one.failure for one in found if one.failure]
    if failures:
        return Observation(failure="; ".join(failures))
    texts = [one.text for one in found if one.text is not None]
    return Observation(
        text="\n".join(texts) if texts else None, is_done=any(one.is_done for one in found), reward=sum(one.reward for one in found),
        num_calls=sum(one.num_calls for one in found), num_errors=sum(one.num_errors for one in found),
    )  # fmt: skip


def _may_answer(section: EnvironmentSection, text: str) -> bool:
    """False where a look at the text is enough to know that it has nothing to say."""
    return isinstance(section, CustomEnvironmentSection) or f"<{section.tag}>" in text


def _job(section: EnvironmentSection, turn: Turn) -> Job:
    said: Mapping[str, Any] = {"messages": [asdict(message) for message in turn.messages], "text": turn.text}
    return Job(
        kind="answer",
        spec=section.model_dump(mode="json"),
        prompt=to_dict(turn.prompt),
        given=said,
        timeout_s=section.timeout_s,
    )
