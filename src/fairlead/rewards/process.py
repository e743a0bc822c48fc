"""Stage: a process-reward model from labelled steps: is each step of a reply right?

Reads files of step labels (PRM800K, Math-Shepherd, TRL's stepwise supervision, own) and the SFT policy; writes a model folder with a scalar
head, the logit that a step is right, and process.json. Held-out replies are those that say so, or a share of the prompts chosen by a hash.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import Field

from fairlead.algos import get_algorithm
from fairlead.core.config import Config
from fairlead.core.errors import DataError, explain
from fairlead.core.gates import Gate, percent
from fairlead.core.io import Rejects, write_json
from fairlead.core.records import StepLabels, content_hash
from fairlead.core.sections import TextSection, TrainSection
from fairlead.core.services import Services
from fairlead.core.summary import Figure, StageSummary
from fairlead.formats import read_steps
from fairlead.models.checkpoint import save_policy
from fairlead.models.freezing import freeze_embeddings
from fairlead.models.heads import ScalarModel, new_reward_head, save_head
from fairlead.models.load import load_tokenizer
from fairlead.rewards.process_model import SETTINGS_FILE, sigmoid
from fairlead.stats.intervals import Interval, wilson
from fairlead.text import ChatText, Encoded, Tree
from fairlead.text.examples import row_notes
from fairlead.text.steps import encode_steps
from fairlead.train.batches import EpochBatches, num_steps
from fairlead.train.forward import Models, StateValues, annotate
from fairlead.train.hooks import Session
from fairlead.train.identity import data_fingerprint
from fairlead.train.loop import run_loop
from fairlead.train.memory import largest_tree
from fairlead.train.preflight_stage import Preflight, Start, conclude, imitation_checks
from fairlead.train.setup import alert_rules, checkpoint_rule, load_trained, make_learner, prepare_model

PROCESS_ACCURACY = Gate(
    name="process.accuracy", question="Does it tell right steps from wrong ones?", unit="share", direction="at_least", stop=None, warn=0.6,
    remedy="Label more steps, or check that labels mean the same in all files; 0.5 is chance",
    reason="mean of the accuracy on right and on wrong steps",
)  # fmt: skip
GATES: tuple[Gate, ...] = (PROCESS_ACCURACY,)
_HASH_RANGE = 16.0**13


class StepSource(Config):
    """One file of step labels."""

    path: str
    """File in a known format."""
    format: str = "auto"
    """Name of its format; auto detects it."""
    take: int | None = Field(default=None, ge=1)
    """Records to read, from the start; null reads all."""


class ProcessConfig(Config):
    """A process-reward model: scores the steps of a reply."""

    data: tuple[StepSource, ...] = Field(min_length=1)
    """Step labels."""
    separator: str = Field(default="\n\n", min_length=1)
    """Text between two steps, in training and in what policies write."""
    training: TrainSection = TrainSection(learning_rate=1e-5, num_epochs=1, batch_size=16)
    """Optimiser run."""
    freeze_embeddings: bool = True
    """Keep the input embeddings as they are."""
    heldout: float = Field(default=0.1, gt=0, lt=1)
    """Share of the prompts held out, where the files do not say which."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Data:
    train: Encoded
    heldout: Encoded


def run(config: ProcessConfig, *, inputs: Mapping[str, Path], out: Path, services: Services) -> StageSummary:
    """Train, measure, save."""
    text: TextSection = services.extras["text"]
    folder = str(inputs["policy"])
    tokenizer = load_tokenizer(folder)
    chat = ChatText(tokenizer, template=text.template, name=folder)
    data = _read(config, chat, out, services, max_length=text.max_length)
    base = prepare_model(load_trained(folder, config.training, services=services), config.training, seed=services.seed)
    model = new_reward_head(base, seed=services.seed)
    if config.freeze_embeddings:
        freeze_embeddings(base)
    start = Start(stage="process", model=base, rows=data.train, heldout=data.heldout.trees, bos_token_id=tokenizer.bos_token_id,
                  stop_token_ids=chat.stop_token_ids, max_length=text.max_length,
                  max_tokens=config.training.max_tokens_per_microbatch, rate=None)  # fmt: skip
    preflight = conclude(start, imitation_checks(start), services)
    session = _train(config, model, data, out, services)
    scores = _scores(model, data.heldout.trees, session)
    save_policy(model.base, tokenizer, out)
    save_head(model, out)
    write_json(out / SETTINGS_FILE, {"separator": config.separator})
    return _summary(scores, data, preflight)


