"""Rollouts of several turns: the policy writes one, an environment answers it, the policy goes on.

    turns that ended --> Environment.step --> observations --> ids by the chat template --> engine --> next turns --> ...

A rollout stays one branch of its prompt's tree. Sampled ids are kept as they were sampled and never tokenised again; observations stand
between them, are seen by the model and not kept, so every array of the branch (logprobs, values, advantages) covers the policy's own tokens
alone: no loss, KL or entropy on observations, no place in lengths, and advantages are carried across them undiscounted.

    prompt | turn 1 ... end | observation ... | turn 2 ... end
    kept     1 1 1 1 1   1    0 0 0 0 0 0 0 0   1 1 1 1 1   1

Every turn is a new request whose prompt is all that came before, so the engine prefills it again. All rollouts of a round take their turns
together: the engine is idle while the environment answers.

Example:
    rollouts = sample_rollouts(engine, requests, sampling, group_size=8)
    rollouts = dialogues.go_on(rollouts, engine, sampling)
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from fairlead.core.errors import ConfigError, DataError, explain
from fairlead.core.protocols import Environment, GenerateRequest, Observation, Sample, Sampler, Sampling, Turn
from fairlead.core.records import FinishReason, Message, Prompt
from fairlead.engine.rollouts import Rollout
from fairlead.engine.transcripts import Transcript
from fairlead.text import ChatText
from fairlead.text.packing import Branch, join_choices

Ints = npt.NDArray[np.int64]


class TurnLimits(Protocol):
    """What `core.tool_section.ToolsSection` holds, named here because engines never import recipe classes."""

    @property
    def max_turns(self) -> int: ...
    @property
    def max_observation_tokens(self) -> int: ...
    @property
    def role(self) -> Literal["tool", "user"]: ...
    @property
    def error_penalty(self) -> float: ...


@dataclass(slots=True, kw_only=True, eq=False)
class _Rollout:
    """A rollout while it is written."""

    key: str
    """Of its prompt."""
    sample_index: int
    prompt_ids: Ints
    turns: list[Sample]
    texts: list[Message]
    """Turns and observations."""
    observations: list[Ints] = field(default_factory=list[Ints])
    """Ids between a turn and the next: one less than turns."""
    paid: list[float] = field(default_factory=list[float])
    """At the last token of each turn that was answered."""
    num_cut: int = 0
    num_calls: int = 0
    num_errors: int = 0
    is_at_limit: bool = False
    failure: str = ""

    @property
    def num_written(self) -> int:
        """Tokens that the policy wrote."""
        return sum(len(turn.token_ids) for turn in self.turns)

    @property
    def pieces(self) -> list[Ints]:
        """Turns and observations in order."""
        between = [*self.observations, np.zeros(0, dtype=np.int64)]
        return [ids for turn, after in zip(self.turns, between, strict=False) for ids in (turn.token_ids, after)]


@dataclass(slots=True, kw_only=True, eq=False)
class Dialogues:
    """Carries first turns on to whole rollouts. Holds no state between calls but the clock of the last."""

    section: TurnLimits
    chat: ChatText
    environment: Environment
    prompts: Mapping[str, Prompt]
    """By id, which is the key of every sample."""
    max_new_tokens: int
    """Tokens that a policy may write in all of its turns."""
    heed: Callable[[], None] = lambda: None
    """Called before the environment is asked; raises to stop."""
    environment_s: float = 0.0
    """Seconds that the environment took in the last call."""

    def go_on(self, rollouts: Sequence[Rollout], engine: Sampler, sampling: Sampling) -> list[Rollout]:
        """The same rollouts with all of their turns; one whose first turn calls nothing is as it was."""
        self.environment_s = 0.0
        found = [self._begin(rollout) for rollout in rollouts]
        waiting = [one for row in found for one in row if one.num_written]
        for number in range(1, self.section.max_turns + 1):
            waiting = self._ask(
                [one for one in waiting if self._has_ended(one)], is_last=number == self.section.max_turns
            )
            if not waiting:
                break
            self._write(waiting, engine, sampling, number=number)
        return [self._finished(rollout, row) for rollout, row in zip(rollouts, found, strict=True)]

    def _begin(self, rollout: Rollout) -> list[_Rollout]:
        return [
            _Rollout(key=s.key, sample_index=s.sample_index, prompt_ids=rollout.tree.prompt_ids, turns=[s], texts=[self._said(s)])
            for s in rollout.samples
        ]  # fmt: skip

    def _said(self, sample: Sample) -> Message:
        return Message(role="assistant", content=self.chat.decode(sample.token_ids))

    def _has_ended(self, one: _Rollout) -> bool:
        """Whether its last turn was ended by the policy and the conversation was not: an end of text ends that too."""
        last = one.turns[-1]
        return (
            last.finish_reason == "stop"
            and len(last.token_ids) > 0
            and int(last.token_ids[-1]) == self.chat.terminator_id
        )

    def _ask(self, ended: Sequence[_Rollout], *, is_last: bool) -> list[_Rollout]:
        """Put the last turns to the environment; the rollouts that go on, each with its observation."""
        if not ended:
            return []
        self.heed()
        started = time.monotonic()
        turns = [
            Turn(prompt=self.prompts[one.key], messages=tuple(one.texts[:-1]), text=one.texts[-1].content)
            for one in ended
        ]
        answers = self.environment.step(turns)
        self.environment_s += time.monotonic() - started
        said = [self._take(one, answer, is_last=is_last) for one, answer in zip(ended, answers, strict=True)]
        going = [one for one, text in zip(ended, said, strict=True) if text is not None]
        for one, (text, ids, is_cut) in zip(
            going, self._observed(going, [t for t in said if t is not None]), strict=True
        ):
            one.texts.append(Message(role=self.section.role, content=text))
            one.observations.append(ids)
            one.num_cut += is_cut
        return going

    def _take(self, one: _Rollout, answer: Observation, *, is_last: bool) -> str | None:
        """Note what the environment says of a turn; the observation with which the rollout goes on, None when it is over."""
        one.num_calls += answer.num_calls
        one.num_errors += answer.num_errors
        one.paid.append(answer.reward - self.section.error_penalty * answer.num_errors)
        one.failure = answer.failure
        if answer.failure or answer.is_done or answer.text is None:
            return None
        one.is_at_limit = is_last or one.num_written >= self.max_new_tokens
        return None if one.is_at_limit else self.chat.without_special(answer.text)

    def _observed(self, going: Sequence[_Rollout], texts: Sequence[str]) -> list[tuple[str, Ints, bool]]:
        """Text and ids of each observation, and whether it was cut to the longest that is allowed."""
        before = [(*self.prompts[one.key].messages, *one.texts[:-1]) for one in going]
        encoded = self._encode(before, texts)
        return [self._fitted(*row) for row in zip(before, texts, encoded, strict=True)]

    def _encode(self, before: Sequence[Sequence[Message]], texts: Sequence[str]) -> list[Ints]:
        rows = [
            (messages, (Message(role=self.section.role, content=text),))
            for messages, text in zip(before, texts, strict=True)
        ]
        return self.chat.encode_between(rows)

    def _fitted(self, before: Sequence[Message], text: str, ids: Ints) -> tuple[str, Ints, bool]:
        limit = self.section.max_observation_tokens
        if len(ids) <= limit:
            return text, ids, False
        num_chars = len(text)
        while len(ids) > limit and num_chars:  # the template's words around it stay whole
            num_chars = min(num_chars - 1, num_chars * limit // len(ids))
            (ids,) = self._encode([before], [text[:num_chars]])
        return text[:num_chars], ids, True

    def _write(self, going: Sequence[_Rollout], engine: Sampler, sampling: Sampling, *, number: int) -> None:
        """Sample the next turn of each, with seeds of its own."""
        requests = [
            GenerateRequest(key=f"{one.key}/{one.sample_index}/{number}", max_new_tokens=self.max_new_tokens - one.num_written,
                            token_ids=tuple(np.concatenate([one.prompt_ids, *one.pieces]).tolist()))
            for one in going
        ]  # fmt: skip
        found = {sample.key: sample for sample in engine.generate(requests, sampling)}
        for one, request in zip(going, requests, strict=True):
            sample = found[request.key]
            if len(sample.token_ids) == 0:  # nothing was said to the observation, so nothing learns from it
                one.observations.pop()
                one.texts.pop()
                continue
            one.turns.append(sample)
            one.texts.append(self._said(sample))

    def _finished(self, rollout: Rollout, row: Sequence[_Rollout]) -> Rollout:
        """The rollout with whole branches, and with samples of the policy's own tokens."""
        branches = tuple(
            branch if len(one.turns) == 1 else _branch(one)
            for one, branch in zip(row, rollout.tree.branches, strict=True)
        )
        return replace(
            rollout,
            tree=replace(rollout.tree, branches=branches),
            samples=tuple(_sample(one) for one in row),
            transcripts=tuple(_transcript(one) for one in row),
        )


