"""One cell of the comparison on Fairlead's side; the last line printed is its JSON.

    python -m benchmarks.online.ours --work DIR/S --method grpo --setting default

It runs the loop that `fairlead train` runs (`policies/online.py`): sampling, scoring, the reference, the steps, metrics, rules. Settings: `default`
(GRPO with KL in the loss, PPO as it is), `no_kl` (GRPO's coefficient 0; the KL to the reference is measured all the same), both in the precision that
`auto` takes on this machine, and `fp32` (default in fp32). Losses are compared in fp32.
"""

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from benchmarks.offline.cells import peak_memory_mb, peaks_gflops, report, versions
from benchmarks.online import cells
from fairlead.core.protocols import ComposedReward, GenerateRequest, Sample, Sampling
from fairlead.core.records import Completion, Message, Prompt
from fairlead.core.sections import TextSection
from fairlead.core.services import Services
from fairlead.models.frozen import compute_like
from fairlead.models.heads import ScalarModel, new_reward_head, new_value_head
from fairlead.models.load import CausalModel, load_policy, load_tokenizer
from fairlead.models.memory import keep_freed_memory
from fairlead.policies.online import OnlineLoop, Work
from fairlead.policies.online_config import OnlineConfig
from fairlead.policies.prompt_stream import PromptStream
from fairlead.policies.rollout_models import RolloutModels, choose_rollout_precision
from fairlead.text import Branch, ChatText, Tree, pack_trees
from fairlead.train.hooks import Session
from fairlead.train.setup import prepare_model

SETTINGS = ("default", "no_kl", "fp32")
MANY = 1000
"""Rounds that the run is told to have: it ends when the cell has enough."""
PHASES = {"rl/sample_s": "generate", "rl/score_s": "score", "rl/forward_s": "forward", "rl/train_s": "train"}
RULE = {"components": {"distinct": {"type": "rule", "rule": {"kind": "repetition"}}}}
"""Asks for a composed reward; `Ruled` is what composes it."""


class Enough(Exception):
    """The cell has the steps that it needs."""


def main() -> None:
    """Run the cell."""
    args = cells.parse_args(__doc__, SETTINGS)
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        loop = make_loop(args, Path(folder))
        run(loop)
        rows = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    if args.agree:
        report(losses=[row["loss"] for row in rows], norms=[row["grad_norm"] for row in rows], versions=versions())
        return
    for parts, row in zip(loop.clock.parts, rows, strict=True):
        parts |= {name: row[key] for key, name in PHASES.items()}
    memory = peak_memory_mb()
    report(
        **loop.clock.summary(),
        memory_mb=memory,
        peak_gflops=peaks_gflops(),
        engine=loop.engine.about,
        precision=loop.learner.models.precision,
        versions=versions(),
    )


class TimedLoop(OnlineLoop):
    """The loop, with a clock at the end of every round; it ends after so many."""

    def watch(self, num_rounds: int, *, warmup: int) -> None:
        """Before it runs."""
        self.num_rounds, self.clock = num_rounds, cells.StepClock(warmup=warmup)
        self.is_started = False

    def _fill(self, bos_token_id: int | None) -> None:
        if self.is_started:
            self.clock.tick()
        else:
            self.clock.start()
            self.is_started = True
        if len(self.clock.steps) == self.num_rounds:
            raise Enough
        super()._fill(bos_token_id)


def run(loop: OnlineLoop) -> None:
    """Until there are enough steps."""
    try:
        loop.run(None)
    except Enough:
        return


def make_loop(args: Any, folder: Path) -> TimedLoop:
    """The loop on the prompts and models of the work. Saves nothing, as the peer: a good round would be written while the next is timed."""
    Session.checkpoint_if_due = Session.heed
    config = config_of(args)
    chat = ChatText(load_tokenizer(str(args.work / "model")), template="plain")
    extras = {
        "text": TextSection(template="plain", max_length=2048),
        "compose_rewards": lambda *_found, **_named: Ruled(),
    }
    services = Services(work=folder, seed=args.repeat, extras=extras, say=lambda text: print(text, file=sys.stderr))
    loop = TimedLoop(config, make_models(args, config, services), WorkOfIds(
        prompts=[Prompt(messages=(Message(role="user", content=str(i)),), id=f"p{i:05}") for i in range(len(cells.prompts_of(args)))],
        chat=chat, services=services, metrics_path=folder / "kept.jsonl", ids=cells.prompts_of(args),
    ))  # fmt: skip
    loop.prompts = InOrder(loop.prompts.requests, seed=0)
    loop.watch(args.agree or args.warmup + args.steps, warmup=args.warmup)
    if args.agree:
        loop.collector.sampler.engine = Given(loop.models.policy, cells.given_completions(args))
    return loop