def _read(config: ProcessConfig, chat: ChatText, out: Path, services: Services, *, max_length: int) -> _Data:
    rows: dict[str, list[StepLabels]] = {"train": [], "heldout": []}
    with Rejects(out / "rejects.jsonl") as rejects:
        for row in _rows(config, services, rejects):
            rows[row.split].append(row)
    if not rows["heldout"]:
        for row in rows["train"]:
            key = content_hash([services.seed, *(m.content for m in row.prompt)], num_chars=13)
            rows["heldout"] += (
                [dataclasses.replace(row, split="heldout", id="")]
                if int(key, 16) / _HASH_RANGE < config.heldout
                else []
            )
        prompts = {row.prompt for row in rows["heldout"]}
        rows["train"] = [row for row in rows["train"] if row.prompt not in prompts]
    for name, part in rows.items():
        if not part:
            raise DataError(explain("process.data", None, f"has no {name} replies", expected="labelled replies of several prompts on both sides",
                                    remedy="Add data, or change process.heldout"))  # fmt: skip
    train, heldout = (
        encode_steps(chat, rows[name], separator=config.separator, max_length=max_length)
        for name in ("train", "heldout")
    )
    return _Data(train=train, heldout=heldout)


def _rows(config: ProcessConfig, services: Services, rejects: Rejects) -> Iterator[StepLabels]:
    for source in config.data:
        path: Path = services.extras["find_file"](source.path)
        reading = read_steps(path, format=None if source.format == "auto" else source.format, rejects=rejects)
        for number, row in enumerate(reading, start=1):
            yield row
            if number == source.take:
                break


def _train(config: ProcessConfig, model: ScalarModel, data: _Data, out: Path, services: Services) -> Session:
    algo, training, trees = get_algorithm("process"), config.training, data.train.trees
    steps = num_steps(len(trees), batch_size=training.batch_size, num_epochs=training.num_epochs)
    learner = make_learner(
        Models(reward=model),
        algo,
        algo.config(),
        training,
        num_steps=steps,
        largest=largest_tree(trees),
        say=services.say,
    )
    session = Session(
        learner, services=services, title="process", metric="reward/step_accuracy", metrics_path=out / "metrics.jsonl",
        rule=checkpoint_rule(training), rules=alert_rules(training), data=data_fingerprint(trees),
    )  # fmt: skip
    source = EpochBatches(trees, batch_size=training.batch_size, num_epochs=training.num_epochs, seed=services.seed)
    with session:
        if not session.finish_step([session.after_step]):
            run_loop(learner, source, hooks=[session.after_step])
    return session


def _scores(
    model: ScalarModel, trees: Sequence[Tree], session: Session
) -> list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
    """(probabilities, labels) of the steps of each reply."""
    read = annotate(trees, "steps", StateValues(model), max_tokens=session.learner.max_tokens, heed=session.heed)
    return [(sigmoid(t.branches[0].arrays["steps"]), t.branches[0].arrays["labels"].astype(np.float64)) for t in read]


def _summary(
    scores: list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]], data: _Data, preflight: Preflight
) -> StageSummary:
    said, labels = (np.concatenate(column) for column in zip(*scores, strict=True))
    right, wrong = (
        _share((said[mask] > 0.5) == is_right) for mask, is_right in ((labels > 0.5, True), (labels < 0.5, False))
    )
    first = _share(np.array([_first_wrong(p < 0.5) == _first_wrong(y < 0.5) for p, y in scores]))
    parts = [part.value for part in (right, wrong) if part is not None]
    balanced = float(np.mean(parts))
    named = (("accuracy on right steps", right), ("accuracy on wrong steps", wrong), ("first wrong step found", first))
    figures = tuple(
        Figure(name=name, value=i.value, low=i.low, high=i.high, n=i.n, unit="share")
        for name, i in named
        if i is not None
    )
    return StageSummary(
        stage="process", headline=f"A process-reward model tells {percent(balanced)} of right and wrong steps (mean of both kinds) of "
        f"{len(scores):,} held-out replies.",
        figures=figures, verdicts=(PROCESS_ACCURACY.judge(balanced, n=len(said)), *preflight.verdicts), tables=(preflight.table,),
        notes=tuple(row_notes([data.train, data.heldout], "replies")),
        facts={"balanced_accuracy": balanced, "num_train_replies": len(data.train.trees)},
    )  # fmt: skip


def _share(found: npt.NDArray[np.bool_]) -> Interval | None:
    return wilson(float(found.sum()), len(found)) if len(found) else None


def _first_wrong(is_wrong: npt.NDArray[np.bool_]) -> int:
    """Number of the first wrong step; -1 where all are right."""
    return int(np.argmax(is_wrong)) if is_wrong.any() else -1
