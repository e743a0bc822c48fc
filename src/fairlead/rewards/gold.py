"""Stage: the gold reward of a controlled experiment, which simulated raters see through noise and the evaluation sees plainly.

Either a rule from word lists, a verifier, or a linear classifier of texts fitted on labelled reviews (as in the DPO paper's sentiment
experiment), with its held-out accuracy reported. Real projects have no gold: they have people.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from fairlead.core.config import Config
from fairlead.core.errors import ConfigError, DataError, explain
from fairlead.core.gates import Gate, percent
from fairlead.core.io import read_json, read_rows, write_json
from fairlead.core.protocols import Scorer
from fairlead.core.records import Completion, Prompt
from fairlead.core.services import Services
from fairlead.core.summary import Figure, StageSummary
from fairlead.rewards.pool import WorkerPool
from fairlead.rewards.rules import load_rule, make_rule
from fairlead.rewards.verifiers import make_verifier, read_section
from fairlead.rewards.verifiers.config import VerifierBase
from fairlead.stats.intervals import wilson

GOLD_ACCURACY = Gate(
    name="gold.accuracy", question="Does the gold classifier deserve its name?", unit="share", direction="at_least", stop=0.7, warn=0.8,
    remedy="Give it more labelled texts; what follows is measured against it",
)  # fmt: skip
GATES: tuple[Gate, ...] = (GOLD_ACCURACY,)
_NUM_FEATURES = 2**18
_NGRAM_RANGE = (1, 2)


class LexiconGold(Config):
    """A rule from word lists; see rewards/rules.py."""

    type: Literal["lexicon"]
    """Kind of gold reward."""
    path: str
    """JSON file with the word lists."""


class ClassifierGold(Config):
    """Logistic regression on hashed words and word pairs, fitted on labelled texts; the score is its log-odds."""

    type: Literal["classifier"]
    """Kind of gold reward."""
    path: str
    """File with labelled texts."""
    text_field: str = "text"
    """Column of the text."""
    label_field: str = "stars"
    """Column of a number; texts above `positive_above` are good, below `negative_below` bad, the rest unused."""
    positive_above: float = 6.0
    """Good above this label."""
    negative_below: float = 5.0
    """Bad below this label."""
    heldout_share: float = Field(default=0.1, gt=0, lt=1)
    """Share of texts on which accuracy is measured."""
    scale: float = Field(default=1.0, gt=0)
    """Scores are log-odds times this."""


class RuleGold(Config):
    """A rule on the reply's text."""

    type: Literal["rule"]
    """Kind of gold reward."""
    rule: dict[str, Any]
    """`kind`: length (min_words, max_words), or another of docs/stages/rewards.md, with its options."""

    @field_validator("rule")
    @classmethod
    def _is_known(cls, rule: dict[str, Any]) -> dict[str, Any]:
        make_rule(rule, where="gold.rule")
        return rule


class VerifierGold(Config):
    """A verifier: a pattern, a JSON schema, right answers; every prompt must be one that it applies to."""

    type: Literal["verifier"]
    """Kind of gold reward."""
    verifier: dict[str, Any]
    """`kind` and its options; see docs/stages/verifiers.md."""

    @field_validator("verifier")
    @classmethod
    def _is_known(cls, verifier: dict[str, Any]) -> dict[str, Any]:
        read_section(verifier, where="gold")
        return verifier


GoldConfig = Annotated[LexiconGold | RuleGold | VerifierGold | ClassifierGold, Field(discriminator="type")]


