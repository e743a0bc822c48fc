"""Text that is mixed into every step of on-policy training (PPO-ptx): demonstrations or pretraining text, against what RL unlearns.

Example:
    texts = read_mix(config.mix, chat, services=services, max_length=512)
    learner.step(rollouts, mixed=texts.take(learner.step_number))
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fairlead.core.errors import DataError, explain
from fairlead.core.io import Rejects
from fairlead.core.records import Demonstration
from fairlead.core.services import Services
from fairlead.formats import read_demonstrations
from fairlead.policies.online_config import MixSection
from fairlead.policies.rows import SourceRows
from fairlead.text import ChatText, Tree, encode_demonstrations
from fairlead.text.encoding import Storage, encode_parts
from fairlead.text.examples import encode_whole


def _alike(_row: Demonstration) -> int:
    """Nothing is held out."""
    return 0


@dataclass(frozen=True, slots=True, eq=False)
class MixedTexts:
    """Texts in passes of a new order each; what a step gets is a function of its number."""

    trees: Sequence[Tree]
    batch_size: int
    seed: int

    def take(self, step: int) -> list[Tree]:
        """Those of optimiser step `step`, from 0."""
        total, start = len(self.trees), step * self.batch_size
        found: list[Tree] = []
        for place in range(start, start + self.batch_size):
            order = np.random.default_rng((self.seed, place // total)).permutation(total)
            found.append(self.trees[int(order[place % total])])
        return found


def read_mix(config: MixSection, chat: ChatText, *, services: Services, max_length: int) -> MixedTexts:
    """Read and tokenise the texts.

    Raises:
        DataError: no row can be trained on.
    """
    source = SourceRows(sources=config.data, read=read_demonstrations, find_file=services.extras["find_file"])
    with Rejects(services.work / "mix_rejects.jsonl") as rejects:
        survey = source.survey(_alike, rejects=rejects, heed=lambda: services.heed("mix: reading"))
    rows = source.routed(survey, np.zeros(len(survey.ids), dtype=bool))
    encode = encode_whole if config.learn == "all" else encode_demonstrations
    parts = encode_parts(rows, encode, chat=chat, max_length=max_length, what="texts to mix in",
                         storage=Storage.of(services, "mix: tokens"), num_rows=len(survey.ids))  # fmt: skip
    trees = parts["train"].trees if "train" in parts else ()
    if not len(trees):
        raise DataError(explain("mix.data", len(survey.ids), "rows leave none to mix in", expected="at least one text",
                                remedy="Raise text.max_length, or name other files"))  # fmt: skip
    return MixedTexts(trees, config.batch_size, services.seed)
