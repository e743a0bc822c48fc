"""Continuous batching on a runner without a model: slots, order, prefills, moves, versions, stops."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairlead.core.protocols import GenerateRequest, Sampling
from fairlead.engine.runner import Runner
from fairlead.engine.sampler import draw
from fairlead.engine.scheduler import Schedule

VOCABULARY = 11


class Paper:
    """A runner whose cache is lists of tokens. The next token is likely what the text so far adds up to, so a wrong slot shows."""

    about = "paper"

    def __init__(self, *, refill=1, full_at=()):
        self.refill, self.slots, self.prefills, self.steps = refill, {}, [], []
        self.full_at, self.num_calls = full_at, 0

    def begin(self, num_slots, capacity):
        self.slots = {}

    def serves(self, num_slots, capacity):
        return False

    def slot_bytes(self, capacity):
        return 0

    @property
    def held_bytes(self):
        return 0

    def release(self):
        self.slots = {}

    def rebind(self):
        raise AssertionError("no weights here")

    def find_memory(self):
        """Runs out at the calls that a test names."""
        self.num_calls += 1
        if self.num_calls in self.full_at:
            raise MemoryError

    def prefill(self, prompts, slots):
        self.find_memory()
        self.prefills += [tuple(p.tolist()) for p in prompts]
        for prompt, slot in zip(prompts, slots, strict=True):
            self.slots[slot] = prompt.tolist()
        return torch.stack([self.logits(p.tolist()) for p in prompts])

    def copy(self, source, targets, length):
        self.find_memory()
        for target in targets:
            self.slots[target] = self.slots[source][:length]

    def move(self, source, target, length):
        self.find_memory()
        assert len(self.slots[source]) == length
        self.slots[target] = self.slots.pop(source)

    def decode(self, tokens, lengths):
        self.find_memory()
        self.steps.append(len(tokens))
        for slot, (token, length) in enumerate(zip(tokens, lengths, strict=True)):
            assert len(self.slots[slot]) == length, "a slot holds its text without the last token"
            self.slots[slot].append(int(token))
        return torch.stack([self.logits(self.slots[slot]) for slot in range(len(tokens))])

    def draw(self, logits, temperature, uniforms):
        tokens, logprobs = draw(logits / (temperature or 1.0), None if uniforms is None else torch.from_numpy(uniforms))
        return tokens.numpy(), logprobs.float().numpy()

    @staticmethod
    def logits(text):
        found = torch.zeros(VOCABULARY)
        found[(sum(text) * 7 + len(text)) % VOCABULARY] = 1.5
        return found


def run(requests, sampling, *, num_slots, refill=1, versions=None):
    """(samples by name in the order they ended, the runner)"""
    paper, tokens, found = Paper(refill=refill), [], {}
    assert isinstance(paper, Runner)
    schedule = Schedule(
        requests, sampling, paper, num_slots=num_slots, vocabulary=VOCABULARY, decode=None, on_token=tokens.append
    )
    while not schedule.is_done:
        for sample in schedule.step(0 if versions is None else next(versions)):
            assert (sample.key, sample.sample_index) not in found
            found[sample.key, sample.sample_index] = sample
        assert 0 <= schedule.num_active <= num_slots
    assert sum(tokens) == sum(len(s.token_ids) for s in found.values())
    assert len(found) == sum(r.num_samples for r in requests)
    return found, paper


def alone(request, sampling, index):
    """The sample without a schedule."""
    (sample,) = (
        s for s in run([request], sampling, num_slots=request.num_samples)[0].values() if s.sample_index == index
    )
    return sample


@given(
    shapes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 4), st.one_of(st.none(), st.integers(1, 12))), min_size=1, max_size=8),
    num_slots=st.integers(1, 9), refill=st.integers(1, 4), limit=st.integers(1, 10), seed=st.integers(0, 3),
)  # fmt: skip
def test_any_schedule_gives_the_samples_of_each_alone(shapes, num_slots, refill, limit, seed):
    requests = [
        GenerateRequest(key=f"p{i}", token_ids=tuple(range(i, i + length)), num_samples=n, max_new_tokens=own)
        for i, (length, n, own) in enumerate(shapes)
    ]
    sampling = Sampling(max_new_tokens=limit, seed=seed, stop_token_ids=(3, 8))
    found, paper = run(requests, sampling, num_slots=num_slots, refill=refill)
    assert max(paper.steps, default=0) <= num_slots
    for request in requests:
        for i in range(request.num_samples):
            sample, expected = found[request.key, i], alone(request, sampling, i)
            assert sample.token_ids.tolist() == expected.token_ids.tolist()
            assert sample.finish_reason == expected.finish_reason
            assert sample.finish_reason == ("stop" if sample.token_ids[-1] in (3, 8) else "length")
            assert len(sample.token_ids) <= request.limit(sampling)


@given(
    shapes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 4)), min_size=1, max_size=6), num_slots=st.integers(1, 9),
    full_at=st.frozensets(st.integers(1, 30), max_size=4), limit=st.integers(1, 8),
)  # fmt: skip
def test_a_schedule_that_begins_again_loses_and_doubles_no_sample(shapes, num_slots, full_at, limit):
    """Memory runs out in a prefill, a copy, a move or a step, several times."""
    requests = [
        GenerateRequest(key=f"p{i}", token_ids=tuple(range(i, i + length)), num_samples=n)
        for i, (length, n) in enumerate(shapes)
    ]
    sampling = Sampling(max_new_tokens=limit, stop_token_ids=(3, 8))
    paper = Paper(full_at=full_at)
    schedule = Schedule(
        requests, sampling, paper, num_slots=num_slots, vocabulary=VOCABULARY, decode=None, on_token=lambda _num: None
    )
    found = []
    while not schedule.is_done:
        try:
            found += schedule.step(0)
        except MemoryError:
            paper.release()
            schedule.begin_again(max(1, schedule.num_slots // 2))
    expected = run(requests, sampling, num_slots=num_slots)[0]
    assert len(found) == len(expected)
    for sample in found:
        assert sample.token_ids.tolist() == expected[sample.key, sample.sample_index].token_ids.tolist()


def test_the_same_requests_take_the_same_steps():
    requests = [GenerateRequest(key=f"p{i}", token_ids=(i,) * (i + 1), num_samples=3) for i in range(5)]
    sampling = Sampling(max_new_tokens=9, stop_token_ids=(1, 2))
    runs = [run(requests, sampling, num_slots=4) for _ in range(2)]
    assert list(runs[0][0]) == list(runs[1][0]) and runs[0][1].steps == runs[1][1].steps


def test_slots_are_filled_again_as_samples_end():
    """20 requests of 10 tokens and 20 of 2 in 4 slots: 10 first tokens at most are drawn without a step, so 240 tokens take 52 steps."""
    requests = [
        GenerateRequest(key=f"{i}", token_ids=(1,), max_new_tokens=n) for i, n in enumerate([10] * 20 + [2] * 20)
    ]
    found, paper = run(requests, Sampling(max_new_tokens=10), num_slots=4)
    assert list(found)[:4] == [("0", 0), ("1", 0), ("10", 0), ("11", 0)], "the longest begin first, then by name"
    total = sum(n - 1 for n in [10] * 20 + [2] * 20)
    assert sum(paper.steps) == total and len(paper.steps) == total / 4, "every step is full"


def test_the_longest_begin_first_by_what_they_may_write_then_by_their_prompts():
    """So that samples of one length stand side by side, and the last step is not one sample's alone."""
    sizes = [(2, 4), (5, 4), (3, 9), (1, 9), (4, 2)]  # tokens of the prompt, tokens that it may write
    requests = [
        GenerateRequest(key=f"{i}", token_ids=(i,) * length, max_new_tokens=limit)
        for i, (length, limit) in enumerate(sizes)
    ]
    _, paper = run(requests, Sampling(max_new_tokens=9), num_slots=1)
    assert paper.prefills == [(2,) * 3, (3,), (1,) * 5, (0,) * 2, (4,) * 4]


