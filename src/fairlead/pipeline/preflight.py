"""Preflight by itself: which stage of a recipe can be checked now, and how it is stopped before it trains.

The stage runs as in a run until it has told its checks; there is no second list of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fairlead.core.config import resolved
from fairlead.core.errors import ConfigError, TrainError, explain, nearest
from fairlead.core.summary import Table
from fairlead.pipeline.plan import BASE_MODEL, Node
from fairlead.store.artifacts import Artifact


class PreflightResult(NamedTuple):
    """What a stage found before its first step."""

    node: Node
    table: Table
    error: TrainError | None
    """Why the stage would not train; None when it would."""


class ChecksPassed(Exception):
    """Ends a stage that would train now."""


@dataclass(slots=True, eq=False)
class Checks:
    """Takes the checks of one stage and ends it when none failed; one that fails ends by itself. Single-use."""

    table: Table | None = None

    def __call__(self, table: Table) -> None:
        self.table = table
        if all(row[1] != "failed" for row in table.rows):
            raise ChecksPassed


def trainable_stage(plan: Sequence[tuple[Node, Artifact | None]], name: str | None) -> tuple[Node, dict[str, Artifact]]:
    """The training stage to check, with its inputs.

    Raises:
        ConfigError: no stage trains, none has this name, or its inputs are not there yet.
    """
    made = {node.name: artifact for node, artifact in plan}
    training = [node for node, _ in plan if "training" in resolved(node.config)]
    if not training or (name is not None and name not in {node.name for node in training}):
        known = [node.name for node in training]
        raise ConfigError(explain("stage", name, f"is no stage that trains{nearest(name or '', known)}",
                                  expected="one of " + ", ".join(known) if known else "a section such as sft, rewards or policies",
                                  remedy="Name another, or add its section to the recipe"))  # fmt: skip
    wanted = [node for node in training if name in (None, node.name)]
    for node in wanted:
        needed = {role: made[source] for role, source in node.inputs.items() if source != BASE_MODEL}
        found = {role: artifact for role, artifact in needed.items() if artifact is not None}
        if len(found) == len(needed):
            return node, found
    first = wanted[0]
    missing = sorted({source for source in first.inputs.values() if source != BASE_MODEL and made[source] is None})
    raise ConfigError(explain("stage", first.name, f"waits for {', '.join(missing)}", expected="stages before it that were run",
                              remedy="Run the recipe up to there, or check a stage that comes first"))  # fmt: skip
