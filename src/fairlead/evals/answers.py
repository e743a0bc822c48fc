"""The same prompts answered by each policy with the same seeds, and what the models say about the answers."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from fairlead.core.protocols import GenerateRequest, Sampling
from fairlead.core.records import Completion, Prompt
from fairlead.core.services import Services
from fairlead.engine.fallback import open_engine
from fairlead.evals.behaviours import group_completions
from fairlead.evals.capability import scoring_budget
from fairlead.evals.config import EvalsConfig
from fairlead.models.heads import ScalarModel
from fairlead.models.load import CausalModel
from fairlead.text.chat import ChatText
from fairlead.text.packing import Branch, Tree
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
    """Sample replies and score them."""
    max_length = min(services.extras["text"].max_length, model.max_positions)
    encoded = encode_prompts(chat, prompts, max_length=max_length, max_new_tokens=config.max_new_tokens)
    prompt_ids = {p.id: ids for p, ids in zip(prompts, encoded, strict=True)}
    requests = [
        GenerateRequest(key=p.id, token_ids=tuple(int(t) for t in prompt_ids[p.id]), num_samples=config.num_samples)
        for p in prompts
    ]
    sampling = Sampling(
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        seed=services.seed,
        stop_token_ids=chat.stop_token_ids,
    )

    def heed() -> None:
        services.heed("the evaluation")

    samples = []
    with services.progress(f"evaluate {name}", len(prompts) * config.num_samples) as bar:
        for sample in open_engine(model, max_slots=config.max_slots).generate(requests, sampling):
            services.heed("the evaluation")
            samples.append(sample)
            bar.advance()
    found = {(s.key, s.sample_index): s for s in samples}
    completions = [
        Completion(prompt_id=s.key, text=chat.decode(s.token_ids), model=name, token_ids=tuple(int(t) for t in s.token_ids),
                   finish_reason=s.finish_reason, sample_index=s.sample_index, seed=services.seed)
        for s in samples
    ]  # fmt: skip
    groups = group_completions(prompts, completions)
    trees = [Tree(prompt_ids=prompt_ids[p.id], branches=tuple(
        Branch(token_ids=np.asarray(c.token_ids, dtype=np.int64), arrays={"logprobs": found[p.id, c.sample_index].sampling_logprobs})
        for c in group)) for p, group in zip(prompts, groups, strict=True)]  # fmt: skip
    kl, kl_per_reply = _kl(trees, reference, config, heed) if reference is not None else (None, 0.0)
    rewards = None
    if reward is not None:
        raw = score_trees(reward, trees, max_tokens=scoring_budget(reward.base, trees, config), heed=heed)
        rewards = reward.normalised(torch.from_numpy(raw)).numpy().astype(np.float64)
    return Answers(name=name, groups=groups, kl=kl, kl_per_reply=kl_per_reply, rewards=rewards)


def _kl(
    trees: list[Tree], reference: CausalModel, config: EvalsConfig, heed: Callable[[], None]
) -> tuple[Values, float]:
    scored = annotate(
        trees,
        "ref_logprobs",
        PolicyLogprobs(reference, config.temperature),
        max_tokens=scoring_budget(reference, trees, config),
        heed=heed,
    )
    by_prompt, sums = [], []
    for tree in scored:
        ratios = [b.arrays["logprobs"] - b.arrays["ref_logprobs"] for b in tree.branches]
        sums += [float(r.sum()) for r in ratios]
        by_prompt.append(sum(float(r.sum()) for r in ratios) / sum(len(r) for r in ratios))
    return np.asarray(by_prompt), float(np.mean(sums))


def write_answers(path: Path, answers: Answers) -> None:
    """Keep the replies (one JSONL a policy)."""
    from fairlead.core.io import write_jsonl

    write_jsonl(path, answers.completions())
