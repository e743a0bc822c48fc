"""Stage: PPO from the SFT policy against the reward model.

The loop of train/loop.py with batches from `collect`: each round samples with the current policy, then makes a few epochs of
optimiser steps. Killed and run again, it goes on at the last saved round.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fairlead.algos import get_algorithm
from fairlead.algos.kl import KLController, KLSchedule, initial_kl_coef, update_kl_coef
from fairlead.core.errors import DataError, explain
from fairlead.core.gates import Gate
from fairlead.core.io import read_records
from fairlead.core.protocols import GenerateRequest, Sampling
from fairlead.core.records import Prompt
from fairlead.core.sections import LEARNING_RATE_GATES, TextSection, judge_learning_rate
from fairlead.core.services import Services
from fairlead.core.summary import Figure, StageSummary, Threshold
from fairlead.engine.local import LocalEngine
from fairlead.models.checkpoint import save_policy
from fairlead.models.heads import ScalarModel, load_head, new_value_head
from fairlead.models.load import CausalModel, load_policy, load_tokenizer
from fairlead.policies.collect import RolloutModels, Round, collect
from fairlead.policies.ppo_config import PpoConfig
from fairlead.policies.telling import first_metric, last_metric, metric_chart
from fairlead.text import ChatText, Encoded, Tree, pack_trees
from fairlead.text.prompts import encode_prompts
from fairlead.train.forward import Models
from fairlead.train.hooks import Session
from fairlead.train.identity import text_fingerprint
from fairlead.train.loop import Learner
from fairlead.train.preflight_stage import Preflight, Start, conclude, rollout_checks
from fairlead.train.setup import checkpoint_rule, make_learner, prepare_model

PPO_KL = Gate(
    name="ppo.kl", question="Did the policy stay near its reference while it trained?", unit="nats/token", direction="at_most", stop=1.0, warn=0.5,
    remedy="Raise kl.kl_coef or lower kl.target; the reward model is not to be trusted this far out", guide="KL 0.1 to 0.5 throughout (G1)",
    reason="per token, and as an upper band only: a low KL is not a fault while behaviour improves",
)  # fmt: skip
PPO_COLLAPSE = Gate(
    name="ppo.collapse", question="Did the policy learn at all?", unit="reference sd of reward", direction="at_least", stop=None, warn=0.05,
    remedy="KL is near 0 and the reward is flat: lower kl.kl_coef (the guides say 0.05) and raise learning_rate slightly",
    guide="when KL collapses to zero lower the coefficient to 0.05 and raise the learning rate slightly",
)  # fmt: skip
GATES: tuple[Gate, ...] = (PPO_KL, PPO_COLLAPSE, LEARNING_RATE_GATES["ppo"])
_NUM_GAP_TREES = 4
GUIDE_LENGTH_COEF = (
    0.1  # score at max_new_tokens: the guides' penalty, too little against a model that pays more for length
)
_COLLAPSED_KL = 0.005  # nats a token: below this the policy writes what the reference writes


def run(config: PpoConfig, *, inputs: Mapping[str, Path], out: Path, services: Services) -> StageSummary:
    """Train and save."""
    text: TextSection = services.extras["text"]
    folder = str(inputs["policy"])
    tokenizer = load_tokenizer(folder)
    chat = ChatText(tokenizer, template=text.template, name=folder)
    requests = _requests(config, chat, inputs, text)
    models = _load_models(config, inputs, services)
    trainer = _Trainer(config, models, requests, chat, services, out / "metrics.jsonl")
    trainer.run(tokenizer.bos_token_id)
    save_policy(models.policy, tokenizer, out)
    return _summary(config, out / "metrics.jsonl", trainer.preflight, trainer.length_coef)


def _requests(
    config: PpoConfig, chat: ChatText, inputs: Mapping[str, Path], text: TextSection
) -> list[GenerateRequest]:
    prompts = [p for p in read_records(inputs["prompts"] / "prompts.jsonl", Prompt) if p.split == "train"]
    if not prompts:
        raise DataError(
            explain("prompts", None, "has no training prompts", expected="at least one", remedy="Lower prompts.heldout")
        )
    encoded = encode_prompts(chat, prompts, max_length=text.max_length, max_new_tokens=config.max_new_tokens)
    return [
        GenerateRequest(key=p.id, token_ids=tuple(int(t) for t in ids)) for p, ids in zip(prompts, encoded, strict=True)
    ]


def _load_models(config: PpoConfig, inputs: Mapping[str, Path], services: Services) -> RolloutModels:
    folder, reward_folder = str(inputs["policy"]), inputs["rewards"]
    seed = services.seed
    policy = prepare_model(load_policy(folder, device=services.device), config.training, seed=seed)
    reference = None
    if config.training.lora is None:
        reference = load_policy(folder, device=services.device)
        reference.module.requires_grad_(False)
    reward = load_head(load_policy(str(reward_folder), device=services.device), reward_folder)
    reward.base.module.requires_grad_(False)
    reward.uncertainty_coef = config.uncertainty_coef
    # The value model begins as the reward model: it already knows what will be scored.
    value = new_value_head(
        prepare_model(load_policy(str(reward_folder), device=services.device), config.training, seed=seed)
    )
    return RolloutModels(policy=policy, reference=reference, reward=reward, value=value)


class _Trainer:
    """The rounds of one PPO run. Single-use."""

    def __init__(
        self,
        config: PpoConfig,
        models: RolloutModels,
        requests: list[GenerateRequest],
        chat: ChatText,
        services: Services,
        metrics_path: Path,
    ) -> None:
        self.config, self.models, self.requests, self.chat, self.services = config, models, requests, chat, services
        algo = get_algorithm("ppo")
        algo_config = algo.config(clip_low=config.clip_low, clip_high=config.clip_high, value_coef=config.value_coef,
                                  value_clip=config.value_clip, entropy_coef=config.entropy_coef)  # fmt: skip
        self.steps_per_round = config.num_epochs * -(-config.batch_size // config.minibatch_size)
        self.learner: Learner = make_learner(
            Models(policy=models.policy, value=models.value, temperature=config.temperature), algo, algo_config, config.training,
            num_steps=config.num_iterations * self.steps_per_round, say=services.say,
            largest=max(len(request.token_ids) for request in requests) + config.max_new_tokens,
        )  # fmt: skip
        self.controller = _controller(config, num_steps=self.learner.num_steps)
        self.length_coef = resolve_length_coef(config, models.reward)
        self.session = Session(
            self.learner,
            services=services,
            title="ppo",
            metric="rl/kl_k1",
            metrics_path=metrics_path,
            rule=checkpoint_rule(config.training),
            data=text_fingerprint(f"{request.key} {request.token_ids}" for request in requests),
            muted=("rl/missing_eos_share",) if config.missing_eos_penalty == 0 else (),  # cut replies are meant
        )
        # Until a round's first optimiser step the state is that of the last round, so sampling and scoring may stop anywhere.
        self.engine = LocalEngine(
            models.policy, max_slots=config.max_slots, on_token=lambda _num_tokens: self.session.heed()
        )
        self.preflight: Preflight | None = None

    def run(self, bos_token_id: int | None) -> None:
        """All rounds."""
        with self.session:
            kl_coef = float(self.session.extra.get("kl_coef", initial_kl_coef(self.controller)))
            for number in range(self.learner.step_number // self.steps_per_round, self.config.num_iterations):
                current = self._collect(number, kl_coef)
                if self.preflight is None:
                    self._check(current, bos_token_id)
                metrics = {
                    **current.metrics,
                    **sampling_gap(self.models.policy, current.trees, self.config.temperature),
                    **self._train(current, number),
                }
                kl_coef = update_kl_coef(self.controller, kl_coef, observed_kl=current.kl_per_sequence, num_episodes=len(current.trees),
                                         step=self.learner.step_number)  # fmt: skip
                self.engine.policy_version += 1
                self.session.extra["kl_coef"] = kl_coef
                self.session.record(metrics, num_steps=self.steps_per_round)

    def _collect(self, number: int, kl_coef: float) -> Round:
        config = self.config
        sampling = Sampling(max_new_tokens=config.max_new_tokens, temperature=config.temperature, stop_token_ids=self.chat.stop_token_ids,
                            seed=_round_seed(self.services.seed, number))  # fmt: skip
        return collect(
            self.models,
            self.engine,
            self._pick(number),
            sampling,
            config,
            kl_coef=kl_coef,
            length_coef=self.length_coef,
            max_tokens=self.learner.max_tokens,
            heed=self.session.heed,
        )

    def _pick(self, number: int) -> list[GenerateRequest]:
        """Prompts of one round: passes over all of them in a new order each, never the same twice in a round while there are enough."""
        size, total = self.config.batch_size, len(self.requests)
        order: list[int] = []
        epoch = number * size // total
        while len(order) < (number * size) % total + size:
            order += np.random.default_rng((self.services.seed, epoch)).permutation(total).tolist()
            epoch += 1
        start = (number * size) % total
        picked: dict[int, int] = {}
        for i in order[start : start + size]:
            picked[i] = picked.get(i, 0) + 1
        return [
            GenerateRequest(key=self.requests[i].key, token_ids=self.requests[i].token_ids, num_samples=n)
            for i, n in picked.items()
        ]

    def _train(self, current: Round, number: int) -> dict[str, float]:
        """Epochs of optimiser steps on one round; metrics are means over the steps, num_tokens their sum."""
        rows: list[dict[str, float]] = []
        for epoch in range(self.config.num_epochs):
            order = np.random.default_rng((self.services.seed, number, epoch)).permutation(len(current.trees))
            for start in range(0, len(order), self.config.minibatch_size):
                rows.append(
                    self.learner.step([current.trees[i] for i in order[start : start + self.config.minibatch_size]])
                )
        metrics = {name: float(np.mean([r[name] for r in rows if name in r])) for name in rows[0]}
        return metrics | {"num_tokens": sum(r["num_tokens"] for r in rows)}

    def _check(self, current: Round, bos_token_id: int | None) -> None:
        config, policy = self.config, self.models.policy
        rate = judge_learning_rate(config.training, stage="ppo", kind="policy_gradient", num_parameters=policy.num_parameters,
                                   reasons=self.services.extras.get("allow", {}))  # fmt: skip
        start = Start(stage="ppo", model=policy, rows=Encoded(trees=current.trees), bos_token_id=bos_token_id,
                      stop_token_ids=self.chat.stop_token_ids, max_length=self.services.extras["text"].max_length,
                      max_tokens=config.training.max_tokens_per_microbatch, rate=rate)  # fmt: skip
        checks = rollout_checks(
            start, self.models.reward, temperature=config.temperature, is_first=self.learner.step_number == 0
        )
        self.preflight = conclude(start, checks, self.services)


def sampling_gap(policy: CausalModel, trees: list[Tree], temperature: float) -> dict[str, float]:
    """Mean |engine logprob - trainer logprob| a token, on a few completions of the round."""
    few = trees[:_NUM_GAP_TREES]
    with torch.no_grad():
        logprobs = policy.logprobs(pack_trees(few), temperature=temperature).logprobs.cpu().numpy()
    sampled = np.concatenate([b.arrays["sampling_logprobs"] for t in few for b in t.branches])
    return {"rl/sampling_gap": float(np.abs(logprobs - sampled).mean())}


def _round_seed(seed: int, number: int) -> int:
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0])


def _controller(config: PpoConfig, *, num_steps: int) -> KLController:
    kl = config.kl
    schedule = None
    if kl.schedule is not None:
        schedule = KLSchedule(
            shape=kl.schedule.shape, start=kl.schedule.start, end=kl.schedule.end, num_steps=num_steps
        )
    return KLController(
        kl_coef=kl.kl_coef, target=kl.target, horizon=kl.horizon, schedule=schedule, low=kl.low, high=kl.high
    )


def resolve_length_coef(config: PpoConfig, reward: ScalarModel) -> float:
    """The recipe's coefficient, or max(0.1, score gained by a reply that is max_new_tokens longer)."""
    if config.length_coef is not None:
        return config.length_coef
    return max(GUIDE_LENGTH_COEF, reward.facts.get("length_slope_per_token", 0.0) * config.max_new_tokens)


