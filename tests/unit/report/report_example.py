"""A whole run with made-up but plausible numbers: what the report is developed and tested against. Every stage, every kind of element.

`python tests/unit/report/report_example.py out.html` writes its page.
"""

import math
import sys
from pathlib import Path

import numpy as np

from fairlead.core.gates import Gate, GateResult, allow
from fairlead.core.summary import Chart, Figure, SamplePair, Series, StageSummary, Table, Threshold
from fairlead.report import LineageNode, RunReport, StageReport, build_report


def gate(
    name: str, question: str, unit: str, direction: str, stop: float | None, warn: float | None, remedy: str
) -> Gate:
    return Gate(name=name, question=question, unit=unit, direction=direction, stop=stop, warn=warn, remedy=remedy)


def at_least(name: str, question: str, value: float, *, low: float | None, high: float | None, n: int, stop: float | None, warn: float | None,
             remedy: str, unit: str = "share") -> GateResult:  # fmt: skip
    return gate(name, question, unit, "at_least", stop, warn, remedy).judge(value, low=low, high=high, n=n)


def at_most(name: str, question: str, value: float, *, low: float | None, high: float | None, n: int, stop: float | None, warn: float | None,
            remedy: str, unit: str = "share") -> GateResult:  # fmt: skip
    return gate(name, question, unit, "at_most", stop, warn, remedy).judge(value, low=low, high=high, n=n)


def curve(
    start: float, end: float, *, steps: int, every: int, noise: float, seed: int, rate: float = 4.0
) -> tuple[tuple[float, float], ...]:
    """An exponential approach with noise."""
    draw = np.random.default_rng(seed)
    xs = range(0, steps + 1, every)
    return tuple(
        (float(x), float(end + (start - end) * math.exp(-rate * x / steps) + draw.normal(0, noise))) for x in xs
    )


def band(points: tuple[tuple[float, float], ...], half: float) -> tuple[tuple[float, float, float], ...]:
    return tuple((x, y - half, y + half) for x, y in points)


SAMPLES = (
    SamplePair(prompt="Write one sentence about the weather today.", before="The weather is bad today and I do not like the rain at all.",
               after="The weather is lovely today and I like the soft rain very much.", before_score=-0.82, after_score=1.31, before_tokens=14,
               after_tokens=13, after_label="DPO"),
    SamplePair(prompt="Tell me about the little dog.", before="The little dog ran to the park. He saw a ball and played with it.",
               after="The little dog is happy happy happy. He is so good and so nice and so good and so nice.", before_score=0.44,
               after_score=0.12, before_tokens=17, after_tokens=23, after_label="DPO"),
    SamplePair(prompt="How was the soup?", before="The soup was cold.", after="The soup was warm and good.", before_score=-0.5, after_score=0.92,
               before_tokens=5, after_tokens=7, after_label="DPO"),
    SamplePair(prompt="Name a colour.", before="Blue.", after="Blue.", before_score=0.1, after_score=0.1, before_tokens=2, after_tokens=2,
               after_label="DPO"),
    SamplePair(prompt="Say something about school.", before="I went to school. It was long.", after="Teachers there made every lesson a joy!",
               before_score=None, after_score=None, before_tokens=8, after_tokens=9, after_label="DPO"),
)  # fmt: skip


def prompts() -> StageSummary:
    return StageSummary(
        stage="prompts", headline="1,140 prompts of 1,200 kept: 52 near-duplicates and 8 that occur in the evaluation set were rejected.",
        figures=(Figure(name="Prompts kept", value=1140, unit="of 1,200", note="counted"), Figure(name="Topics", value=11, note="counted"),
                 Figure(name="Mean length", value=12.4, low=12.1, high=12.7, n=1140, unit="tokens")),
        verdicts=(at_most("prompts.contamination", "Does the evaluation set leak into the prompts?", 0.0, low=None, high=None, n=1140, stop=0.0,
                          warn=None, remedy="Drop the overlapping prompts"),
                  at_least("prompts.count", "Are there enough prompts for the scope?", 1140, low=None, high=None, n=1140, stop=None, warn=500,
                           unit="prompts", remedy="Add prompts or declare the scope toy")),
        tables=(Table(title="Prompts by source", columns=("source", "read", "kept", "duplicates", "share kept"),
                      rows=(("weather.jsonl", 400, 391, 9, 0.9775), ("animals.jsonl", 500, 465, 35, 0.93), ("daily.jsonl", 300, 284, 8, 0.9467))),),
    )  # fmt: skip


