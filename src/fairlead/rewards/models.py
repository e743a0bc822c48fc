"""Reward models as components of a composed reward: which one is active at a step, and what it says of completions.

A prompt's completions are one tree, so the prompt is computed once. Tokens that the policy wrote are read as they are; a reward model with
another tokenizer or template reads the text instead.

Example:
    source = ModelSource(part, places={0: ("reward_model-3f2a", folder)}, load=load)
    source.ask(prompts, completions, step=0).values        # [B]
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from fairlead.core.errors import ConfigError, explain, nearest
from fairlead.core.records import Completion, Prompt
from fairlead.core.reward_section import ModelComponent
from fairlead.models.frozen import LoadScalar
from fairlead.models.heads import Readout, ScalarModel
from fairlead.models.load import load_tokenizer
from fairlead.rewards.compose import aggregate_members
from fairlead.rewards.sources import Asked
from fairlead.text import Branch, ChatText, Tree
from fairlead.train.budget import Budget, read_within
from fairlead.train.scoring import read_outputs

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reader:
    """How completions become the tokens that a reward model reads."""

    chat: ChatText
    """Of the reward model."""
    policy: str
    """Fingerprint of the policy's ChatText; another one's tokens mean something else here."""

    def trees(
        self, prompts: Sequence[Prompt], completions: Sequence[Completion]
    ) -> tuple[list[Tree], npt.NDArray[np.int64]]:
        """A tree for each prompt, and [B] where each completion stands in tree and branch order."""
        members: dict[str, list[int]] = {}
        for i, prompt in enumerate(prompts):
            members.setdefault(prompt.id, []).append(i)
        tokens = self._tokens(completions)
        first = [rows[0] for rows in members.values()]
        encoded = self.chat.encode_prompts([prompts[i].messages for i in first])
        trees = [Tree(prompt_ids=ids, branches=tuple(Branch(token_ids=tokens[i]) for i in rows))
                 for ids, rows in zip(encoded, members.values(), strict=True)]  # fmt: skip
        place = np.empty(len(completions), dtype=np.int64)
        place[[i for rows in members.values() for i in rows]] = np.arange(len(completions))
        return trees, place

    def _tokens(self, completions: Sequence[Completion]) -> list[npt.NDArray[np.int64]]:
        """Ids of each; what has none is read as an empty reply that ended."""
        is_same = self.chat.fingerprint == self.policy
        found = [np.asarray(c.token_ids, dtype=np.int64) if is_same else self.chat.encode_completion(c.text, finished=c.finish_reason == "stop")
                 for c in completions]  # fmt: skip
        return [ids if len(ids) else np.array([self.chat.terminator_id]) for ids in found]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ModelScorer:
    """A reward model that is loaded. A `core.protocols.Scorer`."""

    name: str
    model: ScalarModel
    reader: Reader
    part: ModelComponent
    budget: Budget
    heed: Callable[[], None]

    def score(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> Floats:
        """[B] in units of the model's own reference samples, mean 0 there; with `attributes`, the weighted sum of what each says."""
        trees, place = self.reader.trees(prompts, completions)
        outputs = read_within(
            self.budget, trees, lambda n: read_outputs(self.model, trees, max_tokens=n, heed=self.heed)
        )
        return self._scores(outputs.astype(np.float64))[place]

    def _scores(self, outputs: Floats) -> Floats:
        readout, part = self.model.readout, self.part
        if readout is None:
            scores = outputs[:, 0]
        else:
            z = readout.normalised(torch.from_numpy(outputs)).numpy()
            if part.attributes:
                return z @ np.array([part.attributes.get(name, 0.0) for name in readout.names])
            is_mean = part.aggregate == "mean"  # a readout weighs its members alike, attributes as they were trained
            scores = (
                z @ np.array(readout.weights)
                if is_mean
                else aggregate_members(z, part.aggregate, uncertainty_coef=part.uncertainty_coef)
            )
        return (scores - self.model.mean) / self.model.std


@dataclass(slots=True, eq=False)
class ModelSource:
    """A component whose model may be swapped at declared steps; one model is in memory at a time."""

    places: Mapping[int, tuple[str, Path]]
    """First step of each model -> (artifact id, folder), ascending from 0."""
    load: Callable[[Path], ModelScorer]
    is_dense = False
    _loaded: tuple[Path, ModelScorer] | None = field(default=None, init=False)

    def active(self, step: int) -> str:
        """Artifact id of the model that scores at `step`: a function of the step, so a resumed run goes on with the same one."""
        return self.places[max(start for start in self.places if start <= step)][0]

    def scorer(self, step: int) -> ModelScorer:
        """The model that scores at `step`, loaded when it is another than before."""
        folder = self.places[max(start for start in self.places if start <= step)][1]
        if self._loaded is None or self._loaded[0] != folder:
            self._loaded = None  # let go of the old one before the new one comes
            self._loaded = (folder, self.load(folder))
        return self._loaded[1]

    def ask(self, prompts: Sequence[Prompt], completions: Sequence[Completion], *, step: int) -> Asked:
        """Its scores; a reward model in this process does not fail by itself, so what it raises is not survived."""
        values = self.scorer(step).score(prompts, completions)
        return Asked(values=values, failed=np.zeros(len(values), dtype=bool))


def load_scorer(
    folder: Path, *, name: str, part: ModelComponent, policy: ChatText, template: str | None, load: LoadScalar, budget: Budget,
    heed: Callable[[], None],
) -> ModelScorer:  # fmt: skip
    """Load a reward model from its folder.

    Args:
        load: reads the model itself.
    Raises:
        ModelError: it is none, or damaged.
        ConfigError: `aggregate` or `attributes` ask for what it does not have.
    """
    model = load(folder)
    check_outputs(model.readout, part, where=f"rewards.components.{name}")
    reader = Reader(
        chat=ChatText(load_tokenizer(str(folder)), template=template, name=str(folder)), policy=policy.fingerprint
    )
    return ModelScorer(name=name, model=model, reader=reader, part=part, budget=budget, heed=heed)


def check_outputs(readout: Readout | None, part: ModelComponent, *, where: str) -> None:
    """Refuse an aggregate of members that are not there, and weights of attributes that are not.

    Raises:
        ConfigError: names what the model has.
    """
    is_ensemble = readout is not None and readout.is_ensemble
    if part.aggregate != "mean" and not is_ensemble:
        raise ConfigError(explain(f"{where}.aggregate", part.aggregate, "has no members to aggregate", expected="mean, or an ensemble",
                                  remedy="Train an ensemble, or set aggregate: mean"))  # fmt: skip
    known = () if readout is None or is_ensemble else readout.names
    for name in part.attributes:
        if name not in known:
            raise ConfigError(explain(f"{where}.attributes.{name}", None, f"is no attribute of the reward model{nearest(name, known)}",
                                      expected="one of " + (", ".join(known) or "none: it has one score"), remedy="Correct the name"))  # fmt: skip
