"""A whole on-policy run on tiny models, with a reward that the test says."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import tiny_models
from fairlead.core.config import parse_config
from fairlead.core.records import Completion, Message, Prompt
from fairlead.core.reward_section import ComposeSection
from fairlead.core.sections import TextSection
from fairlead.core.services import Services
from fairlead.models.arithmetic import Precision
from fairlead.models.heads import new_value_head
from fairlead.models.load import CausalModel
from fairlead.policies.online import OnlineConfig, OnlineLoop, Work
from fairlead.policies.rollout_models import RolloutModels
from fairlead.rewards.composer import Composer
from fairlead.rewards.sources import Direct
from fairlead.text import ChatText

SECTION: dict[str, Any] = {"components": {"said": {"type": "rule", "rule": {"kind": "missing_eos"}}}}
"""The rule stands for whatever the test scores with."""
SMALL: dict[str, Any] = {
    "num_iterations": 3, "batch_size": 8, "minibatch_size": 4, "max_new_tokens": 6, "rewards": SECTION,
    "training": {"learning_rate": 1e-3}, "kl": {"kl_coef": 0.1},
}  # fmt: skip
METHODS: dict[str, dict[str, Any]] = {"ppo": {"num_epochs": 2}, "grpo": {"group_size": 4}}
"""With a value model and without, whole groups and single completions."""
Score = Callable[[Completion], float]


def by_tokens(completion: Completion) -> float:
    """A reward that tells completions apart: the share of even token ids."""
    return float(np.mean([token % 2 == 0 for token in completion.token_ids]))


class Said:
    """A scorer that asks a function a completion."""

    name = "said"

    def __init__(self, score: Score) -> None:
        self.of = score

    def score(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> Any:
        return np.array([self.of(c) for c in completions], dtype=np.float64)


def make_loop(
    folder: Path,
    method: str,
    score: Score = by_tokens,
    *,
    services: Mapping[str, Any] | None = None,
    base: CausalModel | None = None,
    kind: str = "llama",
    precision: Precision = "fp32",
    **changes: Any,
) -> OnlineLoop:
    """A loop whose state lies in `folder`; a checkpoint after every step."""
    config = OnlineConfig.model_validate({"algorithm": method, **SMALL, **METHODS.get(method, {}), **changes})
    chat = ChatText(tiny_models.make_tokenizer(), name="policy")
    folder.mkdir(parents=True, exist_ok=True)
    section = parse_config(ComposeSection, SECTION, where="rewards")

    def compose(_section: ComposeSection, **_given: Any) -> Composer:
        return Composer(section, {"said": Direct(Said(score))}, say=given.say)

    given = Services(**{"work": folder / "work", "checkpoint_every_s": 0.0,
                        "extras": {"text": TextSection(max_length=32), "compose_rewards": compose},
                        **(services or {})})  # fmt: skip
    given.work.mkdir(exist_ok=True)
    prompts = [
        Prompt(messages=(Message(role="user", content=text),))
        for text in ("a man", "yes", "the ball", "no", "home", "what")
    ]

    def load() -> CausalModel:
        model = tiny_models.load(kind)
        model.set_precision(precision)
        return model

    policy = load()
    trunk = policy if config.value_model == "shared" else load()
    models = RolloutModels(
        policy=policy, reference=load(), reward=None, base=base,
        value=new_value_head(trunk) if config.method.has_values else None,
    )  # fmt: skip
    return OnlineLoop(
        config, models, Work(prompts=prompts, chat=chat, services=given, metrics_path=folder / "metrics.jsonl")
    )


def run(loop: OnlineLoop) -> OnlineLoop:
    """All of it."""
    loop.run(bos_token_id=1)
    return loop


def rows(folder: Path) -> list[dict[str, float]]:
    """The metrics of a run that ended, a row a round."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def live_rows(folder: Path) -> list[dict[str, float]]:
    """The same with what the clock decides, also of a run that did not end."""
    return [json.loads(line) for line in (folder / "work" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
