"""A process-reward model as a component of a composed reward: the probability that each step of a reply is right.

Example:
    source = ProcessSource(reader, part)
    source.ask(prompts, completions, step=0).values        # [B] one score a reply, or paid at the ends of its steps
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fairlead.core.errors import ModelError, explain
from fairlead.core.io import read_json
from fairlead.core.records import Completion, Prompt
from fairlead.core.reward_section import ProcessComponent
from fairlead.models.frozen import LoadScalar
from fairlead.models.heads import ScalarModel
from fairlead.models.load import load_tokenizer
from fairlead.rewards.sources import Asked
from fairlead.rewards.steps import reply_score, step_payments
from fairlead.text import ChatText
from fairlead.text.steps import step_places, tree_of_steps
from fairlead.train.budget import Budget, read_within
from fairlead.train.forward import StateValues, annotate

Floats = npt.NDArray[np.float64]
SETTINGS_FILE = "process.json"
"""What a process-reward model's folder holds beside the model: {"separator": text between steps}."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Steps:
    """The steps of one reply."""

    places: tuple[int, ...]
    """[S] tokens up to the end of each."""
    scores: Floats
    """[S] probability that it is right."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepReader:
    """A process-reward model that is loaded."""

    model: ScalarModel
    chat: ChatText
    separator: str
    budget: Budget
    heed: Callable[[], None]

    def read(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Steps]:
        """B replies; one without a step has none."""
        places = [tuple(step_places(self.chat.decode, c.token_ids, separator=self.separator)) for c in completions]
        rows = [i for i, found in enumerate(places) if found]
        encoded = self.chat.encode_prompts([prompts[i].messages for i in rows])
        trees = [tree_of_steps(ids, np.asarray(completions[i].token_ids, dtype=np.int64), places[i], terminator_id=self.chat.terminator_id)
                 for ids, i in zip(encoded, rows, strict=True)]  # fmt: skip
        compute = StateValues(self.model)
        read = read_within(
            self.budget, trees, lambda n: annotate(trees, "steps", compute, max_tokens=n, heed=self.heed)
        )
        scores = {i: sigmoid(tree.branches[0].arrays["steps"]) for i, tree in zip(rows, read, strict=True)}
        return [Steps(places=found, scores=scores.get(i, np.zeros(0))) for i, found in enumerate(places)]


def sigmoid(logits: npt.NDArray[np.floating]) -> Floats:
    """Probabilities in float64."""
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


@dataclass(slots=True, eq=False)
class ProcessSource:
    """See sources.Source. The model is loaded when it is first asked."""

    place: tuple[str, Path]
    """Artifact id and folder."""
    load: Callable[[Path], StepReader]
    part: ProcessComponent
    _reader: StepReader | None = field(default=None, init=False)

    @property
    def is_dense(self) -> bool:
        """See Source."""
        return self.part.is_dense

    def active(self, step: int) -> str:
        """Artifact id."""
        return self.place[0]

    def ask(self, prompts: Sequence[Prompt], completions: Sequence[Completion], *, step: int) -> Asked:
        """Scores of replies, NaN for one without a step; when dense, also what the last token of each step is paid."""
        self._reader = self._reader or self.load(self.place[1])
        found = self._reader.read(prompts, completions)
        values = np.array([reply_score(steps.scores, self.part.aggregate) for steps in found])
        paid = (
            None
            if not self.is_dense
            else tuple(_spread(one, len(c.token_ids), self.part) for one, c in zip(found, completions, strict=True))
        )
        return Asked(values=values, failed=np.zeros(len(found), dtype=bool), token_rewards=paid)


def _spread(steps: Steps, num_tokens: int, part: ProcessComponent) -> Floats:
    """[T] payments at the last token of each step."""
    paid = np.zeros(num_tokens)
    paid[np.array(steps.places, dtype=np.int64) - 1] = step_payments(steps.scores, part.aggregate)
    return paid


def load_steps(
    folder: Path, *, policy: ChatText, template: str | None, load: LoadScalar, budget: Budget, heed: Callable[[], None]
) -> StepReader:
    """Load a process-reward model.

    Args:
        load: reads the model itself.
    Raises:
        ModelError: it is none, or reads other tokens than the policy writes.
    """
    if not (folder / SETTINGS_FILE).is_file():
        raise ModelError(explain(folder, None, f"has no {SETTINGS_FILE}", expected="a process-reward model made by fairlead",
                                 remedy="Name another model"))  # fmt: skip
    model = load(folder)
    chat = ChatText(load_tokenizer(str(folder)), template=template, name=str(folder))
    if chat.fingerprint != policy.fingerprint:
        raise ModelError(explain(folder, None, "has another tokenizer or template than the policy, so ends of steps cannot be told in its tokens",
                                 expected="those of the policy", remedy="Train it from the same base model"))  # fmt: skip
    return StepReader(
        model=model,
        chat=chat,
        separator=read_json(folder / SETTINGS_FILE)["separator"],
        budget=budget,
        heed=heed,
    )