def config_of(args: Any) -> OnlineConfig:
    """The section of a recipe."""
    prompts, method = cells.AGREE_PROMPTS if args.agree else args.prompts, args.method
    size = cells.GROUP * prompts
    given: dict[str, Any] = {
        "algorithm": method, "num_iterations": MANY, "batch_size": size, "group_size": cells.GROUP, "minibatch_size": size,
        "num_epochs": cells.EPOCHS[method], "max_new_tokens": cells.AGREE_TOKENS if args.agree else args.new,
        "training": {"learning_rate": cells.LEARNING_RATE, "schedule": "constant", "warmup_share": 0.0, "beta2": 0.999, "adam_eps": 1e-8},
    }  # fmt: skip
    if method == "grpo":
        given |= {
            "rewards": RULE,
            "kl": {"kl_coef": 0.0 if args.setting == "no_kl" else cells.KL_COEF["grpo"]},
        }
    else:
        given |= {
            "kl": {"kl_coef": cells.KL_COEF["ppo"], "target": None},
            "length_coef": 0.0,
            "missing_eos_penalty": 0.0,
            "score_clip": None,
        }
    if args.setting == "fp32":
        given["training"] |= {"precision": "fp32"}
    if args.agree:
        given |= {"rewards": RULE, "num_epochs": cells.AGREE_EPOCHS[method]}
        given["training"] |= {
            "learning_rate": cells.AGREE_RATE,
            "max_grad_norm": 1e9,
            "alerts": {"mode": "off"},
            "precision": "fp32",
        }
        if method == "grpo":
            given["options"] = {"aggregation": "token_mean"}
    return OnlineConfig.model_validate(given)


def make_models(args: Any, config: OnlineConfig, services: Services) -> RolloutModels:
    """The same weights as the peer's; the value model starts as the reward model's trunk, which is the policy's."""
    policy = load_policy(str(args.work / "model"))
    policy.set_precision(choose_rollout_precision(config, policy, services))

    def load() -> CausalModel:
        return load_policy(str(args.work / "model"), precision=policy.arithmetic.precision)

    def frozen() -> CausalModel:
        model = load()
        model.module.requires_grad_(False)
        return model

    reward: ScalarModel | None = None
    if config.rewards is None:
        reward = new_reward_head(frozen(), seed=0)
        with torch.no_grad():
            reward.head.weight.copy_(load_file(args.work / "reward" / "model.safetensors")["score.weight"])
        compute_like(reward, policy.arithmetic.precision, machine_file=services.extras.get("machine_file"))
    value = new_value_head(prepare_model(load(), config.training, seed=0)) if config.method.has_values else None
    return RolloutModels(
        policy=prepare_model(policy, config.training, seed=0), reference=frozen(), reward=reward, value=value
    )


class WorkOfIds(Work):
    """A run on prompts that are token ids already."""

    def __init__(self, *, ids: list[list[int]], **given: Any) -> None:
        super().__init__(**given)
        object.__setattr__(self, "_ids", ids)

    def requests(self, config: OnlineConfig) -> list[GenerateRequest]:
        """As they are."""
        found: list[list[int]] = self._ids  # pyright: ignore[reportAttributeAccessIssue]
        return [GenerateRequest(key=p.id, token_ids=tuple(ids)) for p, ids in zip(self.prompts, found, strict=True)]


class InOrder(PromptStream):
    """Prompts as they come, as the peer's."""

    def _places(self, num: int) -> list[int]:
        return [(self.cursor + i) % len(self.requests) for i in range(num)]


class Ruled:
    """Implements RewardComposer: pays by `cells.reward`."""

    needs_groups = False

    def score(
        self, prompts: Sequence[Prompt], completions: Sequence[Completion], *, step: int, is_aside: bool = False
    ) -> ComposedReward:
        """[B] shares of different tokens."""
        total = np.array([cells.reward(c.token_ids) for c in completions])
        return ComposedReward(total=total, components={"distinct": total}, dropped=np.zeros(len(total), dtype=np.bool_))

    def state(self) -> Mapping[str, Any]:
        """Nothing."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing to go on from."""

    def save(self, out: Path) -> None:
        """Nothing to keep."""


class Given:
    """A sampler that gives the completions of the work, with the policy's own logprobs."""

    def __init__(self, policy: CausalModel, completions: list[list[list[int]]]) -> None:
        self.policy, self.completions = policy, completions

    def generate(self, requests: Sequence[GenerateRequest], sampling: Sampling) -> Iterator[Sample]:
        """Those of each prompt; keys are places."""
        for request in requests:
            given = [np.array(ids, dtype=np.int64) for ids in self.completions[int(request.key[1:])]]
            tree = Tree(
                prompt_ids=np.array(request.token_ids, dtype=np.int64),
                branches=tuple(Branch(token_ids=ids) for ids in given),
            )
            with torch.no_grad():
                found = self.policy.logprobs(pack_trees([tree]), temperature=1.0).logprobs.numpy()
            for i, (ids, logprobs) in enumerate(
                zip(given, np.split(found, np.cumsum([len(ids) for ids in given])[:-1]), strict=True)
            ):
                yield Sample(
                    key=request.key, sample_index=i, token_ids=ids, sampling_logprobs=logprobs, finish_reason="length"
                )


if __name__ == "__main__":
    main()
