"""Stage: policy gradients on what the policy writes, one loop for every method.

    while rounds are left:
        buffer empty?  collect max_staleness + 1 rounds (collect.py)
        the oldest round: epochs of optimiser steps (train/loop.py), then a new policy version, a new KL coefficient, a row of metrics

Methods differ in their loss (algos/) and in where advantages come from (online_methods.py). Killed and run again, it goes on at the last
saved step, in the middle of a round too.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from fairlead.algos import get_algorithm
from fairlead.algos.kl import KLController, KLSchedule, initial_kl_coef, update_kl_coef
from fairlead.core.errors import DataError, explain
from fairlead.core.io import read_records
from fairlead.core.protocols import Environment, GenerateRequest, RewardComposer, Sampling
from fairlead.core.records import Prompt
from fairlead.core.sections import TextSection, judge_learning_rate
from fairlead.core.services import Services
from fairlead.core.summary import StageSummary
from fairlead.engine.dialogues import Dialogues, check_template
from fairlead.models.checkpoint import save_policy
from fairlead.models.heads import ScalarModel
from fairlead.models.load import load_tokenizer
from fairlead.models.weights import PolicyWeights
from fairlead.policies.buffer import RolloutBuffer, Round, even_parts
from fairlead.policies.collect import Collector
from fairlead.policies.composed import ComposedRewarder, ComposeRewards
from fairlead.policies.engines import open_policy_engine
from fairlead.policies.fixed_samples import FixedSamples
from fairlead.policies.kl_section import KlScheduleSection
from fairlead.policies.mixing import MixedTexts, read_mix
from fairlead.policies.online_config import MixSection, OnlineConfig, loss_name, settings_of
from fairlead.policies.online_summary import GATES, summarise
from fairlead.policies.prompt_stream import PromptStream
from fairlead.policies.rewarding import ModelRewarder, Rewarder
from fairlead.policies.rollout_models import RolloutModels, load_rollout_models
from fairlead.policies.sampling import RoundSampler
from fairlead.policies.signals import first_ratio_gap, kl_efficiency
from fairlead.text import ChatText, Encoded, Tree
from fairlead.text.prompts import encode_prompts
from fairlead.train.forward import Models
from fairlead.train.hooks import Session
from fairlead.train.identity import data_fingerprint, text_fingerprint
from fairlead.train.loop import Learner
from fairlead.train.mix import Mix
from fairlead.train.preflight_stage import Preflight, Start, conclude, rollout_checks
from fairlead.train.setup import alert_rules, checkpoint_rule, make_learner

__all__ = ["GATES", "OnlineConfig", "run"]

GUIDE_LENGTH_COEF = (
    0.1  # score at max_new_tokens: the guides' penalty, too little against a model that pays more for length
)

_COUNTED = frozenset({"num_tokens", "train/out_of_memory"})


def run(config: OnlineConfig, *, inputs: Mapping[str, Path], out: Path, services: Services) -> StageSummary:
    """Train and save."""
    text: TextSection = services.extras["text"]
    folder = str(inputs["policy"])
    tokenizer = load_tokenizer(folder)
    chat = ChatText(tokenizer, template=text.template, name=folder)
    prompts = [p for p in read_records(inputs["prompts"] / "prompts.jsonl", Prompt) if p.split == "train"]
    if not prompts:
        raise DataError(
            explain("prompts", None, "has no training prompts", expected="at least one", remedy="Lower prompts.heldout")
        )
    models = load_rollout_models(config, inputs, services)
    work = Work(prompts=prompts, chat=chat, services=services, metrics_path=out / "metrics.jsonl")
    loop = OnlineLoop(config, models, work)
    try:
        loop.run(tokenizer.bos_token_id)
    finally:
        loop.engine.close()
    save_policy(models.policy, tokenizer, out)
    if loop.composer is not None:
        loop.composer.save(out)
    summary = summarise(config, out / "metrics.jsonl", loop.preflight, length_coef=loop.length_coef)
    spent = 0.0 if loop.composer is None else loop.composer.dollars
    return dataclasses.replace(summary, samples=loop.fixed.pairs(loop.session), cost_dollars=spent)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Work:
    """What a run is about, besides its config and its models."""

    prompts: Sequence[Prompt]
    chat: ChatText
    services: Services
    metrics_path: Path

    def requests(self, config: OnlineConfig) -> list[GenerateRequest]:
        """The prompts as tokens."""
        text: TextSection = self.services.extras["text"]
        encoded = encode_prompts(
            self.chat, self.prompts, max_length=text.max_length, max_new_tokens=config.max_new_tokens,
            max_added_tokens=config.max_reply_tokens - config.max_new_tokens,
        )  # fmt: skip
        return [
            GenerateRequest(key=p.id, token_ids=tuple(int(t) for t in ids))
            for p, ids in zip(self.prompts, encoded, strict=True)
        ]

    def dialogues(self, config: OnlineConfig, heed: Callable[[], None]) -> Dialogues | None:
        """What makes rollouts of several turns, where the recipe has tools."""
        if config.tools is None:
            return None
        check_template(config.tools, self.chat, self.prompts[0])
        environment: Environment = self.services.extras["build_environment"](config.tools)
        return Dialogues(section=config.tools, chat=self.chat, environment=environment, prompts={p.id: p for p in self.prompts},
                         max_new_tokens=config.max_new_tokens, heed=heed)  # fmt: skip

    def read_mix(self, section: MixSection) -> MixedTexts:
        """What is mixed into every step."""
        return read_mix(section, self.chat, services=self.services, max_length=self.services.extras["text"].max_length)

    def identities(self, requests: Sequence[GenerateRequest], mixed: MixedTexts | None) -> Iterator[str]:
        """What a checkpoint of this run belongs to."""
        yield from (f"{r.key} {r.token_ids}" for r in requests)
        if mixed is not None:
            yield data_fingerprint(mixed.trees)


@dataclass(slots=True)
class _Position:
    """Where a run is; part of every checkpoint."""

    kl_coef: float
    kl_scale: float = 1.0
    """What the alerts made of a scheduled coefficient, as a factor."""
    num_sampled: int = 0
    """Rounds sampled."""
    num_trained: int = 0
    """Rounds trained on to the end, which is also the policy's version."""
    num_steps: int = 0
    """Optimiser steps made on the round that is being trained on."""
    cursor: int = 0
    """Prompts handed out, without those of rounds that are being sampled."""
    rows: list[dict[str, float]] = field(default_factory=list[dict[str, float]])
    """Metrics of these steps."""


