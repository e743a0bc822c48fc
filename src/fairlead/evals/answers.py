"""The same prompts answered by each policy with the same seeds, and what the models say about the answers."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from fairlead.core.protocols import GenerateRequest, Sample, Sampler, Sampling
from fairlead.core.records import Completion, Prompt
from fairlead.core.services import ProgressBar, Services
from fairlead.engine.dialogues import Dialogues, check_template
from fairlead.engine.fallback import open_engine
from fairlead.engine.rollouts import Rollout, as_completion, sample_rollouts
from fairlead.evals.behaviours import group_completions
from fairlead.evals.capability import scoring_budget
from fairlead.evals.config import EvalsConfig
from fairlead.models.heads import ScalarModel
from fairlead.models.load import CausalModel
from fairlead.text.chat import ChatText
from fairlead.text.packing import Tree
from fairlead.text.prompts import encode_prompts
from fairlead.train.forward import PolicyLogprobs, annotate, score_trees

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answers:
    """One policy's replies to the evaluation prompts."""

    name: str
    groups: tuple[tuple[Completion, ...], ...]
    """[P] replies of each prompt."""
    kl: Values | None
    """[P] KL(policy || reference) on its own replies, estimator k1, nats a token; None for the reference itself."""
    kl_per_reply: float
    """Mean nats a reply; 0 for the reference."""
    rewards: Values | None
    """[N] normalised reward-model scores in the order of the completions."""

    def completions(self) -> list[Completion]:
        """All replies in order."""
        return [c for group in self.groups for c in group]


def answer(
    name: str, model: CausalModel, chat: ChatText, prompts: list[Prompt], config: EvalsConfig, services: Services, *,
    reference: CausalModel | None, reward: ScalarModel | None,
) -> Answers:  # fmt: skip
    """Sample replies, of several turns where the evaluation has tools, and score them."""
    rollouts = _write(name, model, chat, prompts, config, services)
    trees = [rollout.tree for rollout in rollouts]
    completions = [
        as_completion(rollout, i, chat, model=name, seed=services.seed)
        for rollout in rollouts
        for i in range(len(rollout.samples))
    ]
    groups = group_completions(prompts, completions)

    def heed() -> None:
        services.heed("the evaluation")

    kl, kl_per_reply = _kl(trees, model, reference, config, heed) if reference is not None else (None, 0.0)
    rewards = None
    if reward is not None:
        raw = score_trees(reward, trees, max_tokens=scoring_budget(reward.base, trees, config), heed=heed)
        rewards = reward.normalised(torch.from_numpy(raw)).numpy().astype(np.float64)
    return Answers(name=name, groups=groups, kl=kl, kl_per_reply=kl_per_reply, rewards=rewards)


def _write(
    name: str, model: CausalModel, chat: ChatText, prompts: list[Prompt], config: EvalsConfig, services: Services
) -> list[Rollout]:
    """The replies to each prompt, in the order of the prompts."""
    max_length = min(services.extras["text"].max_length, model.max_positions)
    encoded = encode_prompts(chat, prompts, max_length=max_length, max_new_tokens=config.max_new_tokens,
                             max_added_tokens=config.max_added_tokens)  # fmt: skip
    requests = [
        GenerateRequest(key=p.id, token_ids=tuple(int(t) for t in ids), num_samples=config.num_samples)
        for p, ids in zip(prompts, encoded, strict=True)
    ]
    sampling = Sampling(max_new_tokens=config.max_new_tokens, temperature=config.temperature, seed=services.seed, stop=config.stop or (),
                        repetition_penalty=config.repetition_penalty or 1.0, stop_token_ids=chat.stop_token_ids)  # fmt: skip
    engine = open_engine(model, max_slots=config.max_slots, decode=chat.decode, say=services.say)
    with services.progress(f"evaluate {name}", len(prompts) * config.num_samples) as bar:
        rollouts = sample_rollouts(_Heeding(engine, services, bar), requests, sampling, group_size=config.num_samples)
    if config.tools is not None:
        rollouts = _carried_on(rollouts, engine, sampling, chat=chat, prompts=prompts, config=config, services=services)
    by_key = {rollout.samples[0].key: rollout for rollout in rollouts}
    return [by_key[p.id] for p in prompts]


def _carried_on(
    rollouts: list[Rollout], engine: Sampler, sampling: Sampling, *, chat: ChatText, prompts: list[Prompt], config: EvalsConfig,
    services: Services,
) -> list[Rollout]:  # fmt: skip
    """With all of their turns. A reply whose environment failed ends where it is, and that is told."""
    assert config.tools is not None
    check_template(config.tools, chat, prompts[0])
    dialogues = Dialogues(
        section=config.tools, chat=chat, environment=services.extras["build_environment"](config.tools), prompts={p.id: p for p in prompts},
        max_new_tokens=config.max_new_tokens, heed=lambda: services.heed("the evaluation"),
    )  # fmt: skip
    found = dialogues.go_on(rollouts, engine, sampling)
    failures = [t.failure for rollout in found for t in rollout.transcripts if t.failure]
    if failures:
        services.say(f"{len(failures):,} replies end where their environment failed, the first because {failures[0]}")
    return found


@dataclass(frozen=True, slots=True)
class _Heeding:
    """An engine whose samples are counted on a bar, and which stops when the run shall stop."""

    engine: Sampler
    services: Services
    bar: ProgressBar

    def generate(self, requests: Sequence[GenerateRequest], sampling: Sampling) -> Iterator[Sample]:
        """The engine's samples."""
        for sample in self.engine.generate(requests, sampling):
            self.services.heed("the evaluation")
            self.bar.advance()
            yield sample


def _kl(
    trees: list[Tree], policy: CausalModel, reference: CausalModel, config: EvalsConfig, heed: Callable[[], None]
) -> tuple[Values, float]:
    """Log-ratios by prompt, a token, and by reply. What was sampled under a penalty is compared without it on both sides."""

    def read(trees: list[Tree], name: str, model: CausalModel) -> list[Tree]:
        tokens = scoring_budget(model, trees, config)
        return annotate(trees, name, PolicyLogprobs(model, config.temperature), max_tokens=tokens, heed=heed)

    own = "old_logprobs" if config.has_penalty else "sampling_logprobs"
    scored = read(read(trees, own, policy) if config.has_penalty else trees, "ref_logprobs", reference)
    by_prompt, sums = [], []
    for tree in scored:
        ratios = [b.arrays[own] - b.arrays["ref_logprobs"] for b in tree.branches]
        sums += [float(r.sum()) for r in ratios]
        by_prompt.append(sum(float(r.sum()) for r in ratios) / sum(len(r) for r in ratios))
    return np.asarray(by_prompt), float(np.mean(sums))


def write_answers(path: Path, answers: Answers) -> None:
    """Keep the replies (one JSONL a policy)."""
    from fairlead.core.io import write_jsonl

    write_jsonl(path, answers.completions())
