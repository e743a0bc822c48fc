"""Published agreement figures, to be shown beside ours: most human preference data would be `moderate` on Cohen's scale.

Ties alone move a figure by almost twenty points (MT-bench: 63% with ties, 81% without), so each row says how it was measured.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceRow:
    """One published figure."""

    data: str
    measure: str
    value: float
    """Share in [0, 1], or kappa where `measure` says so."""
    spread: float | None = None
    """The +- that the source gives, in the unit of `value`; None where it gives none."""
    source: str


_INSTRUCTGPT, _SUMMARIES, _MT_BENCH = "arXiv:2203.02155", "arXiv:2009.01325", "arXiv:2306.05685, Table 5"
_ALPACA_EVAL, _HELPSTEER2 = "alpaca_eval README", "arXiv:2406.08673"

REFERENCE_ROWS: tuple[ReferenceRow, ...] = (
    ReferenceRow(data="InstructGPT, training labelers", measure="labeler with labeler", value=0.726, spread=0.015,
                 source=f"{_INSTRUCTGPT}, section 3.4"),
    ReferenceRow(data="InstructGPT, held-out labelers", measure="labeler with labeler", value=0.773, spread=0.013,
                 source=f"{_INSTRUCTGPT}, section 3.4"),
    ReferenceRow(data="InstructGPT, held-out labelers", measure="reward model with labeler, 5-fold", value=0.696,
                 spread=0.009, source=f"{_INSTRUCTGPT}, section 5"),
    ReferenceRow(data="TL;DR summaries", measure="labeler with researcher", value=0.77, spread=0.02,
                 source=f"{_SUMMARIES}, section 3.3"),
    ReferenceRow(data="TL;DR summaries", measure="researcher with researcher", value=0.73, spread=0.04,
                 source=f"{_SUMMARIES}, section 3.3"),
    ReferenceRow(data="TL;DR summaries", measure="labeler with labeler", value=0.72, source=f"{_SUMMARIES}, appendix C.2"),
    ReferenceRow(data="TL;DR summaries", measure="most frequent label of 3 with researcher", value=0.77,
                 source=f"{_SUMMARIES}, appendix C.2"),
    ReferenceRow(data="Anthropic HH", measure="researcher with crowdworker (not filtered on agreement)", value=0.63,
                 source="arXiv:2204.05862, section 2.1"),
    ReferenceRow(data="AlpacaEval", measure="human with the most frequent label of 3 others", value=0.657,
                 source=_ALPACA_EVAL),
    ReferenceRow(data="AlpacaEval", measure="GPT-4 judge with the most frequent human label", value=0.692,
                 source=_ALPACA_EVAL),
    ReferenceRow(data="AlpacaEval", measure="always the longest with the most frequent human label", value=0.622,
                 source=_ALPACA_EVAL),
    ReferenceRow(data="MT-bench", measure="human with human, ties included", value=0.63, source=_MT_BENCH),
    ReferenceRow(data="MT-bench", measure="human with human, without ties", value=0.81, source=_MT_BENCH),
    ReferenceRow(data="MT-bench", measure="GPT-4 judge with human, ties included", value=0.66, source=_MT_BENCH),
    ReferenceRow(data="MT-bench", measure="GPT-4 judge with human, without ties", value=0.85, source=_MT_BENCH),
    ReferenceRow(data="Chatbot Arena", measure="GPT-4 judge with human, without ties", value=0.87,
                 source="arXiv:2306.05685"),
    ReferenceRow(data="UltraFeedback", measure="GPT-4 with human", value=0.597, source="arXiv:2310.01377"),
    ReferenceRow(data="HelpSteer2", measure="quadratic kappa of helpfulness, first guidelines", value=0.465,
                 source=_HELPSTEER2),
    ReferenceRow(data="HelpSteer2", measure="quadratic kappa of helpfulness, stricter guidelines", value=0.706,
                 source=_HELPSTEER2),
    ReferenceRow(data="HelpSteer3", measure="weighted kappa of preference strength, as reported second-hand", value=0.89,
                 source="arXiv:2505.11475"),
)  # fmt: skip
