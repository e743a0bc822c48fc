"""How many preferences are enough, by the scope that a project declares."""

from fairlead.core.gates import Gate, GateResult
from fairlead.core.sections import Scope

_ADVISED: dict[Scope, int | None] = {"toy": None, "narrow": 5_000, "general": 20_000}
_COUNT_GUIDE = (
    "20,000-40,000 usual, 5,000-10,000 narrow, unreliable below 5,000, 15,000 targeted beat 50,000 generic (G1); 500 floor for a "
    "demonstration, 5,000-10,000 to trust (G2); about 33,000 for InstructGPT, 1,000-5,000 for narrow tasks (G3)"
)
_RL_REASON = "The guides give no figure for RL alone; below 2,000 pairs reward models are near chance"

_SCOPES: tuple[tuple[Scope, float, str], ...] = (
    ("toy", 500, "Collect at least 500, or read the result as a demonstration of the loop"),
    ("narrow", 1_000, "Collect at least 1,000; 5,000 are advised"),
    ("general", 5_000, "Collect at least 5,000; 20,000 are advised"),
)
COUNT: dict[Scope, Gate] = {
    scope: Gate(
        name="preferences.count", question="Are there enough preferences for the declared scope?", unit="preferences", direction="at_least",
        stop=None, warn=warn, remedy=remedy, guide=_COUNT_GUIDE, reason=f"By declared scope ({scope}), because the guides disagree by a factor of 80",
    )
    for scope, warn, remedy in _SCOPES
}  # fmt: skip

RL_COUNT = Gate(
    name="preferences.rl_count", question="Are there enough preferences for RL against a learned reward?", unit="preferences",
    direction="at_least", stop=2_000, warn=2_000, remedy="Use DPO, or collect at least 2,000 preferences", guide=_COUNT_GUIDE, reason=_RL_REASON,
)  # fmt: skip
RL_COUNT_TOY = Gate(
    name="preferences.rl_count", question=RL_COUNT.question, unit="preferences", direction="at_least", stop=None, warn=2_000,
    remedy="Read the result as a demonstration of the loop", guide=_COUNT_GUIDE, reason=f"{_RL_REASON}; a toy run may go on",
)  # fmt: skip

GATES: tuple[Gate, ...] = (*COUNT.values(), RL_COUNT, RL_COUNT_TOY)


def judge_count(num_preferences: int, *, scope: Scope) -> GateResult:
    """Hold the number of preferences to train on against the declared scope."""
    advised = _ADVISED[scope]
    note = f"{advised:,} are advised for scope {scope}" if advised is not None and num_preferences < advised else ""
    return COUNT[scope].judge(num_preferences, n=max(1, num_preferences), note=note)


def rl_count_gate(scope: Scope) -> Gate:
    """The gate in front of RL against a learned reward; `judge` it with the number of preferences to train on."""
    return RL_COUNT_TOY if scope == "toy" else RL_COUNT
