"""Stage: direct preference optimisation (and its links) from the SFT policy on aggregated preferences.

The reference is the SFT policy; its logprobs are computed once before the first step. Votes enter as soft labels (p_chosen).
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator

from fairlead.algos import get_algorithm
from fairlead.core.config import Config
from fairlead.core.errors import explain
from fairlead.core.gates import Gate, percent
from fairlead.core.io import read_records
from fairlead.core.records import Preference
from fairlead.core.sections import TextSection, TrainSection, learning_rate_note
from fairlead.core.services import Services
from fairlead.core.summary import Figure, StageSummary, Table, Threshold
from fairlead.models.checkpoint import save_policy
from fairlead.models.load import CausalModel, load_policy, load_tokenizer
from fairlead.policies.telling import last_metric, metric_chart
from fairlead.stats.intervals import wilson
from fairlead.text import ChatText, Encoded, encode_preferences
from fairlead.train.batches import epoch_batches, num_steps
from fairlead.train.forward import Models, PolicyLogprobs, annotate
from fairlead.train.hooks import Session
from fairlead.train.loop import run_loop
from fairlead.train.preflight import (
    check_bos,
    check_layout,
    check_masks,
    check_reference,
    check_terminators,
    preflight_table,
    require_passed,
)
from fairlead.train.setup import make_learner, with_adapter

DPO_ACCURACY = Gate(
    name="dpo.accuracy", question="Does the policy now prefer what people preferred, on held-out pairs?", unit="share", direction="at_least",
    stop=0.45, warn=0.5, remedy="Check the preferences; lower learning_rate; the implicit reward contradicts held-out votes",
)  # fmt: skip
GATES: tuple[Gate, ...] = (DPO_ACCURACY,)


class DpoConfig(Config):
    """Direct preference optimisation."""

    algorithm: Literal["dpo", "cdpo", "robust", "ipo"] = "dpo"
    """Link function: sigmoid, label-smoothed, noise-robust, or squared."""
    beta: float = Field(default=0.1, gt=0)
    """Strength of the pull towards the reference (tau of IPO)."""
    flip_rate: float = Field(default=0.0, ge=0, lt=0.5)
    """Share of preferences assumed to be flipped; cdpo and robust need one above 0 and the others take none."""
    use_soft_labels: bool = True
    """Train on the aggregated probability that chosen is better, not on 1."""
    training: TrainSection = TrainSection(
        learning_rate=5e-7, num_epochs=1, batch_size=32, warmup_share=0.1, schedule="linear"
    )
    """Optimiser run; the DPO paper uses 5e-7 to 1e-6 for models above 1B parameters."""

    @model_validator(mode="after")
    def _flips_where_read(self) -> Self:
        is_read = self.algorithm in ("cdpo", "robust")
        if is_read != (self.flip_rate > 0):
            wrong = "makes this method plain DPO" if is_read else f"is not read by {self.algorithm}"
            raise ValueError(explain("flip_rate", self.flip_rate, wrong, expected="> 0 for cdpo and robust, 0 otherwise",
                                     remedy="Use (1 - sqrt(2A - 1)) / 2 with the raters' agreement A, or change algorithm"))  # fmt: skip
        return self


def run(config: DpoConfig, *, inputs: Mapping[str, Path], out: Path, services: Services) -> StageSummary:
    """Train and save."""
    text: TextSection = services.extras["text"]
    folder = str(inputs["policy"])
    tokenizer = load_tokenizer(folder)
    chat = ChatText(tokenizer, template=text.template, name=folder)
    rows = [r for r in read_records(inputs["preferences"] / "preferences.jsonl", Preference) if not r.is_tie]
    encoded = {
        s: encode_preferences(chat, part, max_length=text.max_length)
        for s in ("train", "heldout")
        if (part := [r for r in rows if r.split == s])
    }
    model = load_policy(folder, device=services.device)
    tokens = config.training.max_tokens_per_microbatch
    services.say("dpo: computing reference logprobs once")
    for part in encoded.values():
        if not config.use_soft_labels:
            part.trees = [replace(t, numbers={**t.numbers, "p_chosen": 1.0}) for t in part.trees]
        part.trees = annotate(
            part.trees, "ref_logprobs", PolicyLogprobs(model), max_tokens=tokens, heed=lambda: services.heed("dpo")
        )
    train = encoded["train"]
    model = with_adapter(model, config.training.lora, seed=services.seed)
    checks = [check_masks(train.trees), check_terminators(train.trees, chat.stop_token_ids, max_length=text.max_length),
              check_bos(train.trees, tokenizer.bos_token_id),
              *check_layout(model, train.trees), check_reference(model, train.trees)]  # fmt: skip
    require_passed("dpo", checks)
    session = _train(config, model, train, out=out, services=services)
    heldout_margins = (
        implicit_margins(model, encoded["heldout"], beta=config.beta, max_tokens=tokens, heed=session.heed)
        if "heldout" in encoded
        else np.zeros(0)
    )
    save_policy(model, tokenizer, out)
    num_parameters = sum(p.numel() for p in model.module.parameters())
    note = learning_rate_note(config.training.learning_rate, training="preference", num_parameters=num_parameters,
                              is_lora=config.training.lora is not None)  # fmt: skip
    dropped = sum(part.num_dropped for part in encoded.values())
    notes = [
        n for n in (note, f"{dropped} pairs dropped: a side is longer than text.max_length." if dropped else "") if n
    ]
    return _summary(config, out / "metrics.jsonl", heldout_margins, len(train.trees), preflight_table(checks), notes)


def _train(config: DpoConfig, model: CausalModel, train: Encoded, *, out: Path, services: Services) -> Session:
    algo, training = get_algorithm(config.algorithm), config.training
    settings = {"beta": config.beta, "flip_rate": config.flip_rate}
    known = algo.config.__dataclass_fields__
    algo_config = algo.config(**{k: v for k, v in settings.items() if k in known})
    steps = num_steps(len(train.trees), batch_size=training.batch_size, num_epochs=training.num_epochs)
    learner = make_learner(Models(policy=model), algo, algo_config, training, num_steps=steps)
    source = epoch_batches(
        train.trees, batch_size=training.batch_size, num_epochs=training.num_epochs, seed=services.seed
    )
    session = Session(
        learner, services=services, title=config.algorithm, metric="dpo/accuracy", metrics_path=out / "metrics.jsonl"
    )
    with session:
        run_loop(learner, source, hooks=[session.after_step])
    return session


def implicit_margins(
    model: CausalModel, pairs: Encoded, *, beta: float, max_tokens: int, heed: Callable[[], None]
) -> np.ndarray:
    """[P] beta * (log-ratio of chosen minus log-ratio of rejected), nats; `heed` as in `annotate`."""
    trees = annotate(pairs.trees, "logprobs", PolicyLogprobs(model), max_tokens=max_tokens, heed=heed)
    ratios = torch.tensor(
        [[float((b.arrays["logprobs"] - b.arrays["ref_logprobs"]).sum()) for b in t.branches] for t in trees]
    )
    return (beta * (ratios[:, 0] - ratios[:, 1])).numpy()


def _summary(
    config: DpoConfig, metrics: Path, margins: np.ndarray, num_pairs: int, preflight: Table, notes: list[str]
) -> StageSummary:
    interval = wilson(int((margins > 0).sum()), len(margins))
    charts = (
        *metric_chart(metrics, "Does the policy learn to prefer what was chosen?", [("dpo/accuracy", "training pairs", "policy")], y_label="share",
                      thresholds=(Threshold(label="chance", value=0.5, kind="reference"),)),
        *metric_chart(metrics, "Do the chosen replies become less likely too?",
                      [("dpo/chosen_logprobs", "chosen", "policy"), ("dpo/rejected_logprobs", "rejected", "reference")], y_label="nats a reply"),
        *metric_chart(metrics, "How far has it moved from the reference?", [("dpo/kl_k1", "on training replies", "policy")], y_label="nats a token",
                      thresholds=(Threshold(label="warn", value=0.5, kind="warn"),)),
    )  # fmt: skip
    verdict = DPO_ACCURACY.judge(
        interval.value, low=interval.low, high=interval.high, n=len(margins), note="On held-out pairs"
    )
    return StageSummary(
        stage="dpo",
        headline=f"{config.algorithm} on {num_pairs:,} pairs orders {percent(interval.value)} of {len(margins)} held-out pairs as people did.",
        figures=(Figure(name="held-out accuracy", value=interval.value, low=interval.low, high=interval.high, n=len(margins), unit="share"),
                 Figure(name="margin", value=last_metric(metrics, "dpo/margin"), unit="nats", note="mean of the last steps")),
        verdicts=(verdict,), charts=charts, tables=(preflight,), notes=tuple(notes),
        facts={"num_pairs": num_pairs},
    )  # fmt: skip
