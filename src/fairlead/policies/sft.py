"""Stage: supervised fine-tuning on demonstrations, stopped early when held-out perplexity no longer falls.

Reads demonstration files (any known format) and a base model; writes a policy folder. Held-out rows are those that say so, or a
share chosen by a hash of their first message.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field

from fairlead.algos import get_algorithm
from fairlead.core.config import Config
from fairlead.core.errors import DataError, TrainError, explain
from fairlead.core.gates import Gate
from fairlead.core.io import Rejects
from fairlead.core.records import Demonstration
from fairlead.core.sections import LEARNING_RATE_GATES, Scope, TextSection, TrainSection, judge_learning_rate
from fairlead.core.services import Services
from fairlead.core.summary import Chart, Figure, Series, StageSummary
from fairlead.formats import read_demonstrations
from fairlead.models.checkpoint import save_policy
from fairlead.models.load import CausalModel, load_tokenizer
from fairlead.policies.rows import DataSource, Flags, SourceRows, Survey
from fairlead.text import ChatText, Encoded, Tree, encode_demonstrations, pack_trees, plan_microbatches
from fairlead.text.encoding import Storage, encode_parts
from fairlead.text.examples import encode_last_replies, encode_whole, row_notes
from fairlead.train.batches import EpochBatches, num_steps
from fairlead.train.forward import Models
from fairlead.train.hooks import Session
from fairlead.train.identity import data_fingerprint
from fairlead.train.loop import Learner, run_loop
from fairlead.train.memory import largest_tree
from fairlead.train.noise import Neftune
from fairlead.train.preflight_stage import Preflight, Start, conclude, imitation_checks
from fairlead.train.setup import alert_rules, checkpoint_rule, load_trained, make_learner, prepare_model, result_notes

_REMEDY = "Write or collect more demonstrations; a few hundred good ones beat thousands of noisy ones"
_WARN_BELOW: dict[Scope, int] = {"toy": 200, "narrow": 500, "general": 10_000}
SFT_COUNT: dict[Scope, Gate] = {
    scope: Gate(name="sft.count", question="Are there enough demonstrations for the declared scope?", unit="demonstrations", direction="at_least",
                stop=None, warn=warn, remedy=_REMEDY, guide="10,000-50,000 (G1); 200-500 for a first project (G2); about 13,000 (InstructGPT)",
                reason="by declared scope: quality before volume")
    for scope, warn in _WARN_BELOW.items()
}  # fmt: skip
SFT_PLATEAU = Gate(
    name="sft.perplexity", question="Did training lower held-out perplexity?", unit="ratio to the start", direction="at_most", stop=1.02, warn=1.0,
    remedy="Lower learning_rate, or check that the held-out rows resemble the training rows", guide="stop when held-out perplexity plateaus",
)  # fmt: skip
GATES: tuple[Gate, ...] = (*SFT_COUNT.values(), SFT_PLATEAU, LEARNING_RATE_GATES["sft"])


ENCODINGS = {"replies": encode_demonstrations, "last_reply": encode_last_replies, "all": encode_whole}


class SftConfig(Config):
    """Supervised fine-tuning. The guides' setting: 3 epochs, 2e-5, batch 4 x 4."""

    data: tuple[DataSource, ...] = Field(min_length=1)
    """Demonstrations."""
    training: TrainSection = TrainSection(learning_rate=2e-5, num_epochs=3, batch_size=16)
    """Optimiser run."""
    average: Literal["token", "sequence"] = "token"
    """token: every trained token weighs the same; sequence: every conversation does."""
    learn: Literal["replies", "last_reply", "all"] = "replies"
    """What is learned of a conversation: replies, every assistant turn with its end; last_reply, the last of them; all, every token."""
    neftune_alpha: float | None = Field(default=None, gt=0)
    """NEFTune: uniform noise on the embeddings of the input, of size alpha / sqrt(tokens x width), while it trains; 5 to 15 is usual. null is
    none."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Probability moved from the target to the whole vocabulary."""
    heldout_share: float = Field(default=0.05, gt=0, lt=1)
    """Share of conversations held out when the file names none."""
    patience: int = Field(default=1, ge=0)
    """Evaluations without improvement before training stops; 0 never stops early."""


