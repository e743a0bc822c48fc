"""Stage: a reward model from preferences, measured on held-out prompts, normalised on the policy's own samples.

Reads preferences.jsonl and the SFT policy (and its completions, as reference samples); writes a model folder with a scalar
head. Its summary's facts carry what later stages need: mean and sd of reference scores, the length slope, accuracy.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from fairlead.algos import get_algorithm
from fairlead.core.config import Config
from fairlead.core.errors import DataError, explain
from fairlead.core.gates import Gate
from fairlead.core.io import read_json, read_records
from fairlead.core.records import Completion, Preference, Prompt
from fairlead.core.sections import TextSection, TrainSection, learning_rate_note
from fairlead.core.services import Services
from fairlead.core.summary import StageSummary
from fairlead.models.checkpoint import save_policy
from fairlead.models.heads import ScalarModel, freeze_embeddings, new_reward_head, save_head
from fairlead.models.load import load_policy, load_tokenizer
from fairlead.rewards import quality
from fairlead.stats.calibration import length_slope
from fairlead.text import Branch, ChatText, Encoded, Tree, encode_preferences
from fairlead.train.batches import epoch_batches, num_steps
from fairlead.train.forward import Models, score_trees
from fairlead.train.hooks import Session
from fairlead.train.loop import run_loop
from fairlead.train.preflight import (
    Check,
    check_bos,
    check_layout,
    check_masks,
    check_scores,
    preflight_table,
    require_passed,
)
from fairlead.train.setup import make_learner, with_adapter

GATES: tuple[Gate, ...] = quality.GATES


class RewardsConfig(Config):
    """How the reward model is trained. The guides' setting: one epoch, 1e-5, batch 8, embeddings frozen."""

    training: TrainSection = TrainSection(learning_rate=1e-5, num_epochs=1, batch_size=8)
    """Optimiser run; more than one epoch over-fits preferences quickly."""
    freeze_embeddings: bool = True
    """Keep the input embeddings as they are: rare words cannot be turned into reward, and the optimiser state shrinks."""
    center_coef: float = Field(default=0.01, ge=0)
    """Weight of (chosen + rejected)^2, which keeps scores near zero; 0 is off."""
    ties: Literal["soft", "davidson", "rao_kupper"] = "soft"
    """Likelihood of a tie: half a win each way, or an explicit tie probability."""
    max_reference_samples: int = Field(default=1024, ge=16)
    """Completions of the SFT policy on which scores are normalised to mean 0 and sd 1."""


def run(config: RewardsConfig, *, inputs: Mapping[str, Path], out: Path, services: Services) -> StageSummary:
    """Train, measure, normalise, save."""
    text: TextSection = services.extras["text"]
    folder = str(inputs["policy"])
    tokenizer = load_tokenizer(folder)
    chat = ChatText(tokenizer, template=text.template, name=folder)
    rows = list(read_records(inputs["preferences"] / "preferences.jsonl", Preference))
    train = encode_preferences(chat, [r for r in rows if r.split == "train"], max_length=text.max_length)
    heldout_rows = [r for r in rows if r.split == "heldout" and not r.is_tie]
    if not heldout_rows:
        raise DataError(explain("preferences", len(rows), "rows hold none out", expected="pairs of held-out prompts to measure the reward model on",
                                remedy="Set preferences.heldout"))  # fmt: skip
    heldout = encode_preferences(chat, heldout_rows, max_length=text.max_length)
    base = with_adapter(load_policy(folder, device=services.device), config.training.lora, seed=services.seed)
    model = new_reward_head(base, seed=services.seed)
    num_frozen = freeze_embeddings(base) if config.freeze_embeddings else 0
    checks = [check_masks(train.trees), check_bos(train.trees, tokenizer.bos_token_id), *check_layout(base, train.trees),
              check_scores(model, train.trees)]  # fmt: skip
    require_passed("rewards", checks)
    session = _train(config, model, train, heldout, out=out, services=services)
    _normalise(config, model, chat, inputs, services, session)
    scores = score_trees(model, heldout.trees, max_tokens=config.training.max_tokens_per_microbatch, heed=session.heed)
    measured = quality.measure(scores, heldout.trees, [heldout_rows[i] for i in heldout.kept_rows])
    model.facts["accuracy"] = measured.accuracy.value
    save_policy(base, tokenizer, out)
    save_head(model, out)
    facts = read_json(inputs["preferences"] / "summary.json").get("facts", {})
    history = [(step, train_share, heldout_share) for step, train_share, heldout_share in session.extra["history"]]
    return _summary(
        config, model, measured, train, heldout, checks, history, num_frozen=num_frozen, preference_facts=facts
    )


