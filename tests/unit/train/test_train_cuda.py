"""Training on a CUDA device: the losses of the CPU, step by step. Skipped where there is none."""

import pytest
import torch
from training_examples import make_learner, make_trees

from fairlead.train.loop import run_loop

DEVICE = "cuda"
if not torch.cuda.is_available():
    pytest.skip("there is no CUDA device here", allow_module_level=True)


@pytest.mark.parametrize("kind", ["llama", "gemma2", "mamba"])
@pytest.mark.parametrize("method", ["sft", "dpo", "reward", "kto", "ppo"])
def test_losses_are_those_of_the_cpu(method, kind):
    def losses(device):
        learner, found = make_learner(method, kind=kind, device=device, num_steps=4), []
        hook = lambda _, metrics: found.append(metrics["loss"]) or False  # noqa: E731
        run_loop(learner, [make_trees(method, seed=s) for s in range(4)], hooks=[hook])
        return found

    assert losses(DEVICE) == pytest.approx(losses("cpu"), rel=2e-3, abs=2e-4)