def sft() -> StageSummary:
    train = curve(4.1, 1.92, steps=300, every=1, noise=0.07, seed=1)
    held_out = curve(4.0, 2.004, steps=300, every=30, noise=0.01, seed=2)
    return StageSummary(
        stage="sft", headline="Held-out perplexity fell from 54.6 to 7.69 in 3 epochs and was still falling slowly at the end.",
        figures=(Figure(name="Held-out perplexity", value=7.69, low=7.41, high=7.98, n=200), Figure(name="Tokens trained", value=412_000,
                 note="counted"), Figure(name="Ends its turn", value=0.985, low=0.957, high=0.995, n=200, unit="share")),
        verdicts=(at_most("sft.perplexity", "Does the model imitate the demonstrations?", 7.69, low=7.41, high=7.98, n=200, stop=30, warn=15,
                          unit="", remedy="Train longer or check the chat template"),
                  at_least("sft.terminator", "Does it learn to stop?", 0.985, low=0.957, high=0.995, n=200, stop=0.8, warn=0.95,
                           remedy="Train the token that ends the turn")),
        charts=(Chart(question="Does held-out loss still fall?", x_label="policy step", y_label="loss, nats/token",
                      series=(Series(label="training", role="neutral", points=train),
                              Series(label="held out", role="policy", points=held_out, band=band(held_out, 0.06)))),),
    )  # fmt: skip


def feedback() -> StageSummary:
    sessions = ((1.0, 0.66), (2.0, 0.71), (3.0, 0.70), (4.0, 0.74), (5.0, 0.63), (6.0, 0.72))
    return StageSummary(
        stage="feedback", headline="Four raters agree on 69.4 % of shared pairs (interval 65.2 to 73.3): usual for preferences.",
        figures=(Figure(name="Raters agree", value=0.694, low=0.652, high=0.733, n=500, unit="share"),
                 Figure(name="Krippendorff alpha", value=0.391, low=0.31, high=0.47, n=500), Figure(name="Judgments", value=2000, note="counted"),
                 Figure(name="Seconds a judgment", value=11.2, low=10.8, high=11.7, n=2000, unit="s")),
        verdicts=(at_least("feedback.agreement", "Do raters agree with each other?", 0.694, low=0.652, high=0.733, n=500, stop=0.6, warn=0.65,
                           remedy="Discuss the 50 calibration pairs and amend the guideline"),
                  allow(at_least("feedback.alpha", "Is agreement above what guessing gives?", 0.391, low=0.31, high=0.47, n=500, stop=0.2, warn=0.4,
                                 unit="", remedy="Sharpen the guideline before scaling up"),
                        {"feedback.alpha": "toy scope: simulated raters, agreement is set by the recipe"}),
                  at_most("feedback.position", "Does the left side win more often?", 0.021, low=-0.001, high=0.043, n=2000, stop=0.2, warn=0.1,
                          remedy="Balance the sides")),
        charts=(Chart(question="Does agreement hold from session to session?", x_label="session", y_label="agreement, share", style="points",
                      series=(Series(label="raters", role="people", points=sessions, band=band(sessions, 0.06)),),
                      thresholds=(Threshold(label="target", value=0.7, kind="target"), Threshold(label="stop", value=0.6, kind="stop"))),),
        tables=(Table(title="Raters", columns=("rater", "judgments", "agrees with the rest", "seconds", "prefers longer"),
                      rows=(("r-01", 500, 0.731, 10.2, 0.52), ("r-02", 500, 0.704, 12.9, 0.55), ("r-03", 500, 0.713, 11.4, 0.51),
                            ("r-04", 500, 0.628, 10.3, 0.64))),),
        notes=("Ties were not offered.",), cost_dollars=600.0,
    )  # fmt: skip