def run(config: SftConfig, *, inputs: Mapping[str, Path], out: Path, services: Services) -> StageSummary:
    """Train and save."""
    text: TextSection = services.extras["text"]
    source = str(services.extras["base_model"])
    tokenizer = load_tokenizer(source)
    chat = ChatText(tokenizer, template=text.template, name=source)
    rows, num_rows, num_rejects = _read(config, out, services)
    parts = encode_parts(rows, ENCODINGS[config.learn], chat=chat, max_length=text.max_length, what="demonstrations",
                         storage=Storage.of(services, "sft: tokens"), num_rows=num_rows)  # fmt: skip
    train, heldout = parts["train"], parts["heldout"]
    model = prepare_model(load_trained(source, config.training, services=services), config.training, seed=services.seed)
    rate = judge_learning_rate(config.training, stage="sft", kind="sft", num_parameters=model.num_parameters,
                               reasons=services.extras.get("allow", {}))  # fmt: skip
    start = Start(stage="sft", model=model, rows=train, heldout=heldout.trees, bos_token_id=tokenizer.bos_token_id,
                  stop_token_ids=chat.stop_token_ids,
                  max_length=text.max_length, max_tokens=config.training.max_tokens_per_microbatch, rate=rate,
                  learns_all=config.learn == "all")  # fmt: skip
    preflight = conclude(start, imitation_checks(start), services)
    history, ended = _train(config, model, train, heldout, out=out, services=services)
    save_policy(model, tokenizer, out)
    return _summary(config, train, heldout, preflight, history, ended=ended, num_rejects=num_rejects, scope=services.extras["scope"])  # fmt: skip


def _read(
    config: SftConfig, out: Path, services: Services
) -> tuple[Iterator[tuple[str | None, Demonstration]], int, int]:
    """Every row with its part, how many there are, and how many could not be read."""
    source = SourceRows(sources=config.data, read=read_demonstrations, find_file=services.extras["find_file"])
    with Rejects(out / "rejects.jsonl") as rejects:
        survey = source.survey(_first_message, rejects=rejects, heed=lambda: services.heed("sft: reading"))
    is_heldout = _hold_out(survey, config.heldout_share)
    if not (survey.is_taken & ~is_heldout).any():
        raise DataError(explain("sft.data", survey.num_taken, "rows leave none to train on once some are held out",
                                expected="two different demonstrations",
                                remedy="Add demonstrations"))  # fmt: skip
    return source.routed(survey, is_heldout), len(survey.ids), rejects.total


def _first_message(row: Demonstration) -> int:
    return int.from_bytes(hashlib.sha256(row.messages[0].content.encode()).digest()[:8], "big")


def _hold_out(survey: Survey, share: float) -> Flags:
    """The rows that say so, else a share by the hash of their first message; equal conversations go together."""
    taken = np.flatnonzero(survey.is_taken)
    chosen = taken[survey.is_marked[taken]]
    if not len(chosen):
        order = np.argsort(survey.keys[taken], kind="stable")
        chosen = taken[order[: max(1, round(share * len(taken)))]]
    return np.isin(survey.ids, survey.ids[chosen])


def mean_loss(model: CausalModel, trees: Sequence[Tree], *, max_tokens: int, heed: Callable[[], None]) -> float:
    """Nats a kept token; `heed` is called before each forward and raises to stop."""
    total, count = 0.0, 0
    with torch.no_grad():
        for row in plan_microbatches([t.num_tokens for t in trees], max_tokens=max_tokens):
            heed()
            logprobs = model.logprobs(pack_trees([trees[i] for i in row])).logprobs
            total, count = total - float(logprobs.sum()), count + len(logprobs)
    return total / count


class _EarlyStop:
    """Measures held-out loss along the way, has the session keep the best weights, and stops after `patience` worse measurements.

    Its state is kept in the session's extras, so that a killed run goes on as if nothing had happened.
    """

    def __init__(self, session: Session, model: CausalModel, heldout: Encoded, *, every: int, patience: int) -> None:
        self.session, self.model, self.heldout = session, model, heldout
        self.every, self.patience = every, patience
        if "history" not in session.extra:
            start = self._measure(None)
            session.extra |= {"history": [[0.0, start]], "best": start, "num_worse": 0, "has_marked": False}
        elif session.has_lost_best:
            session.extra |= {"best": self._measure(None), "num_worse": 0, "has_marked": True}
            session.mark_best()
            session.save()

    @property
    def history(self) -> list[tuple[float, float]]:
        """(step, held-out loss) of every measurement, the start first."""
        return [(step, loss) for step, loss in self.session.extra["history"]]

    @property
    def best(self) -> float:
        """Lowest held-out loss, of the start or of weights that are still there."""
        return float(self.session.extra["best"])

    @property
    def is_done(self) -> bool:
        """True once patience is over."""
        return bool(self.patience) and self.session.extra["num_worse"] > self.patience

    def ended(self) -> float:
        """Held-out loss of the weights that the session ended with: the best, or, when none was better than the start, the last."""
        if self.session.extra["has_marked"]:
            return self.best
        step, loss = self.history[-1]
        return loss if step == self.session.learner.step_number else self._measure(None)

    def _measure(self, metrics: Mapping[str, float] | None) -> float:
        learner = self.session.learner
        with learner.result():
            loss = mean_loss(
                self.model, self.heldout.trees, max_tokens=learner.max_tokens, heed=lambda: self.session.heed(metrics)
            )
        if not math.isfinite(loss):
            raise TrainError(explain(f"sft: step {self.session.learner.step_number}: held-out loss", loss, "is not finite",
                                     expected="a finite number", remedy="Lower learning_rate or look at the held-out rows"))  # fmt: skip
        return loss

    def __call__(self, learner: Learner, metrics: dict[str, float]) -> bool:
        if learner.step_number % self.every and learner.step_number != learner.num_steps:
            return False
        loss, best = self._measure(metrics), self.best
        metrics["sft/perplexity"] = math.exp(loss)
        self.session.extra["history"].append([float(learner.step_number), loss])
        self.session.extra["num_worse"] = 0 if loss < best else self.session.extra["num_worse"] + 1
        if loss < best:
            self.session.extra |= {"best": loss, "has_marked": True}
            self.session.mark_best()
        return self.is_done


