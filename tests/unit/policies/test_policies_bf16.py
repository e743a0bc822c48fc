"""On-policy in bf16: what the ratio compares with, what is corrected, and that a policy reaches the optimum that is known."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from online_example import METHODS, make_loop, rows, run
from transformers import LlamaConfig, LlamaForCausalLM

from fairlead.core.errors import ConfigError
from fairlead.core.records import Completion
from fairlead.core.services import Services
from fairlead.engine import kernel
from fairlead.models.arithmetic import Precision
from fairlead.models.load import load_policy
from fairlead.models.logprobs import chunk_logits
from fairlead.models.native.build import training_kernels
from fairlead.models.precision import SMALLEST, machine_gain
from fairlead.policies.online import OnlineLoop
from fairlead.policies.online_config import OnlineConfig
from fairlead.policies.rollout_models import choose_rollout_precision
from fairlead.text import Branch, Tree, pack_trees
from fairlead.train.batches import microbatch
from fairlead.train.forward import PolicyLogprobs

pytestmark = pytest.mark.skipif(
    isinstance(kernel.load_kernel(), str) or isinstance(training_kernels(), str),
    reason="no compiler, or a processor without AVX512-BF16",
)
KIND = "wide llama"
BETA = 0.3


@pytest.mark.parametrize("method", METHODS)
def test_the_ratio_compares_with_a_forward_of_the_trainer_and_what_the_engine_rounds_otherwise_is_weighed(
    method: str, tmp_path: Path
) -> None:
    loop = make_loop(tmp_path, method, kind=KIND, precision="bf16")
    assert "in bf16" in loop.engine.about and loop.config.old_logprobs == "trainer"
    found = loop.collector.collect(loop.prompts, number=0, kl_coef=0.1, step=0, policy_version=0)
    branches = [branch.arrays for tree in found.trees for branch in tree.branches]
    old, sampled, weights, ref = (
        np.concatenate([b[name] for b in branches])
        for name in ("old_logprobs", "sampling_logprobs", "correction", "ref_logprobs")
    )
    with torch.no_grad():
        expected = PolicyLogprobs(loop.models.policy, 1.0)(microbatch(list(found.trees))).numpy()
    np.testing.assert_allclose(old, expected, atol=2e-3)
    np.testing.assert_array_equal(old, ref)
    assert 0 < np.abs(old - sampled).mean() < 0.02
    np.testing.assert_allclose(weights, np.minimum(np.exp(old - sampled), 2.0), rtol=1e-6)
    loop.models.policy.set_precision("fp32")
    with torch.no_grad():
        exact = loop.models.policy.logprobs(pack_trees(list(found.trees))).logprobs.numpy()
    assert 0 < np.abs(exact - old).mean() < 0.02


@pytest.mark.parametrize("method", METHODS)
def test_the_first_ratio_of_every_round_is_one_up_to_the_layout_of_its_batches(method: str, tmp_path: Path) -> None:
    run(make_loop(tmp_path, method, kind=KIND, precision="bf16"))
    found = rows(tmp_path)
    assert len(found) == 3 and all(row["rl/first_ratio_gap"] < 2e-3 for row in found)
    assert all(row["rl/mismatch_sample_share"] > 0.99 and row["grad_norm"] > 0 for row in found)


def even(completion: Completion) -> float:
    """Paid for an even token."""
    return float(completion.token_ids[0] % 2 == 0)


def objective(loop: OnlineLoop) -> tuple[float, float]:
    """Expected reward less KL of one-token completions over all prompts, of the policy and of the best there is; from all probabilities.

    The best policy is ref exp(reward / beta) / Z, and its objective is beta log Z.
    """
    is_even = (torch.arange(loop.models.policy.config.vocab_size) % 2 == 0).double()
    own, best = [], []
    for request in loop.prompts.requests:
        tree = Tree(prompt_ids=np.array(request.token_ids), branches=(Branch(token_ids=np.array([5])),))
        logs = []
        for model in (loop.models.policy, loop.models.reference):
            assert model is not None
            model.set_precision("fp32")
            with torch.no_grad():
                states = model.kept_hidden(pack_trees([tree]))
                logs.append(torch.log_softmax(chunk_logits(states, model.output_head(), 1.0)[0].double(), -1))
        policy, ref = logs
        own.append(float((policy.exp() * (is_even - BETA * (policy - ref))).sum()))
        best.append(float(BETA * (ref + is_even / BETA).logsumexp(-1)))
    return float(np.mean(own)), float(np.mean(best))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_one_token_policies_reach_the_optimum_that_is_known(precision: Precision, tmp_path: Path) -> None:
    """From half of the rewards to the KL-regularised best, within a tenth of the way, in either precision."""
    loop = make_loop(
        tmp_path, "rloo", even, kind=KIND, precision=precision, num_iterations=60, batch_size=96, group_size=16, minibatch_size=96,
        max_new_tokens=1, kl={"kl_coef": BETA, "target": None}, training={"learning_rate": 3e-3, "schedule": "constant", "alerts": {"mode": "off"}},
        services={"checkpoint_every_s": 1e9},
    )  # fmt: skip
    start, best = objective(make_loop(tmp_path / "start", "rloo", even, kind=KIND))
    run(loop)
    reached, _ = objective(loop)
    assert best - start > 0.1
    assert reached > start + 0.9 * (best - start), (start, reached, best)


def test_auto_is_bf16_where_it_pays_and_the_engine_follows(tmp_path: Path) -> None:
    services = Services(work=tmp_path, extras={"machine_file": tmp_path / "machine.json"})
    machine_gain(tmp_path / "machine.json")
    known = json.loads((tmp_path / "machine.json").read_text())
    (tmp_path / "machine.json").write_text(json.dumps({name: {**row, "gain": 2.0} for name, row in known.items()}))

    def chosen(*, hidden: int = SMALLEST, head: int = 16, **section: object) -> str:
        sizes = {
            "hidden_size": hidden,
            "num_attention_heads": 4,
            "head_dim": head,
            "intermediate_size": 64,
            "vocab_size": 96,
        }
        module = LlamaForCausalLM(LlamaConfig(**sizes, num_hidden_layers=1))
        module.save_pretrained(tmp_path / "model")
        return choose_rollout_precision(
            OnlineConfig.model_validate(section), load_policy(str(tmp_path / "model")), services
        )

    assert chosen() == "bf16"
    assert chosen(hidden=SMALLEST - 16) == "fp32"
    assert chosen(old_logprobs="engine") == "fp32"
    assert chosen(training={"precision": "fp32"}) == "fp32"
    assert chosen(head=8) == "fp32"
    assert chosen(head=8, engine={"precision": "fp32"}) == "bf16"
    assert chosen(head=8, engine={"kind": "vllm"}) == "bf16"
    with pytest.raises(ConfigError, match=r"training\.precision=bf16 needs an engine that follows \(.*heads of 8"):
        chosen(head=8, training={"precision": "bf16"})