class VerifierScorer:
    """A verifier in worker processes as gold, which has a score for everything or is none."""

    name = "gold verifier"

    def __init__(self, section: VerifierBase) -> None:
        self.scorer = make_verifier(section, pool=WorkerPool())

    def score(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> npt.NDArray[np.float64]:
        """[B] in [0, 1].

        Raises:
            DataError: it does not apply to a prompt, or a check failed.
        """
        outcomes = self.scorer.outcomes(prompts, completions)
        for prompt, outcome in zip(prompts, outcomes, strict=True):
            if np.isnan(outcome.score):
                why = f"failed ({outcome.failure}: {outcome.detail})" if outcome.failure else "does not apply"
                raise DataError(explain(f"gold: prompt {prompt.id}", None, f"has no score: the verifier {why}", expected="one for every reply",
                                        remedy="Leave these prompts out, or give them what it reads"))  # fmt: skip
        return np.array([outcome.score for outcome in outcomes], dtype=np.float64)


class ClassifierScorer:
    """The fitted classifier as a Scorer: log-odds that prompt and completion together are a good text."""

    name = "gold classifier"

    def __init__(self, weights: npt.NDArray[np.float32], bias: float, scale: float) -> None:
        self.weights, self.bias, self.scale = weights, bias, scale

    def score(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> npt.NDArray[np.float64]:
        """[B] log-odds times scale."""
        texts = ["".join(m.content for m in p.messages) + c.text for p, c in zip(prompts, completions, strict=True)]
        return (np.asarray(_features(texts) @ self.weights) + self.bias).astype(np.float64) * self.scale


def run(
    config: LexiconGold | RuleGold | VerifierGold | ClassifierGold,
    *,
    inputs: Mapping[str, Path],
    out: Path,
    services: Services,
) -> StageSummary:
    """Write the gold reward so that `load_gold` finds it."""
    if isinstance(config, RuleGold):
        write_json(out / "rule.json", config.rule)
        return StageSummary(stage="gold", headline=f"Gold reward: a {config.rule['kind']} rule.")
    if isinstance(config, VerifierGold):
        write_json(out / "verifier.json", config.verifier)
        return StageSummary(stage="gold", headline=f"Gold reward: the verifier {config.verifier['kind']}.")
    path: Path = services.extras["find_file"](config.path)
    if isinstance(config, LexiconGold):
        rule = load_rule(path)
        write_json(out / "lexicon.json", read_json(path))
        return StageSummary(stage="gold", headline=f"Gold reward: the word-list rule `{rule.name}`.")
    return _fit(config, path, out, services)


def load_gold(folder: Path) -> Scorer:
    """The scorer that a gold artifact holds."""
    if (folder / "lexicon.json").is_file():
        return load_rule(folder / "lexicon.json")
    if (folder / "rule.json").is_file():
        return make_rule(read_json(folder / "rule.json"), where=str(folder / "rule.json"))
    if (folder / "verifier.json").is_file():
        return VerifierScorer(read_section(read_json(folder / "verifier.json"), where=str(folder)))
    facts = read_json(folder / "classifier.json")
    weights = np.load(folder / "weights.npy", allow_pickle=False)
    return ClassifierScorer(weights, float(facts["bias"]), float(facts["scale"]))


def _fit(config: ClassifierGold, path: Path, out: Path, services: Services) -> StageSummary:
    texts, labels = _labelled(config, path)
    order = np.random.default_rng(services.seed).permutation(len(texts))
    cut = max(1, int(len(texts) * config.heldout_share))
    services.say(f"gold: fitting on {len(texts) - cut:,} labelled texts")
    features = _features(texts)
    weights, bias = _logistic(features[order[cut:]], labels[order[cut:]])
    is_right = ((features[order[:cut]] @ weights + bias) > 0) == labels[order[:cut]]
    interval = wilson(int(is_right.sum()), len(is_right))
    np.save(out / "weights.npy", weights.astype(np.float32), allow_pickle=False)
    write_json(out / "classifier.json", {"bias": bias, "scale": config.scale, "heldout_accuracy": interval.value})
    return StageSummary(
        stage="gold",
        headline=f"A sentiment classifier fitted on {len(texts) - cut:,} texts is right on {percent(interval.value)} of {cut:,} held-out ones.",
        figures=(
            Figure(
                name="held-out accuracy",
                value=interval.value,
                low=interval.low,
                high=interval.high,
                n=cut,
                unit="share",
            ),
        ),
        verdicts=(GOLD_ACCURACY.judge(interval.value, low=interval.low, high=interval.high, n=cut),),
    )


def _labelled(config: ClassifierGold, path: Path) -> tuple[list[str], npt.NDArray[np.bool_]]:
    texts: list[str] = []
    labels: list[bool] = []
    for row in read_rows(path):
        for field in (config.text_field, config.label_field):
            if field not in row.values:
                raise DataError(explain(f"{row.where}.{field}", None, "is missing", expected="one of " + ", ".join(row.values),
                                        remedy="Set gold.text_field and gold.label_field"))  # fmt: skip
        try:
            label = float(row.values[config.label_field])
        except (TypeError, ValueError) as error:
            raise DataError(explain(f"{row.where}.{config.label_field}", row.values[config.label_field], "is not a number",
                                    expected="a rating", remedy="Fix the row")) from error  # fmt: skip
        if label > config.positive_above or label < config.negative_below:
            texts.append(str(row.values[config.text_field]))
            labels.append(label > config.positive_above)
    if len(set(labels)) < 2:
        raise DataError(
            explain(
                path,
                None,
                "has texts of one kind only",
                expected="good and bad ones",
                remedy="Check gold.positive_above",
            )
        )
    return texts, np.asarray(labels)


def _features(texts: Sequence[str]) -> Any:
    """[B, F] sparse hashed counts; stateless, so nothing but weights must be kept."""
    try:
        from sklearn.feature_extraction.text import HashingVectorizer
    except ImportError as error:
        raise ConfigError(explain("gold.type", "classifier", "needs scikit-learn", expected="the eval extra",
                                  remedy="pip install 'fairlead[eval]'")) from error  # fmt: skip
    return HashingVectorizer(
        n_features=_NUM_FEATURES, ngram_range=_NGRAM_RANGE, alternate_sign=False, norm="l2", binary=True
    ).transform(texts)


def _logistic(features: Any, labels: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.float64], float]:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=20.0, solver="liblinear").fit(features, labels)
    return model.coef_[0], float(model.intercept_[0])
