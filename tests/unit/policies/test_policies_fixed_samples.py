"""Fixed prompts: the same ones each time, the reference's texts kept through a resume, the policy's new at the rounds that are due."""

import json
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from fairlead.core.protocols import GenerateRequest, Sample, Sampling
from fairlead.engine.rollouts import sample_rollouts
from fairlead.policies.fixed_samples import FixedSamples


class Engine:
    """Writes its version as the only token."""

    def __init__(self):
        self.version, self.asked = 0, []

    def generate(self, requests, sampling):
        self.asked.append(([r.key for r in requests], sampling.seed))
        for request in requests:
            yield Sample(key=request.key, sample_index=0, token_ids=np.array([self.version]), sampling_logprobs=np.zeros(1, np.float32),
                         finish_reason="stop")  # fmt: skip


def make(engine: Engine) -> FixedSamples:
    chat: Any = SimpleNamespace(tokenizer=SimpleNamespace(decode=lambda ids, skip_special_tokens: f"text{ids}"))
    requests = [GenerateRequest(key=f"p{i}", token_ids=(i,), num_samples=3) for i in (5, 3, 1, 4, 2)]
    return FixedSamples(
        requests=requests,
        write=partial(sample_rollouts, engine, group_size=1),
        chat=chat,
        sampling=Sampling(max_new_tokens=4, seed=1),
        num_rounds=20,
    )


def test_the_reference_is_sampled_once_and_the_policy_when_due(tmp_path):
    engine = Engine()
    fixed = make(engine)
    session: Any = SimpleNamespace(extra={}, services=SimpleNamespace(work=tmp_path))
    rounds = []
    for number in range(21):
        engine.version = number
        before = len(engine.asked)
        fixed.update(session, number)
        rounds += [number] if len(engine.asked) > before else []
    assert rounds == list(range(0, 21, 2))
    assert (
        all(keys == ["p1", "p2", "p3", "p4"] for keys, _ in engine.asked)
        and len({seed for _, seed in engine.asked}) == 1
    )
    row = json.loads((tmp_path / "samples.jsonl").read_text().splitlines()[0])
    assert (row["prompt"], row["before"], row["after"], row["after_label"]) == (
        "text[1]",
        "text[0]",
        "text[20]",
        "round 20",
    )
    again: Any = SimpleNamespace(extra=json.loads(json.dumps(session.extra)), services=session.services)
    engine.version = 30
    make(engine).update(again, 10)
    assert fixed.pairs(again)[0].before == "text[0]" and fixed.pairs(again)[0].after == "text[30]"
