"""Recipe section of reward models."""

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from fairlead.algos import Algorithm, get_algorithm
from fairlead.core.config import Config
from fairlead.core.errors import explain
from fairlead.core.sections import TrainSection

RANKED = ("plackett_luce", "all_pairs")
RATED = ("criteria", "regression")


class EnsembleSection(Config):
    """Several reward models in place of one."""

    kind: Literal["none", "heads", "seeds", "bootstrap", "disjoint"] = "none"
    """none: one model. heads: one trunk with a head a member, each with its own random weights of the prompts (Bayesian bootstrap).
    Of whole models: seeds differ in start of the head and order of the data, bootstrap draws prompts with replacement, disjoint
    splits the prompts."""
    size: int = Field(default=4, ge=2)
    """Members."""
    combine: Literal["scores", "weights"] = "scores"
    """scores: the mean of the members' normalised scores, with their disagreement; every member is run to score. weights: the mean of
    their weights, one model (WARM); not for heads."""

    @property
    def num_models(self) -> int:
        """Models that are trained one after the other."""
        return 1 if self.kind in ("none", "heads") else self.size

    @property
    def num_heads(self) -> int:
        """Heads of the ensemble on one trunk."""
        return self.size if self.kind == "heads" else 1

    @property
    def has_disagreement(self) -> bool:
        """Do several members score every completion?"""
        return self.kind != "none" and self.combine == "scores"

    @model_validator(mode="after")
    def _has_models(self) -> Self:
        if self.combine == "weights" and self.num_models == 1:
            raise ValueError(explain("combine", self.combine, f"has no models to average with kind={self.kind}",
                                     expected="kind seeds, bootstrap or disjoint", remedy="Change kind, or set combine: scores"))  # fmt: skip
        return self


class UpdateSection(Config):
    """Where a reward model goes on from, in place of the SFT policy with a new head."""

    model: str
    """Artifact id of the earlier reward model."""
    replay: float = Field(default=1.0, ge=0, le=1)
    """Share of the pairs which that model was trained on that is trained on again beside the new ones; 0 forgets them."""


class RewardsConfig(Config):
    """How the reward model is trained. The guides' setting: one epoch, 1e-5, batch 8, embeddings frozen."""

    training: TrainSection = TrainSection(learning_rate=1e-5, num_epochs=1, batch_size=8)
    """Optimiser run; more than one epoch over-fits preferences quickly."""
    freeze_embeddings: bool = True
    """Keep the input embeddings as they are: rare words cannot be turned into reward, and the optimiser state shrinks."""
    loss: Literal["bradley_terry", "plackett_luce", "all_pairs", "criteria", "regression"] = "bradley_terry"
    """bradley_terry: pairs, each for itself. plackett_luce: rankings of k, rebuilt from pairs. all_pairs: the same rankings as the mean of
    their pairs (InstructGPT). criteria: one Bradley-Terry head an attribute. regression: one head an attribute, squared error."""
    top: int | None = Field(default=None, ge=1)
    """Places of a ranking that are read; the completions below are only known to be worse. null reads all."""
    attributes: dict[str, float] = Field(default_factory=dict)
    """Attributes of criteria and regression with their weight in the score, such as {helpfulness: 1, verbosity: -0.3}."""
    use_vote_weights: bool = False
    """Weigh every pair by its number of votes: three of four votes then equal three pairs and one reversed."""
    ensemble: EnsembleSection = EnsembleSection()
    """Several members in place of one model."""
    update: UpdateSection | None = None
    """Go on from an earlier reward model; `fairlead reward update` sets it. null starts from the SFT policy."""
    center_coef: float = Field(default=0.01, ge=0)
    """Weight of (chosen + rejected)^2, which keeps scores near zero; 0 is off."""
    ties: Literal["soft", "davidson", "rao_kupper"] = "soft"
    """Likelihood of a tie: half a win each way, or an explicit tie probability."""
    tie_rate: float = Field(default=0.2, gt=0, lt=1)
    """davidson and rao_kupper: probability of a tie between equally good completions; read it off the votes."""
    max_reference_samples: int = Field(default=1024, ge=16)
    """Completions of the SFT policy on which scores are normalised to mean 0 and sd 1."""

    @field_validator("attributes")
    @classmethod
    def _weights_count(cls, attributes: dict[str, float]) -> dict[str, float]:
        if attributes and not any(attributes.values()):
            raise ValueError(
                explain("attributes", attributes, "weigh nothing", expected="a weight other than 0", remedy="Set one")
            )
        return attributes

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.top is not None and self.loss not in RANKED:
            raise ValueError(explain("top", self.top, f"is not read by loss={self.loss}", expected="loss plackett_luce or all_pairs",
                                     remedy="Change loss or remove top"))  # fmt: skip
        if self.use_vote_weights and self.loss in RATED:
            raise ValueError(explain("use_vote_weights", True, f"is not read by loss={self.loss}", expected="a loss of pairs or rankings",
                                     remedy="Remove it: votes are on pairs, ratings on completions"))  # fmt: skip
        if self.ties != "soft" and self.loss != "bradley_terry":
            raise ValueError(explain("ties", self.ties, f"is not read by loss={self.loss}", expected="loss bradley_terry",
                                     remedy="Remove ties; in rankings a tie is every order, equally likely"))  # fmt: skip
        if self.ties == "soft" and self.tie_rate != RewardsConfig.model_fields["tie_rate"].default:
            raise ValueError(explain("tie_rate", self.tie_rate, "is not read with ties=soft", expected="ties davidson or rao_kupper",
                                     remedy="Set ties or remove tie_rate"))  # fmt: skip
        if self.update is not None and self.ensemble.kind != "none":
            raise ValueError(explain("update.model", self.update.model, f"is not possible with ensemble.kind={self.ensemble.kind}",
                                     expected="one model", remedy="Set ensemble.kind: none"))  # fmt: skip
        if bool(self.attributes) != (self.loss in RATED):
            wrong, remedy = (
                ("are not read", "Change loss or remove them")
                if self.attributes
                else ("are missing", "Name them with weights")
            )
            raise ValueError(explain("attributes", self.attributes or None, f"{wrong} with loss={self.loss}",
                                     expected="attributes with loss criteria or regression", remedy=remedy))  # fmt: skip
        if self.attributes and self.ensemble.has_disagreement:
            raise ValueError(explain("ensemble.combine", self.ensemble.combine, "is not defined for several attributes",
                                     expected="weights, or kind none", remedy="Set ensemble.combine: weights"))  # fmt: skip
        return self

    def algorithm(self) -> tuple[Algorithm, Any]:
        """The loss and its settings."""
        if self.loss == "bradley_terry":
            algo = get_algorithm("reward")
            return algo, algo.config(center_coef=self.center_coef, ties=self.ties, tie_rate=self.tie_rate)
        if self.loss == "regression":
            algo = get_algorithm("regression")
            return algo, algo.config()
        algo = get_algorithm("ranking")
        model = "plackett_luce" if self.loss == "plackett_luce" else "all_pairs"
        return algo, algo.config(model=model, top=self.top, center_coef=self.center_coef)
