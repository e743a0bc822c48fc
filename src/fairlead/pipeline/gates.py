"""Every gate that a run can meet, gathered from the stages that declare them; docs/defaults.md is held against this list."""

from collections.abc import Iterable

from fairlead.completions import stage as completions
from fairlead.core.errors import ConfigError, explain, nearest
from fairlead.core.gates import Gate
from fairlead.evals import stage as evals
from fairlead.feedback import stage as feedback
from fairlead.policies import dpo, kto, online, sft
from fairlead.preferences import stage as preferences
from fairlead.prompts import stage as prompts
from fairlead.releases import stage as releases
from fairlead.rewards import gold, process
from fairlead.rewards import stage as rewards


def all_gates() -> tuple[Gate, ...]:
    """In the order of the flow; a name may occur once for each scope."""
    stages = (
        prompts,
        gold,
        sft,
        completions,
        feedback,
        preferences,
        rewards,
        process,
        online,
        dpo,
        kto,
        evals,
        releases,
    )
    return tuple(gate for stage in stages for gate in stage.GATES)


def check_names(names: Iterable[str], *, where: str, alerts: Iterable[str] = ()) -> None:
    """Refuse a name that is neither of a gate nor of a rule (`alert.ID`); the message names the nearest one."""
    known = sorted({gate.name for gate in all_gates()} | set(alerts))
    for name in names:
        if name not in known:
            what = "rule of this recipe" if name.startswith("alert.") else "gate"
            raise ConfigError(explain(where, name, f"is not a {what}{nearest(name, known)}", expected="one of " + ", ".join(known),
                                      remedy="Rename it"))  # fmt: skip