def _train(
    config: RewardsConfig, model: ScalarModel, train: Encoded, heldout: Encoded, *, out: Path, services: Services
) -> Session:
    """Optimise; `history` of the session's extras holds [step, training accuracy, held-out accuracy] along the way."""
    algo = get_algorithm("reward")
    training = config.training
    steps = num_steps(len(train.trees), batch_size=training.batch_size, num_epochs=training.num_epochs)
    learner = make_learner(
        Models(reward=model),
        algo,
        algo.config(center_coef=config.center_coef, ties=config.ties),
        training,
        num_steps=steps,
    )
    source = epoch_batches(
        train.trees, batch_size=training.batch_size, num_epochs=training.num_epochs, seed=services.seed
    )
    every = max(1, steps // 6)
    session = Session(
        learner, services=services, title="reward model", metric="reward/accuracy", metrics_path=out / "metrics.jsonl",
        extra={"history": [], "recent": []},
    )  # fmt: skip

    def measure(_learner: Any, metrics: dict[str, float]) -> bool:
        recent = session.extra["recent"] + [metrics[name] for name in ("reward/accuracy",) if name in metrics]
        if recent and (learner.step_number % every == 0 or learner.step_number == steps):
            scores = score_trees(
                model, heldout.trees, max_tokens=training.max_tokens_per_microbatch, heed=lambda: session.heed(metrics)
            )
            row = [float(learner.step_number), float(np.mean(recent)), quality.pair_accuracy(scores)]
            session.extra["history"].append(row)
            recent = []
        session.extra["recent"] = recent
        return False

    hooks = [measure, session.after_step]
    with session:
        if not session.finish_step(hooks):
            run_loop(learner, source, hooks=hooks)
    return session


def _normalise(
    config: RewardsConfig,
    model: ScalarModel,
    chat: ChatText,
    inputs: Mapping[str, Path],
    services: Services,
    session: Session,
) -> None:
    """Mean 0, sd 1 on samples of the SFT policy, and how much score a longer reply buys."""
    if "completions" not in inputs:
        services.say("rewards: no completions to normalise on; scores keep mean 0 and sd 1 of nothing (raw)")
        return
    prompts = {p.id: p for p in read_records(inputs["prompts"] / "prompts.jsonl", Prompt)}
    trees, lengths = [], []
    for completion in list(read_records(inputs["completions"] / "completions.jsonl", Completion))[
        : config.max_reference_samples
    ]:
        ids = np.asarray(completion.token_ids, dtype=np.int64)
        if len(ids):
            trees.append(
                Tree(
                    prompt_ids=chat.encode_prompt(prompts[completion.prompt_id].messages),
                    branches=(Branch(token_ids=ids),),
                )
            )
            lengths.append(len(ids))
    scores = score_trees(model, trees, max_tokens=config.training.max_tokens_per_microbatch, heed=session.heed)
    model.mean, model.std = float(scores.mean()), max(float(scores.std()), 1e-6)
    model.facts["length_slope_per_token"] = length_slope((scores - model.mean) / model.std, lengths).value
    model.facts["reference_samples"] = float(len(trees))


def _summary(
    config: RewardsConfig, model: ScalarModel, measured: quality.Quality, train: Encoded, heldout: Encoded, checks: list[Check],
    history: list[tuple[float, float, float]], *, num_frozen: int, preference_facts: Mapping[str, Any],
) -> StageSummary:  # fmt: skip
    num_parameters = sum(p.numel() for p in model.base.module.parameters())
    note = learning_rate_note(config.training.learning_rate, training="reward", num_parameters=num_parameters,
                              is_lora=config.training.lora is not None)  # fmt: skip
    notes = [f"{num_frozen:,} embedding parameters frozen."] if num_frozen else []
    notes += [note] if note else []
    if train.num_dropped + heldout.num_dropped:
        notes.append(f"{train.num_dropped + heldout.num_dropped} pairs dropped: a side is longer than text.max_length.")
    return StageSummary(
        stage="rewards", headline=measured.headline(), figures=measured.figures(model.facts), verdicts=measured.verdicts(preference_facts),
        charts=(*measured.charts(), *quality.history_chart(history)), tables=(preflight_table(checks), *measured.tables()), notes=tuple(notes),
        facts={"accuracy": measured.accuracy.value, "mean": model.mean, "std": model.std, "num_train_pairs": len(train.trees), **model.facts},
    )  # fmt: skip
