"""The rules that every training run starts with. A recipe changes, switches off or adds some under `training.alerts`.

Drift is measured against the start of the run, where policy and reference are one. One drift alone warns, for it comes early and is not
specific; two at once undo training (`hacking`). `docs/troubleshooting.md` has each rule with its failure.
"""

from collections.abc import Container, Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

from fairlead.core.errors import ConfigError, explain, nearest
from fairlead.telemetry.alerts import NOT_FINITE, Action, Condition, Rule
from fairlead.telemetry.metrics import describe

_SNAPSHOT = Action(kind="snapshot")
_ROLL_BACK = Action(kind="roll_back")
_STOP = Action(kind="stop")
_SLOWER = Action(kind="scale_rate", factor=0.5, bound=0.25)
_RAISE_KL = Action(kind="raise_kl", factor=1.5, bound=2.0)  # 2 nats a sequence at a reward of standard deviation 1
_FLAT = 0.1  # standard deviations of the score: less than what chance moves a straight line through ten rounds of 64
_DIVERSE = 0.75  # of the start; below this replies are becoming alike


def _drift(
    metric: str, limit: float, *, relative_to: Literal["start", "start_added"] = "start", side: Literal["above", "below"] = "above", window: int = 3,
) -> Condition:  # fmt: skip
    """A limit set by the start of the run."""
    return Condition(metric=metric, side=side, limit=limit, window=window, relative_to=relative_to)


