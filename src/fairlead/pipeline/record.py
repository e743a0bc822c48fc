"""What became of each stage of a run, in memory and in the run's record (run.json)."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fairlead.core.gates import GateResult
from fairlead.core.summary import StageSummary, summary_from_dict
from fairlead.pipeline.plan import Node
from fairlead.store.artifacts import Artifact, ArtifactStore


@dataclass(slots=True, eq=False)
class StageRecord:
    """What became of one stage in this run."""

    node: Node
    artifact: Artifact | None
    summary: StageSummary | None
    seconds: float
    """Of the run that made the artifact, also when it was reused."""
    is_cached: bool = False
    stopped_by: str = ""
    """Why the stage was not run, or which gate stopped it."""

    @property
    def verdicts(self) -> tuple[GateResult, ...]:
        """Gate results, overrides included."""
        return self.summary.verdicts if self.summary else ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able data; the artifact by its id, the summary (which lies in the artifact) by its verdicts."""
        return {
            "artifact": self.artifact.id if self.artifact else None,
            "seconds": self.seconds,
            "cached": self.is_cached,
            "stopped_by": self.stopped_by,
            "verdicts": self.summary.to_dict()["verdicts"] if self.summary else [],
        }


def record_from_dict(row: Mapping[str, Any], *, node: Node, store: ArtifactStore) -> StageRecord:
    """Read back what `to_dict` wrote, with the summary from the store."""
    if row["artifact"] is None:
        return StageRecord(node, None, None, row["seconds"], row["cached"], row["stopped_by"])
    artifact = store.get(row["artifact"])
    summary = summary_from_dict({**artifact.summary, "verdicts": row["verdicts"]}, where=str(artifact.path))
    return StageRecord(node, artifact, summary, row["seconds"], row["cached"], row["stopped_by"])


def with_verdicts(summary: StageSummary, verdicts: tuple[GateResult, ...]) -> StageSummary:
    """The summary of an artifact under the overrides of this run."""
    return dataclasses.replace(summary, verdicts=verdicts)
