"""From a choice to a recipe: sections whose keys say their unit and why.

Example:
    tree = compose(plan)
    text = render(tree, head=["..."])
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fairlead.cli.choosing import Choice, Situation, learning_rate, uses_lora
from fairlead.cli.recipe_text import Key, Section, Tree

HEDGES = ("maybe", "perhaps", "i guess", "i suppose", "sort of", "kind of", "hard to say", "it depends", "not sure")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that a written recipe depends on."""

    name: str
    model: str
    situation: Situation
    choice: Choice
    has_sft: bool = True
    slices: Mapping[str, float] = field(default_factory=dict[str, float])
    """Declared share of each slice; empty where prompts have no column `slice`."""
    heldout: Key = field(default_factory=lambda: Key(0.1, "share of prompts kept back for the evaluation"))
    max_length: int = 512
    max_new_tokens: int = 128
    behaviours: tuple[Key, ...] = ()


def compose(plan: Plan) -> Tree:
    """The whole recipe."""
    tree: dict[str, Key | Section] = {
        "name": Key(plan.name, "folder of the run under FAIRLEAD_HOME"),
        "scope": Key(plan.situation.scope, "toy, narrow (one task) or general; gates ask for that many data"),
        "seed": Key(0, "everything random derives from it"),
        "device": Key("auto", "cuda, then mps, then cpu"),
        "model": Key(plan.model, "a transformers folder or a hub id"),
        "text": Section("how conversations become tokens", {
            "template": Key(None, "null: the tokenizer's own chat template; chatml, plain or a Jinja file otherwise"),
            "max_length": Key(plan.max_length, "tokens, prompt and completion together; longer pairs are dropped and counted"),
        }),
        "prompts": _prompts(plan),
    }  # fmt: skip
    if plan.has_sft:
        tree["sft"] = _sft(plan)
    tree["completions"] = _completions(plan)
    tree["preferences"] = _preferences()
    if plan.choice.method == "ppo" or "reranking" in plan.situation.needs:
        tree["rewards"] = _rewards(plan)
    policy = _ppo(plan) if plan.choice.method == "ppo" else _dpo(plan)
    tree["policies"] = Section(f"decided by the rule {plan.choice.rule.name}", {plan.choice.method: policy})
    tree["evals"] = _evals(plan)
    tree["releases"] = Section(
        "which policy is released",
        {"policy": Key("best", "the one that the evaluation ranks first, if its gates allow it")},
    )
    return tree


def _prompts(plan: Plan) -> Section:
    source = {"path": "prompts.jsonl", **({"slice_field": "slice"} if plan.slices else {})}
    keys: dict[str, Key | Section] = {
        "sources": Key([Key(source, f"rows of {{{'prompt, slice' if plan.slices else 'prompt'}}}; relative to this file")], "where they come from"),
    }  # fmt: skip
    if plan.slices:
        keys["mix"] = Key(dict(plan.slices), "declared share of each slice; the report compares")
    keys["heldout"] = plan.heldout
    keys["dedupe"] = Key(
        "near", "drop prompts that are equal or nearly so; exact where small differences are the point"
    )
    return Section("prompts of the run: completions, PPO and the evaluation use them", keys)


def _sft(plan: Plan) -> Section:
    return Section("supervised fine-tuning on replies as they should be; remove it when the model follows instructions well enough", {
        "data": Key([Key({"path": "demonstrations.jsonl"}, "rows of {prompt, completion}, or any format of docs/formats.md")], "demonstrations"),
        "training": Section("the guides' setting", _training(plan, "sft", epochs=3, epochs_why="passes; stops early when held-out perplexity rises",
                                                             batch=16, batch_why="conversations a step (guides: 4 x 4)")),
        "patience": Key(1, "evaluations without improvement before training stops"),
    })  # fmt: skip


def _completions(plan: Plan) -> Section:
    return Section("completions for people to compare (`fairlead complete`), and samples on which rewards are normalised", {
        "num_samples": Key(4, "completions a prompt; ranking several beats scoring one"),
        "max_new_tokens": Key(plan.max_new_tokens, "tokens; longest completion"),
        "temperature": Key(1.0, "of sampling; lower gives pairs that are too alike to compare"),
    })  # fmt: skip


def _preferences() -> Section:
    return Section("what people preferred", {
        "path": Key("preferences.jsonl", "written by `fairlead votes aggregate`, or any format of docs/formats.md"),
        "heldout": Key(0.1, "share of prompts held out to measure the reward model and DPO on"),
        "ties": Key("drop", "ties teach DPO nothing; keep them for a reward model with rewards.ties: davidson"),
    })  # fmt: skip


def _rewards(plan: Plan) -> Section:
    return Section("the reward model, from the SFT policy; held-out accuracy of 65 to 75 % is usual, below 60 % stops", {
        "training": Section("the guides' setting", _training(plan, "rewards", epochs=1, epochs_why="pass; a second one over-fits preferences",
                                                             batch=8, batch_why="pairs a step")),
        "freeze_embeddings": Key(True, "rare words cannot be turned into reward, and the optimiser state shrinks"),
        "center_coef": Key(0.01, "weight of (chosen + rejected)^2, which keeps scores near zero"),
    })  # fmt: skip