def test_a_prompt_is_read_once_for_samples_that_begin_together():
    requests = [GenerateRequest(key=f"{i}", token_ids=(i, i), num_samples=4) for i in range(3)]
    _, paper = run(requests, Sampling(max_new_tokens=5), num_slots=12)
    assert sorted(paper.prefills) == [(0, 0), (1, 1), (2, 2)]


def test_a_runner_may_wait_for_several_free_slots():
    """Limits 1 to 8 in 8 slots: with 4 to wait for, later prompts are read in two calls at most."""
    requests = [GenerateRequest(key=f"{i:02}", token_ids=(i,), max_new_tokens=9 + i % 5) for i in range(16)]
    _, eager = run(requests, Sampling(max_new_tokens=20), num_slots=8)
    _, patient = run(requests, Sampling(max_new_tokens=20), num_slots=8, refill=4)
    assert min(patient.steps[:-8]) >= 4 and len(eager.steps) <= len(patient.steps)


def test_spans_name_the_versions_of_tokens():
    """Versions 4, 4, 5, 5, 7: the first step draws the first token and the second."""
    found, _ = run(
        [GenerateRequest(key="p", token_ids=(1,))],
        Sampling(max_new_tokens=6),
        num_slots=1,
        versions=iter([4, 4, 5, 5, 7]),
    )
    (sample,) = found.values()
    assert sample.policy_versions == ((4, 0, 3), (5, 3, 5), (7, 5, 6))
    assert sample.oldest_version == 4


@pytest.mark.parametrize("penalty", [1.0, 1.8])
def test_a_penalty_knows_prompt_and_completion(penalty):
    """Greedy on flat logits but one: the favourite is taken unless it was said before."""
    request = GenerateRequest(key="p", token_ids=(0, 1))
    found, _ = run([request], Sampling(max_new_tokens=8, temperature=0.0, repetition_penalty=penalty), num_slots=1)
    text = list(request.token_ids)
    for token in found["p", 0].token_ids:
        logits = Paper.logits(text).numpy()
        said = np.isin(np.arange(VOCABULARY), text)
        logits[said] = np.where(logits[said] > 0, logits[said] / penalty, logits[said] * penalty)
        assert token == logits.argmax()
        text.append(int(token))