def _branch(one: _Rollout) -> Branch:
    pieces = one.pieces[:-1]
    kept = np.concatenate([np.full(len(ids), i % 2 == 0) for i, ids in enumerate(pieces)])
    logprobs = np.concatenate([turn.sampling_logprobs for turn in one.turns])
    choices = [turn.choices for turn in one.turns if turn.choices is not None]
    return Branch(
        token_ids=np.concatenate(pieces),
        kept=kept,
        choices=join_choices(choices) if choices else None,
        arrays={"sampling_logprobs": logprobs, "old_logprobs": logprobs},
    )


def _sample(one: _Rollout) -> Sample:
    """What the policy wrote as one sample; cut off when its last turn is, or when it could not go on."""
    first, last = one.turns[0], one.turns[-1]
    reason: FinishReason = "length" if one.is_at_limit else last.finish_reason
    if len(one.turns) == 1:
        return first if reason == first.finish_reason else replace(first, finish_reason=reason)
    spans: list[tuple[int, int, int]] = []
    start = 0
    for turn in one.turns:
        for version, begin, end in turn.policy_versions:
            if spans and spans[-1][0] == version:
                spans[-1] = (version, spans[-1][1], start + end)
            else:
                spans.append((version, start + begin, start + end))
        start += len(turn.token_ids)
    return Sample(
        key=one.key, sample_index=one.sample_index, token_ids=np.concatenate([turn.token_ids for turn in one.turns]),
        sampling_logprobs=np.concatenate([turn.sampling_logprobs for turn in one.turns]), finish_reason=reason, policy_versions=tuple(spans),
    )  # fmt: skip