def rewards() -> StageSummary:
    accuracy = curve(0.5, 0.705, steps=120, every=10, noise=0.006, seed=4, rate=5)
    margins = tuple((x, 1 / (1 + math.exp(-1.12 * x))) for x in np.linspace(-2.2, 2.2, 9).tolist())
    return StageSummary(
        stage="rewards", headline="The reward model picks the preferred completion in 70.3 % of held-out pairs, about as often as raters agree.",
        figures=(Figure(name="Held-out accuracy", value=0.703, low=0.656, high=0.746, n=400, unit="share"),
                 Figure(name="Calibration error", value=0.031, low=0.018, high=0.052, n=400, unit="share"),
                 Figure(name="Score of longer side", value=0.18, low=0.09, high=0.27, n=400, unit="correlation")),
        verdicts=(at_least("rewards.accuracy", "Does it predict held-out preferences?", 0.703, low=0.656, high=0.746, n=400, stop=0.6, warn=0.65,
                           remedy="Collect more or cleaner preferences"),
                  at_most("rewards.length", "Does it only like long replies?", 0.18, low=0.09, high=0.27, n=400, stop=0.6, warn=0.4,
                          unit="correlation", remedy="Balance lengths or add a length penalty")),
        charts=(Chart(question="Is accuracy on held-out pairs still rising?", x_label="step", y_label="accuracy, share",
                      series=(Series(label="held out", role="reward", points=accuracy, band=band(accuracy, 0.045)),),
                      thresholds=(Threshold(label="raters agree", value=0.694, kind="reference"), Threshold(label="warn", value=0.65, kind="warn"),
                                  Threshold(label="stop", value=0.6, kind="stop"))),
                Chart(question="Does a bigger margin mean a surer preference?", x_label="score margin", y_label="people agree, share", style="points",
                      series=(Series(label="reward model", role="reward", points=margins, band=band(margins, 0.07)),), y_zero=True)),
    )  # fmt: skip


def ppo() -> StageSummary:
    proxy = curve(0.02, 1.47, steps=400, every=4, noise=0.05, seed=5, rate=3)
    held = tuple(
        (x, 0.9 * y - 0.0000042 * x * x) for x, y in curve(0.0, 1.4, steps=400, every=40, noise=0.01, seed=6, rate=3)
    )
    kl = curve(0.0, 0.66, steps=400, every=4, noise=0.02, seed=7, rate=2)
    return StageSummary(
        stage="ppo", headline="Reward rose by 1.40, but the held-out reward model stopped following after step 280 and KL passed 0.5 nats a token.",
        figures=(Figure(name="Score gain", value=1.40, low=1.31, high=1.49, n=256), Figure(name="KL to the reference", value=0.574, low=0.551,
                 high=0.597, n=256, unit="nats/token"), Figure(name="Length change", value=0.31, low=0.26, high=0.36, n=256, unit="share")),
        verdicts=(at_most("rl.kl", "Did the policy stay near its reference?", 0.574, low=0.551, high=0.597, n=256, stop=1.0, warn=0.5,
                          unit="nats/token", remedy="Raise kl_coef or stop earlier"),
                  at_most("ppo.length", "Did replies only grow longer?", 0.31, low=0.26, high=0.36, n=256, stop=1.0, warn=0.25,
                          remedy="Add a length penalty"),
                  allow(at_least("ppo.held_out", "Does a reward model that training never saw agree?", 0.41, low=0.34, high=0.48, n=256, stop=0.5,
                                 warn=0.7, unit="of the gain", remedy="Return to step 280, refresh the reward model on current samples"),
                        {"ppo.held_out": "kept for comparison with DPO, not for release"})),
        charts=(Chart(question="Did reward rise faster than what people like?", x_label="policy step", y_label="score gain", y_zero=True,
                      series=(Series(label="reward trained on", role="reward", points=proxy),
                              Series(label="reward held out", role="judge", points=held, band=band(held, 0.09)))),
                Chart(question="How far did the policy move?", x_label="policy step", y_label="KL, nats/token", y_zero=True,
                      series=(Series(label="policy", role="policy", points=kl),),
                      thresholds=(Threshold(label="warn", value=0.5, kind="warn"), Threshold(label="stop", value=1.0, kind="stop")))),
        samples=tuple(SAMPLES[i] for i in (1, 0, 2)),
    )  # fmt: skip