def _train(
    config: SftConfig, model: CausalModel, train: Encoded, heldout: Encoded, *, out: Path, services: Services
) -> tuple[list[tuple[float, float]], float]:
    """Every measurement, and the held-out loss of the weights that the model ends with."""
    algo, training = get_algorithm("sft"), config.training
    steps = num_steps(len(train.trees), batch_size=training.batch_size, num_epochs=training.num_epochs)
    algo_config = algo.config(average=config.average, label_smoothing=config.label_smoothing)
    neftune = None if config.neftune_alpha is None else Neftune(alpha=config.neftune_alpha, seed=services.seed)
    learner = make_learner(Models(policy=model), algo, algo_config, training, num_steps=steps, neftune=neftune,
                           largest=largest_tree(train.trees), say=services.say)  # fmt: skip
    source = EpochBatches(
        train.trees, batch_size=training.batch_size, num_epochs=training.num_epochs, seed=services.seed
    )
    session = Session(learner, services=services, title="sft", metric="sft/loss", metrics_path=out / "metrics.jsonl",
                      rule=checkpoint_rule(training), rules=alert_rules(training), data=data_fingerprint(train.trees))  # fmt: skip
    with session:
        stopper = _EarlyStop(
            session, model, heldout, every=max(1, steps // (2 * training.num_epochs)), patience=config.patience
        )
        hooks = [stopper, session.after_step]
        if not stopper.is_done and not session.finish_step(hooks):
            run_loop(learner, source, hooks=hooks)
    session.restore_best()  # what was trained at all, when no measurement was better than the start
    return stopper.history, stopper.ended()


def _summary(
    config: SftConfig, train: Encoded, heldout: Encoded, preflight: Preflight, history: list[tuple[float, float]], *, ended: float,
    num_rejects: int, scope: Scope,
) -> StageSummary:  # fmt: skip
    start = history[0][1]
    notes = [f"{encoded.num_truncated} {name} conversations cut at the maximum length, {encoded.num_dropped} dropped with nothing left to learn."
             for name, encoded in (("training", train), ("held-out", heldout)) if encoded.num_truncated + encoded.num_dropped]  # fmt: skip
    if num_rejects:
        notes.append(f"{num_rejects} rows could not be read; see rejects.jsonl.")
    notes += [*row_notes([train, heldout], "conversations"), *result_notes(config.training)]
    if ended > start:
        notes.append("No measurement was better than the start: these are the weights of the last step.")
    points = tuple((step, math.exp(loss)) for step, loss in history)
    chart = Chart(question="Does the model still learn, or has perplexity settled?", x_label="optimiser step", y_label="held-out perplexity",
                  series=(Series(label="held-out", role="policy", points=points),))  # fmt: skip
    num_heldout = sum(b.num_kept for t in heldout.trees for b in t.branches)
    return StageSummary(
        stage="sft",
        headline=f"{len(train.trees):,} demonstrations brought held-out perplexity from {math.exp(start):.2f} to {math.exp(ended):.2f}.",
        figures=(Figure(name="held-out perplexity", value=math.exp(ended), n=num_heldout, unit="", note="over held-out tokens, no interval"),
                 Figure(name="demonstrations", value=len(train.trees))),
        verdicts=(SFT_COUNT[scope].judge(len(train.trees), n=len(train.trees)),
                  SFT_PLATEAU.judge(math.exp(ended - start), n=num_heldout, note="Held-out perplexity of the saved weights against the start"),
                  *preflight.verdicts),
        charts=(chart,), tables=(preflight.table,), notes=tuple(notes),
        facts={"heldout_perplexity": math.exp(ended), "num_demonstrations": len(train.trees)},
    )  # fmt: skip
