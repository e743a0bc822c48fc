"""What a report is drawn from. The pipeline fills these from artifacts; the page never reads a file.

Example:
    RunReport(name="tiny", created="2026-03-01T10:00:00+00:00", scope="toy", model="bundled", answer="DPO beat SFT on 131 of 200 prompts.",
              key_figures=(Figure(name="Win rate", value=0.655, low=0.587, high=0.718, n=200),), stages=(), lineage=(), command="fairlead quickstart")
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fairlead.core.summary import Figure, StageSummary


@dataclass(frozen=True, slots=True, kw_only=True)
class StageReport:
    """One stage as it went in this run."""

    title: str
    summary: StageSummary
    seconds: float
    """Wall time in s; of the run that made the artifact when `cached`."""
    cached: bool
    """True: the artifact of an earlier run was taken."""
    artifact_id: str
    memory_mb: float | None
    """Peak in MB; None when it was not measured."""
    is_memory_of_process: bool = False
    """True: the peak of the process up to the stage's end, which the stage itself may not have reached."""
    tokens_per_s: float | None = None
    """Tokens trained on a second, the median of the steps; None for a stage that trains nothing."""
    step_s: float | None = None
    """Seconds of an optimiser step, the median."""
    phases: Mapping[str, float] = field(default_factory=dict[str, float])
    """Tokens a second by phase of an on-policy round (telemetry.PHASES), medians; empty for other stages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageNode:
    """One artifact and what it was made from."""

    id: str
    kind: str
    """Kind of the artifact: prompts, completions, feedback, preferences, reward_model, policy, evaluation, release, ..."""
    title: str
    parents: tuple[str, ...]
    """Ids; one that is not among the nodes is shown as coming from elsewhere."""
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """Everything on the page."""

    name: str
    created: str
    """ISO 8601."""
    scope: str
    """Declared scope of the run: toy, narrow or general."""
    model: str
    answer: str
    """One sentence: what happened and how sure we are."""
    key_figures: tuple[Figure, ...]
    """The three figures beside the answer."""
    stages: tuple[StageReport, ...]
    """In the order of the flow."""
    lineage: tuple[LineageNode, ...]
    command: str
    """Text that reproduces the run when pasted into a shell."""