class OnlineLoop:
    """The rounds of one run. Single-use."""

    def __init__(self, config: OnlineConfig, models: RolloutModels, work: Work) -> None:
        self.config = config = config.resolved(models.policy.arithmetic.precision)
        self.models, self.chat, self.services = models, work.chat, work.services
        requests = work.requests(config)
        self.steps_per_round = config.num_epochs * -(-config.batch_size // config.minibatch_size)
        self.learner: Learner = make_learner(
            Models(policy=models.policy, value=models.value, temperature=config.temperature, correction=config.step_correction),
            get_algorithm(loss_name(config.algorithm)),
            settings_of(config), config.training, num_steps=config.num_iterations * self.steps_per_round, say=self.services.say,
            largest=max(len(r.token_ids) for r in requests) + config.max_reply_tokens,
        )  # fmt: skip
        self.mixed = None if config.mix is None else work.read_mix(config.mix)
        self.learner.mix = None if config.mix is None else Mix(coef=config.mix.coef)
        self.controller = _controller(config, num_steps=self.learner.num_steps)
        self.length_coef = resolve_length_coef(config, models.reward)
        self.session = Session(
            self.learner, services=self.services, title=config.algorithm, metric="rl/kl_k1", metrics_path=work.metrics_path,
            rule=checkpoint_rule(config.training), rules=alert_rules(config.training, kl_coef=config.kl.largest),
            data=text_fingerprint(work.identities(requests, self.mixed)),
            muted=muted_metrics(config),
        )  # fmt: skip
        # Until a round's first optimiser step the state is that of the last round, so sampling and scoring may stop anywhere.
        self.weights = PolicyWeights(models.policy)
        self.composer: RewardComposer | None = None
        rewarder, dialogues = self._rewarder(work), work.dialogues(config, self.session.heed)
        # After everything that may fail: who makes a loop closes its engine, and there is none before it is made.
        self.engine = open_policy_engine(config, models.policy, max_length=work.services.extras["text"].max_length,
                                         on_token=lambda _num: self.session.heed(), say=self.services.say, decode=self.chat.decode)  # fmt: skip
        self.collector = Collector(
            config=config, models=models, estimator=config.estimator, budget=self.learner, heed=self.session.heed,
            sampler=RoundSampler(
                config=config, engine=self.engine, rewarder=rewarder, length_coef=self.length_coef,
                dialogues=dialogues,
                sampling=Sampling(max_new_tokens=config.max_new_tokens, temperature=config.temperature, top_k=config.top_k,
                                  top_p=config.top_p, min_p=config.min_p, repetition_penalty=config.repetition_penalty, stop=config.stop,
                                  stop_token_ids=self.chat.stop_token_ids, seed=self.services.seed),
            ),
        )  # fmt: skip
        self.prompts = PromptStream(requests, seed=self.services.seed)
        self.buffer = RolloutBuffer(max_staleness=config.max_staleness)
        self.position = _Position(kl_coef=initial_kl_coef(self.controller))
        self.preflight: Preflight | None = None
        sampler = self.collector.sampler
        self.fixed = FixedSamples(requests=requests, write=partial(sampler.rollouts, group_size=1), chat=self.chat,
                                  sampling=sampler.sampling, num_rounds=config.num_iterations)  # fmt: skip

    def _rewarder(self, work: Work) -> Rewarder:
        """The reward model, or everything that the recipe composes."""
        if self.config.rewards is None:
            assert self.models.reward is not None, "a reward model scores"
            return ModelRewarder(self.models.reward, self.learner, self.session.heed)
        compose: ComposeRewards = self.services.extras["compose_rewards"]
        composer = compose(
            self.config.rewards,
            prompts=work.prompts,
            policy=self.chat,
            budget=self.learner,
            heed=self.session.heed,
            precision=self.models.policy.arithmetic.precision,
        )
        self.composer = composer
        return ComposedRewarder(composer, {prompt.id: prompt for prompt in work.prompts}, self.chat)

    def run(self, bos_token_id: int | None) -> None:
        """All rounds."""
        with self.session:
            self._restore()
            while self.position.num_trained < self.config.num_iterations:
                self.fixed.update(self.session, self.position.num_trained)
                self._fill(bos_token_id)
                current = self.buffer.first(policy_version=self.position.num_trained)
                num_before = self.position.num_steps
                staleness = float(self.position.num_trained - current.policy_version)
                metrics = {**current.metrics, "rl/staleness": staleness, **self._train(current, staleness=staleness)}
                num_new = self.position.num_steps - num_before
                self._finish(current)
                decision = self.session.record(metrics | self._efficiency(metrics), num_steps=num_new)
                moved = (float(self.session.extra[name]) for name in ("kl_coef", "kl_scale"))
                self.position.kl_coef, self.position.kl_scale = moved
                if decision.wants_roll_back:
                    self.engine.update_weights(self.weights, self.position.num_trained)
            self.fixed.update(self.session, self.config.num_iterations)

    def _fill(self, bos_token_id: int | None) -> None:
        """Sample rounds while the buffer is empty; the first of a process is looked at before anything is trained on it."""
        num = min(self.buffer.num_wanted, self.config.num_iterations - self.position.num_sampled)
        rounds: list[Round] = []
        for number in range(self.position.num_sampled, self.position.num_sampled + num):
            faults_before = self.engine.health().num_out_of_memory
            found = self.collector.collect(self.prompts, number=number, kl_coef=self.position.kl_coef, step=self.learner.step_number,
                                           policy_version=self.position.num_trained)  # fmt: skip
            num_faults = self.engine.health().num_out_of_memory - faults_before
            told = {"rl/out_of_memory": float(num_faults)} if num_faults else {}
            rounds.append(dataclasses.replace(found, metrics={**found.metrics, **told}))
            if self.preflight is None:
                self._check(rounds[-1], bos_token_id)
        self.buffer.add(rounds)
        self.position.num_sampled += num
        self.position.cursor = self.prompts.cursor
        if self.composer is not None:
            self.session.extra["rewards"] = dict(self.composer.state())
        self._keep_position(buffer=True)

    def _train(self, current: Round, *, staleness: float) -> dict[str, float]:
        """The steps on one round that are still to be made; metrics are means over all of its steps, num_tokens the sum."""
        position, started = self.position, time.monotonic()
        num_before = len(position.rows)
        if self.config.kl.where == "loss":
            self.learner.algo_config = dataclasses.replace(self.learner.algo_config, kl_coef=position.kl_coef)
        batches = self._batches(current)
        for batch in batches[position.num_steps :]:
            mixed = () if self.mixed is None else self.mixed.take(self.learner.step_number)
            position.rows.append(self.learner.step(batch, mixed=mixed))
            position.num_steps += 1
            if position.num_steps < len(batches):
                self._keep_position()
                self.session.checkpoint_if_due()
        rows = position.rows
        metrics = _over_steps(rows)
        if staleness == 0 and "rl/approx_kl" in rows[0] and self.config.step_correction is None:
            metrics |= first_ratio_gap(rows[0]["rl/approx_kl"])
        seconds, num_tokens = time.monotonic() - started, sum(row["num_tokens"] for row in rows[num_before:])
        return metrics | {"rl/train_s": seconds, "rl/train_tokens_per_s": num_tokens / max(seconds, 1e-9)}

    def _batches(self, current: Round) -> list[list[Tree]]:
        """What each optimiser step sees: epochs over the round in new orders, a prompt's completions together."""
        size = max(1, self.config.minibatch_size * self.config.num_learned // self.config.group_size)
        found: list[list[Tree]] = []
        for epoch in range(self.config.num_epochs):
            rng = np.random.default_rng((self.services.seed, self.position.num_trained, epoch))
            order = rng.permutation(len(current.trees))
            found += even_parts([current.trees[i] for i in order], size=size)
        return found

    def _finish(self, current: Round) -> None:
        """A round is consumed: a new policy version and a new KL coefficient."""
        position = self.position
        position.kl_coef = update_kl_coef(self.controller, position.kl_coef, observed_kl=current.kl_per_sequence,
                                          num_episodes=current.num_completions, step=self.learner.step_number)  # fmt: skip
        if self.controller.schedule is not None:
            position.kl_coef *= position.kl_scale
        position.num_trained += 1
        position.num_steps, position.rows = 0, []
        self.buffer.drop_first()
        self.engine.update_weights(self.weights, position.num_trained)
        self._keep_position(buffer=True)

    def _efficiency(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """What the KL bought, against the scores of the first round, when policy and reference were one."""
        start = self.session.extra.setdefault(
            "start", {"score": metrics["rl/score"], "spread": metrics["rl/score_std"]}
        )
        return kl_efficiency(
            gain=metrics["rl/score"] - start["score"], spread=start["spread"], kl_sequence=metrics["rl/kl_k1_sequence"]
        )

    def _keep_position(self, *, buffer: bool = False) -> None:
        """Hand what a checkpoint must hold to the session; with `buffer` the waiting rounds too."""
        self.session.extra |= dataclasses.asdict(self.position)
        if buffer:
            plain, tensors = self.buffer.state()
            self.session.extra["buffer"] = plain
            self.session.extra_tensors = tensors

    def _restore(self) -> None:
        """Go on where the checkpoint was made, if there is one."""
        extra = self.session.extra
        if "kl_coef" not in extra:
            return
        self.position = _Position(**{f.name: extra[f.name] for f in dataclasses.fields(_Position)})
        self.prompts.cursor = self.position.cursor
        self.buffer.load_state(extra["buffer"], self.session.extra_tensors)
        if self.composer is not None:
            self.composer.restore(extra["rewards"])
        self.engine.update_weights(self.weights, self.position.num_trained)

    def _check(self, current: Round, bos_token_id: int | None) -> None:
        config, policy = self.config, self.models.policy
        rate = judge_learning_rate(config.training, stage="rl", kind="policy_gradient", num_parameters=policy.num_parameters,
                                   reasons=self.services.extras.get("allow", {}))  # fmt: skip
        start = Start(stage=config.algorithm, model=policy, rows=Encoded(trees=current.trees), bos_token_id=bos_token_id,
                      stop_token_ids=self.chat.stop_token_ids, max_length=self.services.extras["text"].max_length,
                      max_tokens=config.training.max_tokens_per_microbatch, rate=rate)  # fmt: skip
        checks = rollout_checks(
            start,
            self.models.reward,
            temperature=config.temperature,
            is_first=self.learner.step_number == 0,
            among_choices=config.method.learns != "pairs",
            is_exact=config.has_exact_engine,
            is_compared=not config.has_penalty,
        )
        self.preflight = conclude(start, checks, self.services)


def muted_metrics(config: OnlineConfig) -> tuple[str, ...]:
    """What no rule watches: replies that are meant to be cut, and a KL that is none because a penalty changed what was drawn from."""
    return (
        *(("rl/missing_eos_share",) if config.missing_eos_penalty == 0 else ()),
        *(("rl/kl_k1_error",) if config.has_penalty else ()),
    )


def _over_steps(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Metrics of a round's steps: means over those that have them, sums of what is counted."""
    found: dict[str, float] = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row[name] for row in rows if name in row]
        found[name] = float(np.sum(values) if name in _COUNTED else np.mean(values))
    return found


def _controller(config: OnlineConfig, *, num_steps: int) -> KLController:
    kl = config.kl

    def schedule(section: KlScheduleSection) -> KLSchedule:
        return KLSchedule(shape=section.shape, start=section.start, end=section.end, num_steps=num_steps)

    def bound(value: float | KlScheduleSection) -> float | KLSchedule:
        return schedule(value) if isinstance(value, KlScheduleSection) else value

    return KLController(kl_coef=kl.kl_coef, target=kl.target, horizon=kl.horizon, low=bound(kl.low), high=bound(kl.high),
                        schedule=None if kl.schedule is None else schedule(kl.schedule))  # fmt: skip


def resolve_length_coef(config: OnlineConfig, reward: ScalarModel | None) -> float:
    """The recipe's coefficient, or max(0.1, score gained by a reply that is max_new_tokens longer); 0 without a reward model."""
    if config.length_coef is not None:
        return config.length_coef
    if reward is None:
        return 0.0
    return max(GUIDE_LENGTH_COEF, reward.facts.get("length_slope_per_token", 0.0) * config.max_new_tokens)
