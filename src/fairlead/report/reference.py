"""Published agreement of people with people and of judges with people: what a measured agreement is read against.

A figure of agreement means little alone: ties alone move the same raters from 63 to 81 %. So each row names its tie policy where the
source does.
"""

from fairlead.core.summary import StageSummary, Table

AGREEMENT_ROWS: tuple[tuple[str, str, str, str], ...] = (
    ("InstructGPT, training labelers", "agree with each other", "72.6 ± 1.5 %", "arXiv 2203.02155 §3.4"),
    ("InstructGPT, held-out labelers", "agree with each other", "77.3 ± 1.3 %", "arXiv 2203.02155 §3.4"),
    ("InstructGPT, reward model", "predicts held-out labelers, 5-fold", "69.6 ± 0.9 %", "arXiv 2203.02155 §5"),
    ("TL;DR summaries", "labeler with researcher", "77 ± 2 %", "arXiv 2009.01325 §3.3"),
    ("TL;DR summaries", "researcher with researcher", "73 ± 4 %", "arXiv 2009.01325 §3.3"),
    ("TL;DR summaries", "labeler with labeler", "72 %", "arXiv 2009.01325 app. C.2"),
    ("Anthropic HH", "researcher with crowdworker", "about 63 %", "arXiv 2204.05862 §2.1"),
    ("AlpacaFarm", "one person with the mode of three others", "65.7 %", "alpaca_eval README"),
    ("AlpacaFarm, GPT-4 judge", "with the mode of people", "69.2 %", "alpaca_eval README"),
    ("AlpacaFarm, always the longer reply", "with the mode of people", "62.2 %", "alpaca_eval README"),
    ("MT-bench", "person with person, ties counted", "63 %", "arXiv 2306.05685 table 5"),
    ("MT-bench", "person with person, without ties", "81 %", "arXiv 2306.05685 table 5"),
    ("MT-bench, GPT-4 judge", "with people, ties counted", "66 %", "arXiv 2306.05685 table 5"),
    ("MT-bench, GPT-4 judge", "with people, without ties", "85 %", "arXiv 2306.05685 table 5"),
    ("UltraFeedback, GPT-4 judge", "with people", "59.7 %", "arXiv 2310.01377"),
    (
        "HelpSteer2",
        "quadratic kappa of helpfulness, before and after stricter guidelines",
        "0.465 to 0.706",
        "arXiv 2406.08673",
    ),
)

REFERENCE_TABLE = Table(
    title="What others measured",
    columns=("data", "who agrees with whom", "agreement", "source"),
    rows=AGREEMENT_ROWS,
    caption="For two balanced choices without ties kappa = 2 x agreement - 1: 65 % is kappa 0.30, 75 % is 0.50, and kappa above 0.6 needs "
    "80 %. Kappa of 0.4 to 0.6 is normal for preferences. Ties alone move the same raters from 63 to 81 %: compare like with like.",
)


def is_about_agreement(summary: StageSummary) -> bool:
    """True for the stage that measures how raters agree."""
    return summary.stage == "feedback" or any("agreement" in result.gate for result in summary.verdicts)