_KL = (
    Rule(id="kl_high", when=(Condition(metric="rl/kl_k1", side="above", limit=0.5),),
         remedy="Raise kl.kl_coef or lower the learning rate", source="upper end of the guides' band 0.1 to 0.5, nats a token"),
    Rule(id="kl_runaway", when=(Condition(metric="rl/kl_k1", side="above", limit=1.0),), actions=(_RAISE_KL, _ROLL_BACK), max_times=2,
         last=(_STOP,), remedy="The reward is not to be trusted this far out: raise kl.kl_coef, lower the learning rate, or stop earlier",
         source="policies that collapsed stood at 0.94 to 1.6 nats a token, arXiv 2403.17031"),
    Rule(id="kl_negative", when=(Condition(metric="rl/kl_k1", side="below", limit=-3.0, scale="rl/kl_k1_error"),
                                 Condition(metric="rl/kl_k1", side="below", limit=-0.001)), actions=(_SNAPSHOT,),
         remedy="A KL cannot be negative: check that policy and reference use the same temperature, mask and template",
         source="three standard errors"),
    Rule(id="kl_collapse", when=(Condition(metric="rl/kl_k1", side="below", limit=0.005, window=10, over="mean"),
                                 Condition(metric="rl/score", side="below", limit=_FLAT, window=10, over="rise", scale="rl/score_std"),
                                 Condition(metric="rl/distinct_2", side="above", limit=_DIVERSE, window=10, over="mean", relative_to="start")),
         actions=(Action(kind="lower_kl", factor=0.5, bound=0.05), Action(kind="scale_rate", factor=1.5, bound=1.5)), warmup=20,
         again_after=10, max_times=3, spoils=False,
         remedy="The policy is stuck at its reference: lower kl.kl_coef, raise the learning rate, and check that scores differ within a prompt",
         source="the guides: coefficient to 0.05, rate up slightly, when KL is 0 and the reward flat"),
    Rule(id="kl_wasted", when=(Condition(metric="rl/kl_efficiency", side="below", limit=0.2, window=10, over="mean"),
                               Condition(metric="rl/kl_k1", side="above", limit=0.05, window=10, over="mean")), warmup=10, spoils=False,
         remedy="KL is spent without reward: look at the samples, lower the learning rate or raise kl.kl_coef",
         source="theory has about 1 for the best small tilt"),
    Rule(id="kl_too_cheap", when=(Condition(metric="rl/kl_efficiency", side="above", limit=1.3, window=10, over="mean"),
                                  Condition(metric="rl/kl_k1", side="above", limit=0.01, window=10, over="mean")), warmup=10,
         remedy="More reward than this KL can buy: look for scores with a heavy tail, or for a reward that changed meanwhile",
         source="theory has at most about 1"),
)  # fmt: skip
_TEXT = (
    Rule(id="incoherence", need=1, when=tuple(
            Condition(metric=name, side="above", limit=2.0, window=5, over="mean", relative_to="start")
            for name in ("rl/reference_perplexity", "rl/base_perplexity")),
         actions=(_SNAPSHOT, Action(kind="raise_kl", bound=0.5)), mode="propose", warmup=5,
         remedy="The frozen model finds the replies twice as improbable as its own: read samples; set kl.kl_coef to 0.5 if they are no language",
         source="the guides: coefficient to 0.5 when text turns incoherent"),
    Rule(id="length", when=(_drift("rl/length_tokens", 1.25),), actions=(_SNAPSHOT,),
         remedy="Add a length penalty, or retrain a reward model on pairs of equal length", source="proposal: a quarter longer than the start"),
    Rule(id="truncation", when=(Condition(metric="rl/missing_eos_share", side="above", limit=0.05),), spoils=False,
         remedy="Raise max_new_tokens or the penalty for a missing end of turn", source="proposal"),
    Rule(id="repetition", when=(_drift("rl/repetition", 0.05, relative_to="start_added"),), actions=(_SNAPSHOT,),
         remedy="Replies repeat themselves: add preferences against it, or a repetition penalty to the reward", source="proposal"),
    Rule(id="mode_collapse", when=(_drift("rl/distinct_2", _DIVERSE, side="below"),), actions=(_SNAPSHOT,),
         remedy="Replies become alike; a stronger KL penalty does not bring diversity back: stop earlier, raise the temperature, refresh the reward",
         source="proposal; KL and diversity: arXiv 2310.06452"),
    Rule(id="disagreement", when=(_drift("rl/disagreement", 1.5),), actions=(_SNAPSHOT,),
         remedy="The policy leaves what the reward models know: raise uncertainty_coef or refresh them on current samples", source="proposal"),
    Rule(id="hacking", need=2, actions=(_SNAPSHOT, _RAISE_KL, _ROLL_BACK), max_times=2, last=(_STOP,),
         when=(_drift("rl/length_tokens", 2.0), Condition(metric="rl/missing_eos_share", side="above", limit=0.2),
               _drift("rl/repetition", 0.2, relative_to="start_added"), _drift("rl/distinct_2", 0.5, side="below"),
               _drift("rl/disagreement", 2.5)),
         remedy="The reward is gamed: read samples, add preferences against what you see, retrain or mend what scores, add a length penalty",
         source="length, diversity and repetition together, as the guides ask; one alone is early and not specific"),
)  # fmt: skip
_LEARNING = (
    Rule(id="entropy_low", when=(_drift("rl/entropy", 0.5, side="below"),), spoils=False,
         remedy="Lower the learning rate, raise kl.kl_coef, or sample at temperature 1", source="proposal: half of the start"),
    Rule(id="entropy_collapse", when=(_drift("rl/entropy", 0.15, side="below"),
                                      Condition(metric="rl/score", side="below", limit=_FLAT, window=5, over="rise", scale="rl/score_std")),
         actions=(_SNAPSHOT,), spoils=False,
         remedy="Nothing is explored and nothing gained any more: stop here if the task is solved, else go back and lower the learning rate",
         source="gain is paid with entropy, arXiv 2505.22617"),
    Rule(id="score_spread", when=(_drift("rl/score_std", 0.25, side="below"),), spoils=False,
         remedy="The reward no longer tells completions apart: refresh prompts or what scores them", source="arXiv 2503.15477"),
    Rule(id="zero_variance", when=(Condition(metric="rl/zero_variance_share", side="above", limit=0.5, window=5, over="mean"),), spoils=False,
         remedy="Most groups teach nothing: drop prompts that are always or never solved, or resample groups (dynamic sampling)",
         source="proposal: more than half of the groups"),
    Rule(id="explained_variance", when=(Condition(metric="rl/explained_variance", side="below", limit=0.0, window=10, over="mean"),), warmup=10,
         spoils=False, remedy="The value model is worse than a constant: train it longer before the policy, or use a method without one",
         source="0 is a constant"),
    Rule(id="clip_fraction", when=(Condition(metric="rl/clip_fraction", side="above", limit=0.3),), spoils=False,
         remedy="Lower the learning rate or make fewer epochs a batch", source="proposal"),
    Rule(id="update_kl", when=(Condition(metric="rl/approx_kl", side="above", limit=0.1),), spoils=False,
         remedy="Lower the learning rate or make fewer epochs a batch", source="proposal"),
    Rule(id="gradient_jump", when=(_drift("grad_norm", 10.0),), actions=(Action(kind="scale_rate", factor=0.5, bound=0.5),),
         mode="propose", spoils=False, remedy="Training diverges: lower the learning rate, and look at the rows of these batches",
         source="ten times the start"),
    Rule(id="chosen_fall", when=(_drift("dpo/chosen_logprobs", 1.5, side="below", window=5),), spoils=False,
         remedy="Chosen completions lose probability: raise beta, add an SFT term, or stop earlier", source="proposal"),
)  # fmt: skip
_BUGS = (
    Rule(id="first_ratio", when=(Condition(metric="rl/first_ratio_gap", side="above", limit=0.01, window=1),), actions=(_SNAPSHOT, _STOP),
         remedy="old_logprobs are not those of the policy that starts the update: recompute them in the trainer, and switch dropout off",
         source="exactly 1 but for rounding"),
    Rule(id="sampling_gap", when=(Condition(metric="rl/sampling_gap", side="above", limit=0.05),), spoils=False,
         remedy="Recompute old_logprobs in the trainer or correct by importance weights", source="proposal"),
    Rule(id="few_samples", when=(Condition(metric="rl/mismatch_sample_share", side="below", limit=0.5),), spoils=False,
         remedy="Importance weights rest on few samples: lower the staleness bound, or look for what engine and trainer compute differently",
         source="proposal: half of the samples"),
    Rule(id="too_few_samples", when=(Condition(metric="rl/mismatch_sample_share", side="below", limit=0.1),), actions=(_SNAPSHOT, _SLOWER),
         remedy="Updates rest on a tenth of the samples: lower the staleness bound, or recompute old_logprobs", source="proposal: a tenth"),
    Rule(id="staleness", when=(Condition(metric="rl/staleness", side="above", limit=4.0),), spoils=False,
         remedy="Samples are of old policies: lower the staleness bound, sample smaller rounds, or give the engine more of the machine",
         source="proposal: four updates behind"),
    Rule(id="tools_fail", when=(Condition(metric="rl/tool_failed", side="above", limit=0.1),), spoils=False,
         remedy="The environment is too slow, crashes or raises: see what the run said of it first, raise its timeout_s, or repair it",
         source="proposal: a tenth of the rollouts"),
    Rule(id="tools_misused", when=(Condition(metric="rl/tool_errors", side="above", limit=0.5, window=5, over="mean"),), spoils=False,
         remedy="Most calls are not understood: show their form in demonstrations, or set tools.error_penalty", source="proposal: half of the calls"),
    Rule(id="turns_run_out", when=(Condition(metric="rl/turn_limit_share", side="above", limit=0.2, window=5, over="mean"),), spoils=False,
         remedy="Rollouts end before their answer: raise tools.max_turns or max_new_tokens", source="proposal: a fifth of the rollouts"),
    Rule(id=NOT_FINITE, when=(), actions=(_STOP,), remedy="Look at the rows of this step, and train with a lower learning rate"),
)  # fmt: skip
DEFAULT_RULES: tuple[Rule, ...] = (*_BUGS, *_KL, *_TEXT, *_LEARNING)


