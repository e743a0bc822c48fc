"""Large tensors from a heap of our own: nothing is mixed up or lost, freed blocks serve again, and results are the same bits.

Each in a process of its own, for the heap stays once it is there."""

import os
import subprocess
import sys

import pytest

START = """
import gc, os, threading
import torch
from fairlead.models.memory import PeakMemory, give_back, keep_freed_memory
from fairlead.models.native.heap import has_heap, use_heap

def resident_mb():
    line = next(x for x in open("/proc/self/status") if x.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024
"""


def run(script, **env):
    """The words that a process prints which starts with START."""
    done = subprocess.run([sys.executable, "-c", START + script], capture_output=True, text=True, env={**os.environ, **env})  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.fixture(scope="module", autouse=True)
def needs_heap():
    if run("print(isinstance(use_heap(), str))") == ["True"]:
        pytest.skip("the heap is for Linux with a C++ compiler")


def test_blocks_keep_their_values_whatever_is_freed_around_them():
    """Four threads take, check and free 8,000 tensors of 32 bytes to 1.6 MB; a block that two of them had would show."""
    script = """
assert not has_heap()
use_heap()
assert has_heap()
def work(seed):
    import random
    draw, held = random.Random(seed), {}
    for number in range(2000):
        size = draw.choice([8, 9000, 16384, 16385, 40_000, 65_537, 400_000])
        held[number] = (torch.full((size,), seed * 10_000.0 + number), seed * 10_000.0 + number)
        if draw.random() < 0.9 and len(held) > 5:
            tensor, value = held.pop(draw.choice(list(held)))
            if not bool((tensor == value).all()) or tensor.data_ptr() % 64:
                wrong.append(number)
    wrong.extend(n for n, (tensor, value) in held.items() if not bool((tensor == value).all()))
wrong = []
threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
[t.start() for t in threads]; [t.join() for t in threads]
print(len(wrong), use_heap().fairlead_heap_top())
"""
    wrong, top = map(int, run(script))
    assert wrong == 0
    assert top == 0, "all was freed, and joined into nothing"


def test_a_freed_block_serves_for_its_own_size():
    """Malloc needs room for the alignment besides, so that temporary blocks that kept ones stand between would each need new memory."""
    script = """
use_heap()
kept, spare = [], None
for _ in range(20):
    temporary = torch.zeros(1 << 21)
    kept.append(torch.zeros(1 << 14))
    del temporary
print(use_heap().fairlead_heap_top())
"""
    assert int(run(script)[0]) <= (8 << 20) + 20 * (64 << 10)


def test_memory_is_kept_until_it_is_given_back():
    script = """
use_heap()
before = resident_mb()
x = torch.ones(50 << 20)
held = resident_mb()
del x
kept = resident_mb()
give_back()
print(before, held, kept, resident_mb())
y = torch.ones(50 << 20)
assert float(y.sum(dtype=torch.float64)) == 50 << 20
"""
    before, held, kept, given = map(float, run(script))
    assert held - before == pytest.approx(200, abs=20)
    assert kept == pytest.approx(held, abs=5)
    assert given == pytest.approx(before, abs=20)


def test_too_much_is_told_as_torch_tells_it_and_leaves_the_rest_alone():
    script = """
from fairlead.models.out_of_memory import is_out_of_memory
use_heap()
x = torch.ones(1 << 20)
try:
    torch.empty(1 << 45)
except RuntimeError as error:
    print(is_out_of_memory(error), float(x.sum()) == 1 << 20)
"""
    assert run(script) == ["True", "True"]


def test_under_a_limit_of_addresses_malloc_goes_on():
    script = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))
print("|".join(str(use_heap()).split()), has_heap(), float(torch.ones(1 << 20).sum()) == 1 << 20)
"""
    assert run(script) == ["the|system|has|no|addresses|for|it", "False", "True"]


def test_a_fork_may_come_at_any_moment():
    script = """
use_heap()
stop = False
def churn():
    while not stop:
        torch.ones(1 << 16)
threads = [threading.Thread(target=churn) for _ in range(2)]
[t.start() for t in threads]
codes = []
for _ in range(30):
    child = os.fork()
    if child == 0:
        os._exit(int(float(torch.empty(1 << 18).fill_(1.0)[7]) != 1.0))
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
stop = True
[t.join() for t in threads]
print(sum(codes))
"""
    assert run(script, OMP_NUM_THREADS="1") == ["0"]


def test_training_is_the_same_bits_with_and_without():
    """400 pairs in one row, whose hidden states are 1 MB."""
    script = """
import hashlib, sys
sys.path[:0] = ["tests", "tests/unit/train"]
from training_examples import make_learner, make_trees
if WANTED:
    use_heap()
learner, trees, tops = make_learner("dpo", max_tokens=20_000), make_trees("dpo", num=400), [0]
learner.models.policy.backbone.register_forward_hook(lambda *_: tops.append(use_heap().fairlead_heap_top() if WANTED else 0))
losses = [learner.step(trees)["loss"].hex() for _ in range(3)]
digest = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in learner.parameters)).hexdigest()
print(has_heap(), max(tops) > 1 << 20, *losses, digest)
"""
    found, expected = (run(f"WANTED = {wanted}\n" + script, OMP_NUM_THREADS="2") for wanted in (True, False))
    assert (found[:2], expected[:2]) == (["True", "True"], ["False", "False"])
    assert found[2:] == expected[2:]