def _dpo(plan: Plan) -> Section:
    choice = plan.choice
    keys: dict[str, Key | Section] = {
        "algorithm": Key(choice.link, "robust: unbiased under flipped votes" if choice.link == "robust" else "sigmoid link; ipo for hard labels"),
        "beta": Key(0.1, "pull towards the reference, a nat; lower moves further from it"),
    }  # fmt: skip
    if choice.link == "robust":
        keys["flip_rate"] = Key(
            choice.flip_rate,
            f"share of votes assumed wrong: (1 - sqrt(2 A - 1)) / 2 at agreement A = {plan.situation.agreement:.2f}",
        )
        keys["use_soft_labels"] = Key(
            False, "one vote a pair; with several votes a pair use algorithm: dpo and soft labels instead"
        )
    else:
        keys["use_soft_labels"] = Key(True, "train on the share of votes rather than on 1")
    keys["training"] = Section("one pass; direct methods over-optimise too", _training(
        plan, "dpo", epochs=1, epochs_why="pass over the pairs", batch=32, batch_why="pairs a step", schedule="linear", warmup=0.1))  # fmt: skip
    return Section("direct preference optimisation from the SFT policy", keys)


def _ppo(plan: Plan) -> Section:
    is_large = plan.situation.num_parameters >= 1e9
    return Section("PPO against the reward model, on scores normalised to mean 0 and sd 1 on reference samples", {
        "algorithm": Key("ppo", "name of the method"),
        "num_iterations": Key(100, "rounds of sampling and training; watch the KL and the behaviours, not the reward alone"),
        "batch_size": Key(64, "completions a round (guides)"),
        "minibatch_size": Key(4 if is_large else 16, "completions an optimiser step (guides: 4 for large models)"),
        "num_epochs": Key(4, "passes over each round's completions (guides)"),
        "max_new_tokens": Key(plan.max_new_tokens, "tokens; longest completion"),
        "kl": Section("penalty for leaving the reference", {
            "kl_coef": Key(0.2, "reward a nat, first value (guides); 0.5 when text turns incoherent, 0.05 when nothing moves"),
            "target": Key(6.0, "nats a sequence that the controller holds; null keeps kl_coef fixed"),
            "horizon": Key(10_000, "episodes over which the controller reacts"),
        }),
        "length_coef": Key(None, "null: max(0.1, what a longer reply was measured to earn); against verbosity"),
        "training": Section("one optimiser run for policy and value model", {
            k: v for k, v in _training(plan, "ppo", epochs=1, epochs_why="", batch=1, batch_why="", schedule="linear", warmup=0.0).items()
            if k not in ("num_epochs", "batch_size")
        }),
    })  # fmt: skip


def _training(
    plan: Plan, stage: str, *, epochs: int, epochs_why: str, batch: int, batch_why: str, schedule: str = "cosine", warmup: float = 0.05
) -> dict[str, Key | Section]:  # fmt: skip
    situation = plan.situation
    is_lora = uses_lora(situation, stage)
    rate = learning_rate(stage, num_parameters=situation.num_parameters, is_lora=is_lora)
    keys: dict[str, Key | Section] = {
        "learning_rate": Key(rate.value, f"peak of AdamW; {rate.why}"),
        "num_epochs": Key(epochs, epochs_why),
        "batch_size": Key(batch, batch_why),
        "schedule": Key(schedule, "shape after the warm-up"),
        "warmup_share": Key(warmup, "share of the steps in which the rate rises"),
    }  # fmt: skip
    if is_lora:
        need = situation.memory_gb(stage, is_lora=False)
        keys["lora"] = Section(f"all weights would need about {need:,.0f} GB of states; {situation.hardware.memory_gb:g} GB are there", {
            "rank": Key(16, "inner width of the adapters"),
            "alpha": Key(32.0, "scale: the update is multiplied by alpha / rank"),
            "target_modules": Key("all-linear", "every linear layer; attention alone learns less"),
        })  # fmt: skip
    return keys


def _evals(plan: Plan) -> Section:
    return Section("measured before and after, on the same prompts; frozen before training", {
        "max_prompts": Key(200, "held-out prompts used at most; 194 find a win rate of 60 % with 80 % power"),
        "num_samples": Key(2, "replies a prompt; two or more show replies becoming alike"),
        "max_new_tokens": Key(plan.max_new_tokens, "tokens; longest reply"),
        "criteria": Section("what counts as success: behaviours, not the reward", {
            "behaviours": Key(list(plan.behaviours or default_behaviours()), "aims, and guards that must not get worse; write your own"),
        }),
    })  # fmt: skip


def behaviour(why: str, **keys: Any) -> Key:
    """One line of the criteria."""
    return Key(keys, why)


FINISHED = behaviour(
    "guard: replies must still end by themselves",
    id="finished",
    direction="up",
    metric="finished",
    min_effect=0.01,
    guard=True,
)
LENGTH = behaviour("guard: words may change by a quarter at most; verbosity is the commonest hack", id="length", direction="flat", metric="words",
                   min_effect=0.25, is_relative=True, guard=True)  # fmt: skip
VARIETY = behaviour("guard: replies to one prompt must not become alike (self-BLEU, 0 to 1)", id="sameness", direction="flat", metric="self_bleu",
                    min_effect=0.1, guard=True)  # fmt: skip


def default_behaviours() -> tuple[Key, ...]:
    """Where nothing is known of the goal: less hedging, and nothing else bent."""
    hedging = behaviour("aim: 5 points fewer replies that hedge; replace it by what your goal means",
                        id="hedging", direction="down", metric="phrases",                        min_effect=0.05, phrases=list(HEDGES))  # fmt: skip
    return (hedging, FINISHED, LENGTH, VARIETY)