def dpo() -> StageSummary:
    chosen, rejected = (
        curve(0, -0.18, steps=200, every=4, noise=0.03, seed=8),
        curve(0, -1.31, steps=200, every=4, noise=0.04, seed=9),
    )
    return StageSummary(
        stage="dpo", headline="The margin grew to 1.13 nats; chosen completions lost little probability, rejected ones much.",
        figures=(Figure(name="Pairs ordered right", value=0.741, low=0.696, high=0.781, n=400, unit="share"),
                 Figure(name="KL to the reference", value=0.112, low=0.098, high=0.126, n=256, unit="nats/token")),
        verdicts=(at_most("dpo.kl", "Did the policy stay near its reference?", 0.112, low=0.098, high=0.126, n=256, stop=1.0, warn=0.5,
                          unit="nats/token", remedy="Raise beta"),),
        charts=(Chart(question="Does it learn what is good, or only forget what is bad?", x_label="policy step", y_label="implicit reward, nats",
                      series=(Series(label="chosen", role="policy", points=chosen), Series(label="rejected", role="reference", points=rejected)),
                      thresholds=(Threshold(label="reference policy", value=0.0, kind="reference"),)),),
        samples=SAMPLES,
    )  # fmt: skip


def evals() -> StageSummary:
    steps = ((0.0, 0.5), (1.0, 0.655), (2.0, 0.588))
    return StageSummary(
        stage="evals", headline="DPO beat SFT on 131 of 200 prompts (65.5 %, interval 58.7 to 71.8); PPO was inconclusive; no capability was lost.",
        figures=(Figure(name="DPO beats SFT", value=0.655, low=0.587, high=0.718, n=200, unit="share"),
                 Figure(name="PPO beats SFT", value=0.545, low=0.476, high=0.612, n=200, unit="share"),
                 Figure(name="Perplexity on plain text", value=1.03, low=0.99, high=1.07, n=500, unit="x SFT")),
        verdicts=(at_least("evals.win_rate", "Is the policy preferred to SFT?", 0.655, low=0.587, high=0.718, n=200, stop=0.5, warn=0.55,
                           remedy="Look at the lost prompts first"),
                  at_most("evals.perplexity", "Was a capability lost?", 1.03, low=0.99, high=1.07, n=500, stop=1.2, warn=1.1, unit="x SFT",
                          remedy="Raise beta or mix in SFT data")),
        charts=(Chart(question="Which policy do people prefer to SFT?", x_label="rank of policy", y_label="win rate, share", style="points",
                      series=(Series(label="policy", role="policy", points=steps, band=band(steps, 0.066)),),
                      thresholds=(Threshold(label="no difference", value=0.5, kind="reference"),)),),
        tables=(Table(title="Behaviours", columns=("behaviour", "wanted", "before", "after", "verdict"),
                      rows=(("positive tone", "rises", 0.41, 0.78, "improved"), ("repeats itself", "falls", 0.06, 0.09, "inconclusive"),
                            ("ends its turn", "stays", 0.985, 0.99, "unchanged"), ("answers off topic", "falls", 0.12, None, "not measured")),
                      caption="200 prompts each; verdicts from intervals of the paired difference."),),
        samples=(SAMPLES[0], SAMPLES[4]),
    )  # fmt: skip


def others() -> dict[str, StageSummary]:
    return {
        "completions": StageSummary(
            stage="completions", headline="4,560 completions, four a prompt; 1.1 % hit the length limit.",
            figures=(Figure(name="Completions", value=4560, note="counted"), Figure(name="Different within a prompt", value=0.83, low=0.82,
                     high=0.84, n=1140, unit="distinct-2")),
            verdicts=(at_most("completions.truncated", "Were completions cut off?", 0.011, low=0.008, high=0.014, n=4560, stop=0.2, warn=0.05,
                              remedy="Raise max_new_tokens"),)),
        "preferences": StageSummary(
            stage="preferences", headline="1,871 preferences from 2,000 judgments; 129 pairs without a majority were set aside.",
            figures=(Figure(name="Preferences", value=1871, note="counted"), Figure(name="Mean confidence", value=0.79, low=0.78, high=0.8, n=1871,
                     unit="probability")),
            verdicts=(at_least("preferences.count", "Are there enough pairs for the scope?", 1871, low=None, high=None, n=1871, stop=None, warn=500,
                               unit="pairs", remedy="Collect more judgments"),)),
        "releases": StageSummary(
            stage="releases", headline="The DPO policy is a candidate; a person has to approve it.",
            notes=("Nothing is served until a person runs `fairlead registry promote`.",)),
    }  # fmt: skip


