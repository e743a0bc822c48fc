"""Training one reward model: the only one, or a member of an ensemble with its own data, seed and checkpoint.

Example:
    for member in plan_members(config, trees, seed=services.seed):
        trained = train_member(config, model, member, data, out=out, services=services)
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fairlead.core.errors import DataError, explain
from fairlead.core.services import Services
from fairlead.models.heads import MEMBER_FOLDER, ScalarModel
from fairlead.rewards import quality
from fairlead.rewards.config import RewardsConfig
from fairlead.rewards.data import Data
from fairlead.text import Tree
from fairlead.text.columns import TreeView
from fairlead.text.examples import prompt_keys
from fairlead.train.batches import EpochBatches, num_steps
from fairlead.train.forward import Models, score_trees
from fairlead.train.hooks import Session
from fairlead.train.identity import data_fingerprint
from fairlead.train.loop import run_loop
from fairlead.train.memory import largest_tree
from fairlead.train.setup import alert_rules, checkpoint_rule, make_learner
from fairlead.train.views import NUM_HEADS, head_weight

History = list[tuple[float, float, float]]
"""(step, training accuracy, held-out accuracy); the former is NaN for losses that know no pairs."""

_METRICS = {"regression": "reward/squared_error"}
_DRAW, _HEADS = 1, 2  # streams of random numbers
_BY_PROMPT = ("bootstrap", "disjoint", "heads")  # kinds that divide or weigh the data


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Member:
    """What one model is trained on."""

    number: int
    """From 0."""
    of: int
    trees: Sequence[Tree]
    seed: int
    """Of the order of the data."""
    head_seed: int

    @property
    def title(self) -> str:
        """For the progress line."""
        return "reward model" if self.of == 1 else f"reward model {self.number + 1} of {self.of}"


def plan_members(config: RewardsConfig, trees: Sequence[Tree], *, seed: int) -> list[Member]:
    """The models to train, a pure function of its arguments; the first (or only) one has the run's own seed.

    Data is divided by prompt: a prompt that one member knows and another does not is what makes them differ where prompts are new.

    Raises:
        DataError: fewer prompts than members to split them over.
    """
    kind, size = config.ensemble.kind, config.ensemble.num_models
    prompts = _by_prompt(trees) if kind in _BY_PROMPT else []
    if kind == "disjoint" and len(prompts) < size:
        raise DataError(explain("rewards.ensemble.size", size, f"is more than the {len(prompts)} prompts to split", expected="a prompt a member",
                                remedy="Lower size or use kind bootstrap"))  # fmt: skip
    members: list[Member] = []
    for i in range(size):
        own = seed if i == 0 else int(np.random.SeedSequence((seed, i)).generate_state(1)[0])
        head_seed = seed if config.ensemble.combine == "weights" else own  # models are averaged that started as one
        members.append(
            Member(number=i, of=size, trees=_share(kind, trees, prompts, i, size, seed), seed=own, head_seed=head_seed)
        )
    if kind == "heads":
        members = [
            dataclasses.replace(members[0], trees=_with_head_weights(trees, prompts, config.ensemble.size, seed))
        ]
    return members


def _by_prompt(trees: Sequence[Tree]) -> list[list[int]]:
    """Numbers of the trees of every prompt, in order of appearance."""
    found: dict[bytes, list[int]] = {}
    for i, key in enumerate(prompt_keys(trees)):
        found.setdefault(key, []).append(i)
    return list(found.values())


def _share(
    kind: str, trees: Sequence[Tree], prompts: Sequence[Sequence[int]], member: int, size: int, seed: int
) -> Sequence[Tree]:
    """The trees of one member."""
    if kind == "bootstrap":
        drawn = np.random.default_rng((seed, _DRAW, member)).integers(0, len(prompts), len(prompts))
    elif kind == "disjoint":
        drawn = np.random.default_rng((seed, _DRAW)).permutation(len(prompts))[member::size]
    else:
        return trees
    return TreeView(trees, order=np.array([i for p in np.sort(drawn) for i in prompts[p]], dtype=np.int64))


def _with_head_weights(
    trees: Sequence[Tree], prompts: Sequence[Sequence[int]], num_heads: int, seed: int
) -> Sequence[Tree]:
    """A weight for every prompt and head, drawn from Exp(1): the Bayesian bootstrap (Rubin 1981), in which no prompt is ever left out."""
    weights = np.random.default_rng((seed, _HEADS)).exponential(size=(len(prompts), num_heads))
    prompt_of = np.zeros(len(trees), dtype=np.int64)
    for number, members in enumerate(prompts):
        prompt_of[members] = number

    def weighed(tree: Tree, place: int) -> Tree:
        row = weights[prompt_of[place]]
        own = {head_weight(head): float(weight) for head, weight in enumerate(row)} | {NUM_HEADS: float(num_heads)}
        return dataclasses.replace(tree, numbers={**tree.numbers, **own})

    return TreeView(trees, change=weighed)


def train_member(
    config: RewardsConfig, model: ScalarModel, member: Member, data: Data, *, out: Path, services: Services
) -> Session:
    """Optimise; `history` of the session's extras holds [step, training accuracy or None, held-out accuracy] along the way.

    A member that an earlier run finished comes back from its checkpoint.
    """
    algo, algo_config = config.algorithm()
    training = config.training
    steps = num_steps(len(member.trees), batch_size=training.batch_size, num_epochs=training.num_epochs)
    learner = make_learner(Models(reward=model), algo, algo_config, training, num_steps=steps,
                           largest=largest_tree(member.trees), say=services.say)  # fmt: skip
    source = EpochBatches(
        member.trees, batch_size=training.batch_size, num_epochs=training.num_epochs, seed=member.seed
    )
    every = max(1, steps // 6)
    work, metrics_path = services.work, out / "metrics.jsonl"
    if member.number:
        work = services.work / MEMBER_FOLDER.format(member.number)
        work.mkdir(parents=True, exist_ok=True)
        metrics_path = out / f"metrics-{member.number}.jsonl"
    session = Session(
        learner, services=dataclasses.replace(services, work=work), title=member.title, metric=_METRICS.get(config.loss, "reward/accuracy"),
        metrics_path=metrics_path, extra={"history": [], "recent": []}, rule=checkpoint_rule(training),
        rules=alert_rules(training), data=data_fingerprint(member.trees),
    )  # fmt: skip

    def measure(_learner: Any, metrics: dict[str, float]) -> bool:
        recent = session.extra["recent"] + [metrics[name] for name in ("reward/accuracy",) if name in metrics]
        is_due = learner.step_number % every == 0 or learner.step_number == steps
        if is_due and (recent or config.loss == "regression"):
            with learner.result():
                scores = score_trees(
                    model,
                    data.heldout.trees,
                    max_tokens=learner.max_tokens,
                    heed=lambda: session.heed(metrics),
                )
            share = float(np.mean(recent)) if recent else None
            accuracy = quality.pair_accuracy(scores)
            if accuracy > max((row[-1] for row in session.extra["history"]), default=0.0):
                session.mark_best()
            session.extra["history"].append([float(learner.step_number), share, accuracy])
            recent = []
        session.extra["recent"] = recent
        return False

    hooks = [measure, session.after_step]
    with session:
        if not session.finish_step(hooks):
            run_loop(learner, source, hooks=hooks)
        if member.of > 1:
            session.save()  # the next members may be interrupted: this one is not trained again
    return session


def read_history(session: Session) -> History:
    """The measurements along the way."""
    return [(step, math.nan if share is None else share, heldout) for step, share, heldout in session.extra["history"]]