def without_metrics(rules: Iterable[Rule], muted: Container[str]) -> tuple[Rule, ...]:
    """The rules as if these metrics were not logged, because the config says that their values are meant."""
    kept: list[Rule] = []
    for rule in rules:
        when = tuple(
            condition for condition in rule.when if condition.metric not in muted and str(condition.scale) not in muted
        )
        if when == rule.when or (rule.need is not None and len(when) >= rule.need):
            kept.append(replace(rule, when=when))
    return tuple(kept)


def moves_kl(action: Action, kl_coef: float | None) -> bool:
    """Whether an action on the KL coefficient can do anything: there is one, and a factor does not multiply 0.

    Args:
        kl_coef: the largest that the training's config gives, reward units a nat; None where it has none.
    """
    return kl_coef is not None and (kl_coef > 0 or action.factor is None)


def choose_rules(
    section: Mapping[str, Any], *, kl_coef: float | None, where: str = "training.alerts"
) -> tuple[Rule, ...]:
    """The rules of a recipe: the default ones with its changes, then its own.

    Of the default ones' actions those that would move a KL coefficient where there is none are left out, so that no alert says that it did.

    Args:
        section: `core.alert_sections.AlertsSection` as plain data.
        kl_coef: the largest coefficient that this training's config gives, reward units a nat; None where it has none.
    Raises:
        ConfigError: a rule, a metric or a limit that is not there, or an action that can do nothing here; located below `where`.
    """
    known = {rule.id: _doable(rule, kl_coef) for rule in DEFAULT_RULES}
    for name, change in section["rules"].items():
        if name not in known:
            raise ConfigError(explain(f"{where}.rules.{name}", None, f"is not a rule{nearest(name, known)}", expected="one of " + ", ".join(known),
                                      remedy="Rename it, or write a rule of your own under more"))  # fmt: skip
        _refuse_idle(change["actions"] or (), kl_coef, where=f"{where}.rules.{name}.actions")
        known[name] = _changed(known[name], change, where=f"{where}.rules.{name}")
    for i, own in enumerate(section["more"]):
        if own["id"] in known:
            raise ConfigError(explain(f"{where}.more.{i}.id", own["id"], "is taken", expected="a new name",
                                      remedy="Rename it, or change the rule of that name under rules"))  # fmt: skip
        _refuse_idle(own["actions"], kl_coef, where=f"{where}.more.{i}.actions")
        known[own["id"]] = _own(own, where=f"{where}.more.{i}")
    if section["mode"] == "off":
        return ()
    rules = known.values()
    if section["mode"] == "propose":
        return tuple(replace(rule, mode="propose" if rule.mode == "act" else rule.mode) for rule in rules)
    return tuple(rules)