def _summary(config: PpoConfig, path: Path, preflight: Preflight | None, length_coef: float) -> StageSummary:
    kl, kl_sequence, score = (last_metric(path, f"rl/{name}") for name in ("kl_k1", "kl_k1_sequence", "score"))
    gain = score - first_metric(path, "rl/score")
    num_last = max(1, config.num_iterations // 10) * config.batch_size
    is_collapsed = kl < _COLLAPSED_KL and gain < (PPO_COLLAPSE.warn or 0.0)
    collapse = PPO_COLLAPSE.judge(gain if is_collapsed else max(gain, PPO_COLLAPSE.warn or 0.0), n=num_last,
                                  note="Gain of the normalised score; an alarm only together with KL near 0")  # fmt: skip
    verdicts = (
        PPO_KL.judge(kl, n=num_last, note="Mean over the sampled tokens of the last rounds, estimator k1"),
        collapse,
        *(preflight.verdicts if preflight else ()),
    )
    charts: tuple[Any, ...] = (
        *metric_chart(path, "Does the reward rise?", [("rl/score", "score", "reward"), ("rl/reward", "after penalties", "policy")],
                      y_label="reference sd"),
        *metric_chart(path, "How far does the policy move from its reference?", [("rl/kl_k1", "k1", "policy"), ("rl/kl_k3", "k3", "reference")],
                      y_label="nats a token", thresholds=(Threshold(label="warn", value=0.5, kind="warn"),), y_zero=True),
        *metric_chart(path, "Do the reward models still agree?", [("rl/disagreement", "disagreement", "reward")], y_label="sd", y_zero=True),
        *metric_chart(path, "Do replies grow?", [("rl/length_tokens", "length", "policy")], y_label="tokens", y_zero=True),
        *metric_chart(path, "Does it still explore?", [("rl/entropy", "entropy", "policy")], y_label="nats a token", y_zero=True),
        *metric_chart(path, "What does a nat of KL cost?", [("rl/kl_coef", "coefficient", "neutral")], y_label="reward a nat", y_zero=True),
    )  # fmt: skip
    return StageSummary(
        stage="ppo",
        headline=f"{config.num_iterations} rounds of {config.batch_size} replies moved the score by {gain:+.2f} reference standard deviations "
        f"at KL {kl:.3f} nats/token ({kl_sequence:.2f} nats a reply).",
        figures=(Figure(name="KL", value=kl, unit="nats/token", n=num_last, note="training samples of the last rounds"),
                 Figure(name="score gain", value=gain, unit="reference sd", n=num_last),
                 Figure(name="length penalty", value=length_coef, unit="score at max_new_tokens")),
        verdicts=verdicts, charts=charts, tables=(preflight.table,) if preflight else (),
        facts={"kl_per_token": kl, "kl_per_sequence": kl_sequence, "score_gain": gain},
    )  # fmt: skip