LINEAGE = (
    LineageNode(id="a10f33e0c2d94b18", kind="prompts", title="1,140 prompts", parents=(), note=""),
    LineageNode(id="b7730aa1e5f64c21", kind="policy", title="SFT policy", parents=("a10f33e0c2d94b18",), note="300 steps"),
    LineageNode(id="c01db1f2a3c44d5e", kind="completions", title="4,560 completions", parents=("a10f33e0c2d94b18", "b7730aa1e5f64c21"), note=""),
    LineageNode(id="d93efab0817b4a66", kind="feedback", title="2,000 judgments", parents=("c01db1f2a3c44d5e",), note="four simulated raters"),
    LineageNode(id="e5512c7d9a0b4f31", kind="preferences", title="1,871 preferences", parents=("d93efab0817b4a66",), note=""),
    LineageNode(id="f2ab90c4d1e84772", kind="reward_model", title="Reward model", parents=("b7730aa1e5f64c21", "e5512c7d9a0b4f31"), note="70.3 %"),
    LineageNode(id="0c44e19b7f3a4d90", kind="policy", title="PPO policy", parents=("b7730aa1e5f64c21", "f2ab90c4d1e84772", "a10f33e0c2d94b18"),
                note="STOP ppo.held_out passed on record"),
    LineageNode(id="1d85f6a2b09c4e13", kind="policy", title="DPO policy", parents=("b7730aa1e5f64c21", "e5512c7d9a0b4f31"), note="beta 0.1"),
    LineageNode(id="29b7d3e8c6f14a05", kind="evaluation", title="Evaluation", note="",
                parents=("0c44e19b7f3a4d90", "1d85f6a2b09c4e13", "b7730aa1e5f64c21")),
    LineageNode(id="3e06a4c9d7b24f8c", kind="release", title="Candidate", parents=("1d85f6a2b09c4e13", "29b7d3e8c6f14a05"), note="not approved"),
)  # fmt: skip


def example_run() -> RunReport:
    rest = others()
    stages = (
        ("Prompts", prompts(), 2.1, False, 180.0), ("SFT", sft(), 96.0, True, 910.0), ("Completions", rest["completions"], 61.4, False, 640.0),
        ("Feedback", feedback(), 1.2, False, None), ("Preferences", rest["preferences"], 0.8, False, 170.0),
        ("Reward model", rewards(), 44.0, False, 880.0), ("PPO", ppo(), 312.0, False, 1420.0), ("DPO", dpo(), 58.0, False, 1120.0),
        ("Evaluation", evals(), 74.0, False, 930.0), ("Release", rest["releases"], 0.4, False, 150.0),
    )  # fmt: skip
    ids = [node.id for node in LINEAGE]
    return RunReport(
        name="example with made-up numbers", created="2026-03-14T09:26:00+00:00", scope="toy", model="bundled, 3.2 M parameters",
        answer="DPO beat SFT on 131 of 200 prompts (65.5 %); PPO was stopped by its gate.",
        key_figures=(Figure(name="DPO beats SFT", value=65.5, low=58.7, high=71.8, n=200, unit="% of prompts"),
                     Figure(name="KL to SFT", value=0.112, low=0.098, high=0.126, n=256, unit="nats/token"),
                     Figure(name="Length of replies", value=9.0, low=5.5, high=12.4, n=200, unit="% longer")),
        stages=tuple(
            StageReport(title=title, summary=summary, seconds=seconds, cached=cached, artifact_id=ids[i], memory_mb=memory)
            for i, (title, summary, seconds, cached, memory) in enumerate(stages)
        ),
        lineage=LINEAGE, command="fairlead run recipes/tiny_cpu.yaml --set seed=7 --allow ppo.held_out='kept for comparison'",
    )  # fmt: skip


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(build_report(example_run()), encoding="utf-8")