def _doable(rule: Rule, kl_coef: float | None) -> Rule:
    """Without actions that would move a KL coefficient where there is none."""

    def kept(actions: tuple[Action, ...]) -> tuple[Action, ...]:
        return tuple(a for a in actions if a.kind not in ("raise_kl", "lower_kl") or moves_kl(a, kl_coef))

    return replace(rule, actions=kept(rule.actions), last=kept(rule.last))


def _refuse_idle(actions: Iterable[Mapping[str, Any]], kl_coef: float | None, *, where: str) -> None:
    """Refuse an action of the recipe's own on a KL coefficient that is not there."""
    for action in actions:
        if action["kind"] in ("raise_kl", "lower_kl") and not moves_kl(Action(**action), kl_coef):
            why = (
                "there is no KL coefficient in this training"
                if kl_coef is None
                else "the KL coefficient is 0, and a factor leaves it there"
            )
            remedy = (
                "Remove it" if kl_coef is None else "Set kl.kl_coef above 0, or give the action a bound and no factor"
            )
            raise ConfigError(explain(where, action["kind"], f"can do nothing: {why}", expected="snapshot, scale_rate, roll_back or stop",
                                      remedy=remedy))  # fmt: skip


def _changed(rule: Rule, change: Mapping[str, Any], *, where: str) -> Rule:
    when = list(rule.when)
    for metric, limit in change["limits"].items():
        places = [i for i, condition in enumerate(when) if condition.metric == metric]
        if len(places) != 1:
            raise ConfigError(explain(f"{where}.limits.{metric}", limit, "is not one limit of this rule",
                                      expected="one of " + ", ".join(dict.fromkeys(c.metric for c in rule.when)),
                                      remedy="Rename it, or write a rule of your own under more"))  # fmt: skip
        when[places[0]] = replace(when[places[0]], limit=limit)
    if change["window"] is not None:
        when = [replace(condition, window=change["window"]) for condition in when]
    actions = rule.actions if change["actions"] is None else tuple(Action(**action) for action in change["actions"])
    last = rule.last if change["actions"] is None else ()
    warmup = rule.warmup if change["warmup"] is None else change["warmup"]
    return replace(rule, when=tuple(when), mode=change["mode"] or rule.mode, warmup=warmup, actions=actions, last=last)


def _own(row: Mapping[str, Any], *, where: str) -> Rule:
    conditions = tuple(Condition(**condition) for condition in row["when"])
    for i, condition in enumerate(conditions):
        for key, name in (("metric", condition.metric), ("scale", condition.scale)):
            try:
                if name is not None:
                    describe(name)
            except ConfigError as error:
                raise ConfigError(f"{where}.when.{i}.{key}: {error}") from error
    actions = tuple(Action(**action) for action in row["actions"])
    return Rule(**{**row, "when": conditions, "actions": actions})
