"""Two processes with sharded weights have the loss, the gradients and the next step of one process with all of them."""

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

import tiny_models
from fairlead.models.adapters import LoraSettings, add_lora, reference_mode
from fairlead.models.heads import new_reward_head
from fairlead.models.load import load_policy
from fairlead.models.recompute import recompute_activations
from fairlead.models.sharding import shard
from fairlead.text import Branch, Tree, pack_trees

WORLD = 2
CASES = ("llama", "qwen2", "gemma2", "mamba", "lora", "recomputed", "reward")
"""Untied and tied heads, a soft-cap, padded rows; the rest on Llama."""


def some_trees():
    rng = np.random.default_rng(0)
    trees = []
    for prompt, branches in ((9, (12, 7)), (4, (20,)), (6, (5, 5, 5)), (3, (8, 8))):
        parts = tuple(Branch(token_ids=rng.integers(6, 96, n)) for n in branches)
        trees.append(Tree(prompt_ids=rng.integers(6, 96, prompt), branches=parts))
    return trees


def folder_of(case):
    return str(tiny_models.folder(case if case in ("llama", "qwen2", "gemma2", "mamba") else "llama"))


def make(case, folder):
    """(causal model, scalar model or None) from a folder that all processes share."""
    model = load_policy(folder)
    if case == "lora":
        model = add_lora(model, LoraSettings(rank=4), seed=0)
    if case == "recomputed":
        recompute_activations(model)
    return model, new_reward_head(model, seed=0) if case == "reward" else None


def two_steps(model, scalar, trees, *, world, total):
    """Losses of two optimiser steps on a share of the trees, and all gradients of the first; LoRA's reference after them."""
    parameters = [p for p in (scalar.parameters() if scalar else model.module.parameters()) if p.requires_grad]
    optimizer, losses, grads = torch.optim.SGD(parameters, lr=0.1), [], []
    layout = pack_trees(trees)
    for _ in range(2):
        out = scalar.scores(layout) if scalar else model.logprobs(layout).logprobs
        loss = -out.sum() / total
        (loss * world).backward()
        grads = grads or [None if p.grad is None else whole(p.grad) for p in parameters]
        optimizer.step()
        optimizer.zero_grad()
        losses.append(summed(loss.detach()) if world > 1 else loss.detach())
    with torch.no_grad():
        losses.append(
            summed_reference(model, layout, world) if hasattr(model.module, "peft_config") else torch.zeros(())
        )
    return torch.stack(losses), grads


def summed_reference(model, layout, world):
    with reference_mode(model):
        found = model.logprobs(layout).logprobs.sum()
    return summed(found) if world > 1 else found


def whole(tensor):
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()


def summed(value):
    dist.all_reduce(value)
    return value


def process(rank, folders, work):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{work}/meeting", rank=rank, world_size=WORLD)
    mesh = init_device_mesh("cpu", (WORLD,))
    for case in CASES:
        model, scalar = make(case, folders[case])
        shard(model, mesh=mesh)
        if scalar:
            fully_shard(scalar.head, mesh=mesh)
        sharded = [p for p in model.module.parameters() if isinstance(p, DTensor)]
        assert len(sharded) == len(list(model.module.parameters())), "something is not sharded"
        found = two_steps(model, scalar, some_trees()[rank::WORLD], world=WORLD, total=60)
        if rank == 0:
            torch.save(found, f"{work}/{case}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What two processes find, for every case; started once, for the start is what takes time."""
    work = tmp_path_factory.mktemp("sharding")
    multiprocessing.spawn(process, args=({case: folder_of(case) for case in CASES}, str(work)), nprocs=WORLD)
    return work


@pytest.mark.parametrize("case", CASES)
def test_two_processes_are_one(case, found):
    model, scalar = make(case, folder_of(case))
    losses, grads = two_steps(model, scalar, some_trees(), world=1, total=60)
    sharded_losses, sharded_grads = torch.load(found / f"{case}.pt")
    assert losses[0] != losses[1], "the step changed nothing"
    torch.testing.assert_close(sharded_losses, losses, atol=1e-5, rtol=1e-5)
    assert [g is None for g in grads] == [g is None for g in sharded_grads]
    for ours, theirs in zip(grads, sharded_grads, strict=True):
        if ours is not None:
            torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-4)
