"""Pairs are different, canonical and deterministic; dealing is balanced; sides are fair within a pair."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.core.errors import ConfigError
from fairlead.core.records import Completion
from fairlead.feedback.tasks import assign_raters, make_tasks

TEXTS = st.lists(st.sampled_from(["", "a", "b", "c", "d ", "d", "e"]), max_size=7)


def completions(prompt, texts):
    return [Completion(prompt_id=prompt, text=text, model="m", sample_index=i) for i, text in enumerate(texts)]


def group(texts_by_prompt):
    return {prompt: completions(prompt, texts) for prompt, texts in texts_by_prompt.items()}


@given(st.dictionaries(st.sampled_from(["p1", "p2", "p3", "p4"]), TEXTS), st.integers(1, 5), st.integers(0, 3))
def test_pairs_have_different_texts_and_every_prompt_is_accounted_for(texts, pairs_per_prompt, seed):
    groups = group(texts)
    plan = make_tasks(groups, pairs_per_prompt=pairs_per_prompt, seed=seed)
    text = {c.id: c.text.strip() for found in groups.values() for c in found}
    owner = {c.id: c.prompt_id for found in groups.values() for c in found}
    for task in plan.tasks:
        assert text[task.completion_a] != text[task.completion_b]
        assert owner[task.completion_a] == owner[task.completion_b] == task.prompt_id
        assert task.completion_a < task.completion_b
    assert len({t.id for t in plan.tasks}) == len(plan.tasks)
    used = Counter(t.prompt_id for t in plan.tasks)
    for prompt, found in texts.items():
        distinct = len({t.strip() for t in found})
        assert used[prompt] == min(pairs_per_prompt, distinct * (distinct - 1) // 2)
    assert len(used) == plan.num_usable_prompts
    assert plan.num_repeats == sum(len(v) - len({t.strip() for t in v}) for v in texts.values())


@given(st.permutations(["a", "b", "c", "d", "b"]), st.integers(0, 5))
def test_the_order_of_completions_does_not_matter(texts, seed):
    base = completions("p", ["a", "b", "c", "d", "b"])
    by_text = {"a": [base[0]], "b": [base[1], base[4]], "c": [base[2]], "d": [base[3]]}
    shuffled = [by_text[text].pop() for text in texts]
    first = make_tasks({"p": base}, pairs_per_prompt=3, seed=seed)
    assert make_tasks({"p": shuffled}, pairs_per_prompt=3, seed=seed) == first


def test_two_pairs_of_four_texts_share_no_text():
    plan = make_tasks(group({"p": ["a", "b", "c", "d"]}), pairs_per_prompt=2, seed=0)
    assert len({member for t in plan.tasks for member in (t.completion_a, t.completion_b)}) == 4


def test_the_seed_decides_which_pairs():
    groups = group({"p": list("abcdef")})
    assert len({make_tasks(groups, pairs_per_prompt=1, seed=s).tasks[0].id for s in range(10)}) > 1


@given(st.integers(1, 12), st.integers(1, 7), st.data())
def test_dealing_is_balanced(num_tasks, num_raters, data):
    votes = data.draw(st.integers(1, num_raters))
    tasks = make_tasks(group({f"p{i}": ["a", "b"] for i in range(num_tasks)}), pairs_per_prompt=1, seed=0).tasks
    raters = [f"r{i}" for i in range(num_raters)]
    dealt = assign_raters(tasks, raters=raters, votes_per_pair=votes, seed=data.draw(st.integers(0, 3)))
    assert len({(a.task.id, a.rater) for a in dealt}) == len(dealt) == num_tasks * votes
    loads = Counter(dict.fromkeys(raters, 0))
    for a in dealt:
        assert a.order == loads[a.rater]
        loads[a.rater] += 1
    assert max(loads.values()) - min(loads.values()) <= 1
    for task in tasks:
        num_swapped = sum(a.swapped for a in dealt if a.task.id == task.id)
        assert num_swapped in (votes // 2, (votes + 1) // 2)


def test_sides_are_random_for_a_rater():
    tasks = make_tasks(group({f"p{i}": ["a", "b"] for i in range(400)}), pairs_per_prompt=1, seed=0).tasks
    dealt = assign_raters(tasks, raters=["r1", "r2", "r3"], votes_per_pair=3, seed=1)
    for rater in ("r1", "r2", "r3"):
        num_swapped = sum(a.swapped for a in dealt if a.rater == rater)
        assert 160 <= num_swapped <= 240  # four standard deviations of a fair coin


def test_too_few_raters_is_an_error():
    with pytest.raises(ConfigError, match=r"votes_per_pair=3 needs more raters.*num_raters=2"):
        assign_raters([], raters=["a", "b"], votes_per_pair=3, seed=0)