def _transcript(one: _Rollout) -> Transcript:
    paid = np.zeros(one.num_written)
    ends = np.cumsum([len(turn.token_ids) for turn in one.turns]) - 1
    paid[ends[: len(one.paid)]] = one.paid
    return Transcript(
        messages=tuple(one.texts), paid=paid, num_observation_tokens=sum(map(len, one.observations)), num_cut=one.num_cut,
        num_calls=one.num_calls, num_errors=one.num_errors, is_at_limit=one.is_at_limit, failure=one.failure,
    )  # fmt: skip


def check_template(section: TurnLimits, chat: ChatText, prompt: Prompt) -> None:
    """Before anything is sampled: the template has a place for observations, and the longest that is allowed has room for it.

    Raises:
        ConfigError: names the key to change.
    """
    role = section.role
    try:
        rows = [(prompt.messages, (Message(role=role, content=text),)) for text in ("", "it says")]
        empty, probe = chat.encode_between(rows)
    except DataError as error:
        raise ConfigError(explain("tools.role", role, f"cannot be written by the chat template ({error})", expected="a role that it knows",
                                  remedy="Set tools.role: user, or text.template: chatml")) from error  # fmt: skip
    if len(probe) == len(empty):
        raise ConfigError(explain("tools.role", role, "is left out by the chat template", expected="a role that it knows",
                                  remedy="Set tools.role: user, or text.template: chatml"))  # fmt: skip
    if len(empty) >= section.max_observation_tokens:
        raise ConfigError(explain("tools.max_observation_tokens", section.max_observation_tokens, f"is filled by the chat template, which writes "
                                  f"{len(empty)} tokens around an observation", expected=f"> {len(empty)}", remedy="Raise it"))  # fmt: skip
