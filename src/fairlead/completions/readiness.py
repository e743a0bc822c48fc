"""Is this policy fit to be improved by RL? Its replies to held-out prompts must end, say something, and not loop."""

from collections.abc import Sequence

from fairlead.core.gates import Gate, GateResult
from fairlead.core.records import Completion
from fairlead.core.summary import Table
from fairlead.stats.intervals import wilson

READINESS = Gate(
    name="completions.readiness", question="Does the policy answer held-out prompts with finished, non-repeating replies?", unit="share",
    direction="at_least", stop=0.5, warn=0.8, remedy="Train the SFT stage longer or on more demonstrations, or raise max_new_tokens",
    guide="verify the SFT model on held-out prompts first; a weak SFT model makes RL chaotic",
    reason="given a number: finished, not empty, no 4-gram four times",
)  # fmt: skip
_NGRAM = 4
_MAX_REPEATS = 4  # a 4-gram this often inside one short reply is a loop, not style


def readiness(
    completions: Sequence[Completion], *, is_heldout: bool, must_finish: bool = True
) -> tuple[GateResult, Table]:
    """Gate and table of faults."""
    faults = {"cut off at the limit": 0, "empty": 0, "repeats itself": 0}
    num_ready = 0
    for completion in completions:
        fault = find_fault(completion, must_finish=must_finish)
        if fault:
            faults[fault] += 1
        else:
            num_ready += 1
    interval = wilson(num_ready, len(completions))
    note = "On held-out prompts" if is_heldout else "No prompt is held out: measured on training prompts"
    rows = tuple((name, count, count / max(1, len(completions))) for name, count in faults.items())
    return (
        READINESS.judge(interval.value, low=interval.low, high=interval.high, n=len(completions), note=note),
        Table(title="Replies that are not ready", columns=("fault", "replies", "share"), rows=rows),
    )


def find_fault(completion: Completion, *, must_finish: bool = True) -> str:
    """The first fault of a reply, or an empty string."""
    words = completion.text.split()
    if must_finish and completion.finish_reason != "stop":
        return "cut off at the limit"
    if not words:
        return "empty"
    counts: dict[tuple[str, ...], int] = {}
    for i in range(len(words) - _NGRAM + 1):
        gram = tuple(words[i : i + _NGRAM])
        counts[gram] = counts.get(gram, 0) + 1
    return "repeats itself" if max(counts.values(), default=0) >= _MAX_REPEATS else ""
