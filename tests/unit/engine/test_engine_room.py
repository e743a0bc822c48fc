"""Memory for keys and values: planned on a CPU, halved where it runs out; the samples are the same, and it is counted and told once."""

import pytest
import torch

import tiny_models
from engine_requests import some_requests
from fairlead.core.protocols import Sampling
from fairlead.engine.cache import SlotCache
from fairlead.engine.fallback import FallbackEngine
from fairlead.engine.local import LocalEngine

ERRORS = (
    MemoryError("no memory"),
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory"),
)
SAMPLING = Sampling(max_new_tokens=9, seed=3)
REQUESTS = some_requests(num=10)
"""20 samples."""


def read(engine):
    found = list(engine.generate(REQUESTS, SAMPLING))
    assert len(found) == 20
    return {(s.key, s.sample_index): (s.token_ids.tolist(), s.finish_reason, s.policy_versions) for s in found}


def few_slots(monkeypatch, limit, error):
    """A cache of more slots than that cannot be made; what was asked for."""
    asked, allocate = [], SlotCache.allocate

    def allocate_if_it_fits(cache, layer, key, value):
        asked.append(cache.num_slots)
        if cache.num_slots > limit:
            raise error
        allocate(cache, layer, key, value)

    monkeypatch.setattr(SlotCache, "allocate", allocate_if_it_fits)
    return asked


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_cache_that_does_not_fit_has_half_the_slots_until_it_does(monkeypatch, error):
    """20 samples want 20 slots, 5 fit: 20, 10, 5. The next call asks for 5 at once."""
    expected, said = read(LocalEngine(tiny_models.load("llama"))), []
    engine = LocalEngine(tiny_models.load("llama"), say=said.append)
    asked = few_slots(monkeypatch, 5, error)
    assert read(engine) == expected
    assert list(dict.fromkeys(asked)) == [20, 10, 5] and engine.room.max_slots == 5
    assert engine.health().num_out_of_memory == 2 and len(said) == 2
    assert said[0] == (
        "memory ran out in the engine with 20 sequences decoded together; they begin with 10, and sampling goes on with that. Samples are the same."
    )
    assert read(engine) == expected and engine.health().num_out_of_memory == 2


def test_a_cache_that_is_made_with_the_first_prompts_gives_way_too(monkeypatch):
    """Modules make theirs, in blocks of 16, when they read prompts: 20 slots are two blocks, 10 are one."""
    expected, said = read(LocalEngine(tiny_models.load("llama"), use_kernel=False)), []
    engine = LocalEngine(tiny_models.load("llama"), use_kernel=False, say=said.append)
    asked = few_slots(monkeypatch, 16, ERRORS[1])
    assert read(engine) == expected
    assert list(dict.fromkeys(asked)) == [32, 16] and engine.health().num_out_of_memory == 1 and len(said) == 1


class FullAt:
    """One forward of the model's modules finds no memory."""

    def __init__(self, model, number, error):
        self.left, self.error = number, error
        model.causal_lm.get_input_embeddings().register_forward_hook(self)

    def __call__(self, _module, _inputs, _output):
        self.left -= 1
        if self.left == 0:
            raise self.error


@pytest.mark.parametrize("number", range(1, 12))
def test_a_step_that_runs_out_of_memory_is_made_again_in_fewer_slots(number):
    """Whichever forward it is, of prompts or of tokens: no sample is lost, doubled or another one."""
    expected, said = read(LocalEngine(tiny_models.load("llama"), use_kernel=False, max_slots=12)), []
    engine = LocalEngine(tiny_models.load("llama"), use_kernel=False, max_slots=12, say=said.append)
    FullAt(engine.model, number, ERRORS[1])
    assert read(engine) == expected
    assert engine.room.max_slots == 6 and engine.health().num_out_of_memory == 1
    assert len(said) == 1 and "what was in flight begins again with 6" in said[0]


def test_one_slot_that_is_too_many_and_other_errors_are_not_hidden(monkeypatch):
    engine = LocalEngine(tiny_models.load("llama"))
    few_slots(monkeypatch, 0, ERRORS[0])
    with pytest.raises(MemoryError, match="no memory"):
        read(engine)
    assert engine.health().num_out_of_memory == 4, "20, 10, 5, 2, 1"
    other = LocalEngine(tiny_models.load("llama"), use_kernel=False)
    FullAt(other.model, 2, RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        read(other)


@pytest.mark.parametrize("use_kernel", [True, False])
def test_a_cpu_is_planned_for_the_longest_sequences(use_kernel):
    """The cache is promised whole and taken as tokens come, so it must fit beforehand: half of the free memory over the bytes of a slot.
    Keys and values: 2 x layers x key heads x head size x capacity x 4 bytes."""
    model, said = tiny_models.load("llama"), []
    expected = read(LocalEngine(tiny_models.load("llama"), use_kernel=use_kernel))
    engine = LocalEngine(model, use_kernel=use_kernel, say=said.append)
    text, capacity = model.config, 32
    each = (
        2
        * text.num_hidden_layers
        * text.num_key_value_heads
        * (text.hidden_size // text.num_attention_heads)
        * capacity
        * 4
    )
    assert engine.room.runner.slot_bytes(capacity) == each
    engine.room.runner.release()
    engine.room.free = lambda _device: 2 * 6 * each + each
    assert read(engine) == expected
    assert engine.room.max_slots == 6 and engine.health().num_out_of_memory == 0
    assert len(said) == 1 and said[0].startswith(
        "the engine decodes 6 sequences together instead of 20: keys and values of 32 tokens"
    )
    held = engine.room.runner.held_bytes
    assert held == (6 if use_kernel else 16) * each, "slots of modules come in blocks of 16"
    engine.room.free = lambda _device: 0
    assert read(engine) == expected and len(said) == 1, "a cache that is there is not planned again"


def test_what_is_not_known_plans_nothing():
    engine = LocalEngine(tiny_models.load("llama"))
    engine.room.runner.release()
    engine.room.free = lambda _device: None
    read(engine)
    assert engine.room.max_slots == 128


def test_transformers_generate_takes_smaller_batches():
    expected, said = read(FallbackEngine(tiny_models.load("mamba"))), []
    engine = FallbackEngine(tiny_models.load("mamba"), max_slots=4, say=said.append)
    FullAt(engine.model, 3, ERRORS[0])
    assert read(engine) == expected
    assert engine.max_slots in (1, 2) and engine.health().num_out_of_memory == 1 and len(said) == 1
    assert engine.health().num_waiting == 0
