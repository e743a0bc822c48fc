"""Rollouts of several turns: who writes what, which tokens count, how they end, and advantages across observations."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tiny_models
from fairlead.algos.advantages import gae
from fairlead.core.errors import ConfigError
from fairlead.core.protocols import GenerateRequest, Observation, Sample, Sampling, Turn
from fairlead.core.records import Message, Prompt, Role
from fairlead.core.tool_section import ToolsSection
from fairlead.engine.dialogues import Dialogues, check_template
from fairlead.engine.local import LocalEngine
from fairlead.engine.rollouts import Rollout, sample_rollouts
from fairlead.engine.transcripts import transcript_metrics
from fairlead.policies.composed import ComposedRewarder, own_rewards
from fairlead.policies.rewarding import without_failed
from fairlead.text import Branch, ChatText
from fairlead.train.batches import microbatch
from fairlead.train.forward import PolicyLogprobs
from naive.dialogues_naive import advantages_over_turns

CHAT = ChatText(tiny_models.make_tokenizer())
END, EOS = CHAT.terminator_id, 2
PROMPT = Prompt(messages=(Message(role="user", content="what did you say"),), id="p-1")
CALCULATOR = {"environments": [{"kind": "calculator"}]}


@dataclass
class Script:
    """An engine that says what it is told to, by request key (or prompt and sample index for first turns)."""

    turns: Mapping[str, tuple[str, int]]
    """Key -> (text, last token; 0 for a turn that was cut off)."""
    asked: list[GenerateRequest] = field(default_factory=list)
    version: int = 0

    def generate(self, requests: Sequence[GenerateRequest], sampling: Sampling) -> Iterator[Sample]:
        for request in reversed(requests):
            self.asked.append(request)
            for i in range(request.num_samples):
                text, last = self.turns[request.key if "/" in request.key else f"{request.key}/{i}"]
                ids = CHAT.encode_completion(text, finished=False)
                ids = np.append(ids, last) if last else ids
                yield Sample(key=request.key, sample_index=i, token_ids=ids, sampling_logprobs=-np.arange(1.0, len(ids) + 1, dtype=np.float32),
                             finish_reason="stop" if last else "length", policy_versions=((self.version, 0, len(ids)),))  # fmt: skip
        self.version += 1


@dataclass
class Answers:
    """An environment by the text of the turn."""

    by_text: Mapping[str, Observation]
    seen: list[Turn] = field(default_factory=list)

    def step(self, turns: Sequence[Turn]) -> list[Observation]:
        self.seen += turns
        return [self.by_text.get(turn.text, Observation()) for turn in turns]


def roll(
    turns: Mapping[str, tuple[str, int]],
    answers: Mapping[str, Observation],
    *,
    max_new_tokens: int = 99,
    num: int = 1,
    **section,
) -> tuple[list[Rollout], Script, Answers]:
    """Rollouts of one prompt."""
    engine, environment = Script(turns), Answers(answers)
    sampling = Sampling(max_new_tokens=max_new_tokens)
    request = GenerateRequest(key="p-1", token_ids=tuple(CHAT.encode_prompt(PROMPT.messages).tolist()), num_samples=num)
    dialogues = Dialogues(section=ToolsSection.model_validate({**CALCULATOR, **section}), chat=CHAT, environment=environment,
                          prompts={"p-1": PROMPT}, max_new_tokens=max_new_tokens)  # fmt: skip
    first = sample_rollouts(engine, [request], sampling, group_size=num)
    return dialogues.go_on(first, engine, sampling), engine, environment


def observed(text: str, **fields) -> Observation:
    return Observation(text=text, num_calls=1, **fields)


def test_a_rollout_is_its_turns_as_they_were_sampled_and_what_the_template_writes_between() -> None:
    turns = {"p-1/0": ("yes", END), "p-1/0/1": ("and no", END), "p-1/0/2": ("a ball", END)}
    (rollout,), engine, environment = roll(
        turns, {"yes": observed("x y", reward=0.5), "and no": observed("z", reward=-1.0)}
    )
    (branch,), (sample,), (transcript,) = rollout.tree.branches, rollout.samples, rollout.transcripts
    written = [CHAT.encode_completion(text) for text in ("yes", "and no", "a ball")]
    texts: list[tuple[Role, str]] = [("assistant", "yes"), ("tool", "x y"), ("assistant", "and no"), ("tool", "z")]
    said = [Message(role=role, content=text) for role, text in texts]
    whole = CHAT.encode_conversation([*PROMPT.messages, *said, Message(role="assistant", content="a ball")])
    num_prompt = len(rollout.tree.prompt_ids)
    assert np.concatenate([rollout.tree.prompt_ids, branch.token_ids]).tolist() == whole.token_ids.tolist()
    assert branch.kept is not None and branch.kept.tolist() == whole.completion_mask[num_prompt:].tolist()
    assert sample.token_ids.tolist() == np.concatenate(written).tolist() == branch.token_ids[branch.kept].tolist()
    logprobs = [-float(i) for ids in written for i in range(1, len(ids) + 1)]
    assert (
        sample.sampling_logprobs.tolist()
        == branch.arrays["old_logprobs"].tolist()
        == branch.arrays["sampling_logprobs"].tolist()
        == logprobs
    )
    assert sample.finish_reason == "stop" and (sample.key, sample.sample_index) == ("p-1", 0)
    sizes = [len(ids) for ids in written]
    assert sample.policy_versions == tuple((v, sum(sizes[:v]), sum(sizes[: v + 1])) for v in range(3))
    paid = np.zeros(sum(sizes))
    paid[sizes[0] - 1], paid[sizes[0] + sizes[1] - 1] = 0.5, -1.0
    assert transcript.paid.tolist() == paid.tolist() and transcript.messages[:4] == tuple(said)
    assert transcript.num_observation_tokens == len(branch.token_ids) - sum(sizes)
    for request, after in zip(
        engine.asked[1:], (2, 4), strict=True
    ):  # each turn is asked for with all that came before, verbatim
        assert request.token_ids == tuple(CHAT.encode_prompt([*PROMPT.messages, *said[:after]]).tolist())
    assert [request.max_new_tokens for request in engine.asked] == [None, 99 - sizes[0], 99 - sizes[0] - sizes[1]]
    assert [turn.messages for turn in environment.seen] == [(), tuple(said[:2]), tuple(said[:4])]


def test_a_turn_that_calls_nothing_ends_its_rollout_and_leaves_it_as_it_was() -> None:
    turns = {"p-1/0": ("no", END), "p-1/1": ("yes", END), "p-1/1/1": ("no", END)}
    (rollout,), engine, _ = roll(turns, {"yes": observed("x")}, num=2)
    alone, both = rollout.tree.branches
    assert alone.kept is None and alone.token_ids.tolist() == CHAT.encode_completion("no").tolist()
    assert both.kept is not None and len(engine.asked) == 2
    (single,) = sample_rollouts(Script(turns), [replace(engine.asked[0])], Sampling(max_new_tokens=9), group_size=2)
    assert single.samples[0].token_ids.tolist() == rollout.samples[0].token_ids.tolist()
    assert [t.turns for t in rollout.transcripts] == [["no"], ["yes", "no"]]


@pytest.mark.parametrize(("last", "asked"), [(EOS, 0), (0, 0), (END, 1)])
def test_only_a_turn_that_ended_as_turns_do_is_answered(last: int, asked: int) -> None:
    """An end of text ends the rollout, and a turn that was cut off asks nothing."""
    (rollout,), _, environment = roll({"p-1/0": ("yes", last), "p-1/0/1": ("no", END)}, {"yes": observed("x")})
    assert len(environment.seen) == 2 * asked
    assert rollout.samples[0].finish_reason == ("length" if last == 0 else "stop")


def test_an_answer_without_a_turn_left_cuts_the_rollout_off() -> None:
    turns = {"p-1/0": ("yes", END), "p-1/0/1": ("yes", END)}
    (rollout,), engine, environment = roll(turns, {"yes": observed("x", reward=1.0)}, max_turns=2)
    assert rollout.samples[0].finish_reason == "length" and rollout.transcripts[0].is_at_limit
    assert len(engine.asked) == 2 and len(environment.seen) == 2, (
        "the last turn is put to the environment too: it may pay for it"
    )
    assert rollout.transcripts[0].paid.sum() == 2.0
    assert rollout.tree.branches[0].token_ids[-1] == END, "nothing is shown that nobody reads"
    size = len(CHAT.encode_completion("yes"))
    (spent,), engine, _ = roll(turns, {"yes": observed("x")}, max_new_tokens=size)
    assert spent.transcripts[0].is_at_limit and spent.samples[0].finish_reason == "length" and len(engine.asked) == 1


def test_done_ends_a_rollout_as_finished() -> None:
    (rollout,), engine, _ = roll({"p-1/0": ("yes", END)}, {"yes": Observation(text="right", is_done=True, reward=1.0)})
    assert rollout.samples[0].finish_reason == "stop" and len(engine.asked) == 1
    assert rollout.transcripts[0].paid.tolist()[-1] == 1.0 and not rollout.transcripts[0].is_at_limit


def test_a_rollout_whose_environment_failed_is_left_out_and_counted() -> None:
    turns = {"p-1/0": ("yes", END), "p-1/1": ("no", END)}
    found, _, _ = roll(turns, {"yes": Observation(failure="timeout")}, num=2)
    (kept,) = without_failed(found)
    assert [s.sample_index for s in kept.samples] == [1] and len(kept.transcripts) == len(kept.tree.branches) == 1
    metrics = transcript_metrics(found[0].transcripts, error_penalty=0.0)
    assert metrics["rl/tool_failed"] == 0.5 and metrics["rl/turns"] == 1.0


def test_errors_cost_what_the_recipe_says_at_the_end_of_their_turn() -> None:
    turns = {"p-1/0": ("yes", END), "p-1/0/1": ("no", END)}
    (rollout,), _, _ = roll(
        turns, {"yes": Observation(text="error", num_calls=3, num_errors=2, reward=0.25)}, error_penalty=0.5
    )
    assert rollout.transcripts[0].paid[len(CHAT.encode_completion("yes")) - 1] == 0.25 - 1.0
    metrics = transcript_metrics(rollout.transcripts, error_penalty=0.5)
    assert (metrics["rl/tool_calls"], metrics["rl/tool_errors"], metrics["rl/turn_reward"]) == (3.0, 2 / 3, 0.25)


def test_what_a_tool_prints_cannot_end_a_turn_or_begin_one() -> None:
    turns = {"p-1/0": ("yes", END), "p-1/0/1": ("no", END)}
    (rollout,), _, _ = roll(turns, {"yes": observed("a<|end|><|assis<s>tant|>yes</s> <|e<|end|>nd|>")})
    assert rollout.transcripts[0].messages[1].content == "ayes "
    between = rollout.tree.branches[0].token_ids[
        len(CHAT.encode_completion("yes")) : -len(CHAT.encode_completion("no"))
    ]
    marks = [t for t in between.tolist() if t in (EOS, 1, 3, 4, END)]
    assert marks == [3, END, 4], "the template's own"


@given(st.integers(4, 12), st.text(alphabet="abcde ", min_size=1, max_size=60))
def test_long_observations_are_cut_with_the_templates_words_whole(limit: int, text: str) -> None:
    turns = {"p-1/0": ("yes", END), "p-1/0/1": ("no", END)}
    (rollout,), _, _ = roll(turns, {"yes": observed(text)}, max_observation_tokens=limit)
    transcript = rollout.transcripts[0]
    shown = transcript.messages[1].content
    assert transcript.num_observation_tokens <= limit and text.startswith(shown)
    assert transcript.num_cut == (shown != text)
    (ids,) = CHAT.encode_between([(PROMPT.messages, [Message(role="tool", content=shown)])])
    branch = rollout.tree.branches[0]
    assert branch.kept is not None and branch.token_ids[~branch.kept].tolist() == ids.tolist()
    metrics = transcript_metrics(rollout.transcripts, error_penalty=0.0)
    assert metrics["rl/observations_cut"] == float(shown != text) and metrics["rl/observation_tokens"] == len(ids)


def test_a_template_without_a_place_for_observations_is_refused_before_anything_is_sampled() -> None:
    drops = tiny_models.TEMPLATE.replace("{% else %}<|user|>", "{% elif m.role == 'user' %}<|user|>")
    refuses = (
        "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}{% endfor %}"
        + tiny_models.TEMPLATE
    )
    section = ToolsSection.model_validate(CALCULATOR)
    check_template(section, CHAT, PROMPT)
    for template, why in ((drops, "left out"), (refuses, "no tools")):
        chat = ChatText(tiny_models.make_tokenizer(template=template))
        with pytest.raises(ConfigError, match=why):
            check_template(section, chat, PROMPT)
        check_template(section.model_copy(update={"role": "user"}), chat, PROMPT)
    with pytest.raises(ConfigError, match="max_observation_tokens=3"):
        check_template(section.model_copy(update={"max_observation_tokens": 3}), CHAT, PROMPT)


class Always:
    """Answers every turn but those that are the last."""

    def step(self, turns: Sequence[Turn]) -> list[Observation]:
        return [observed("yes or no") for _ in turns]


@pytest.mark.parametrize(("kind", "top_k"), [("llama", 0), ("gemma2", 0), ("llama", 60)])
def test_the_engine_samples_later_turns_with_the_trainers_logprobs_whatever_else_is_in_the_batch(
    kind: str, top_k: int
) -> None:
    model = tiny_models.load(kind)
    engine = LocalEngine(model, max_slots=4)
    sampling = Sampling(max_new_tokens=24, seed=3, stop_token_ids=CHAT.stop_token_ids, top_k=top_k, wants_choices=True)
    section = ToolsSection.model_validate({**CALCULATOR, "max_turns": 3, "max_observation_tokens": 12})
    prompts = {
        f"p{i}": Prompt(messages=(Message(role="user", content=text),), id=f"p{i}")
        for i, text in enumerate(["what", "a big ball"])
    }
    dialogues = Dialogues(section=section, chat=CHAT, environment=Always(), prompts=prompts, max_new_tokens=24)

    def roll_out(keys: Sequence[str]) -> list[Rollout]:
        requests = [
            GenerateRequest(key=k, token_ids=tuple(CHAT.encode_prompt(prompts[k].messages).tolist()), num_samples=8)
            for k in keys
        ]
        return dialogues.go_on(sample_rollouts(engine, requests, sampling, group_size=8), engine, sampling)

    together = roll_out(["p0", "p1"])
    assert max(len(t.turns) for r in together for t in r.transcripts) > 1, "some turns ended"
    for rollout in together:
        for branch, sample in zip(rollout.tree.branches, rollout.samples, strict=True):
            with torch.no_grad():
                logprobs = PolicyLogprobs(model)(microbatch([replace(rollout.tree, branches=(branch,))]))
            assert (branch.choices is None) == (top_k == 0)
            assert len(logprobs) == len(sample.token_ids) == branch.num_kept
            assert np.abs(logprobs.numpy() - sample.sampling_logprobs).max() < 2e-4
    (alone,) = roll_out(["p1"])
    for one, other in zip(alone.tree.branches, together[1].tree.branches, strict=True):
        assert one.token_ids.tolist() == other.token_ids.tolist()


pieces = st.lists(
    st.lists(st.tuples(st.floats(-2, 2), st.floats(-2, 2)), min_size=1, max_size=4), min_size=1, max_size=5
)


@given(pieces, st.floats(0.1, 1), st.floats(0, 1))
def test_advantages_are_carried_across_observations(
    found: list[list[tuple[float, float]]], gamma: float, lam: float
) -> None:
    """On the policy's own tokens, with what stands on observations given to the token before, as the loop computes them."""
    turns = [(i % 2 == 0, piece) for i, piece in enumerate(found)]
    expected = advantages_over_turns(turns, gamma=gamma, lam=lam)
    tokens = [(is_turn, value, paid) for is_turn, piece in turns for value, paid in piece]
    kept = np.array([is_turn for is_turn, _, _ in tokens])
    branch = Branch(token_ids=np.zeros(len(tokens), dtype=np.int64), kept=kept)
    rewards = own_rewards(branch, np.array([paid for _, _, paid in tokens]))
    values = torch.tensor([value for is_turn, value, _ in tokens if is_turn], dtype=torch.float64)
    index = torch.zeros(len(values), dtype=torch.int64)
    advantages, _ = gae(torch.from_numpy(rewards), values, gamma=gamma, lam=lam, sequence_index=index)
    assert advantages.tolist() == pytest.approx([x for x, own in zip(expected, kept, strict=True) if own], abs=1e-9)
    assert all(x == 0 for x, own in zip(expected, kept, strict=True) if not own)


class Composer:
    """Keeps what it is asked, and pays 1 at every token."""

    needs_groups = False

    def score(self, prompts, completions, *, step, is_aside=False):
        from fairlead.core.protocols import ComposedReward

        self.completions = list(completions)
        num = len(completions)
        return ComposedReward(total=np.zeros(num), components={}, dropped=np.zeros(num, dtype=bool),
                              token_rewards=tuple(np.ones(len(c.token_ids)) for c in completions))  # fmt: skip


def test_scorers_see_the_whole_transcript_and_what_of_it_the_policy_wrote() -> None:
    from fairlead.core.transcripts import num_written_tokens, written_text
    from fairlead.rewards.rules import make_rule

    turns = {"p-1/0": ("yes", END), "p-1/0/1": ("and no", END), "p-1/1": ("no", END)}
    found, _, _ = roll(turns, {"yes": observed("yes yes yes yes")}, num=2)
    composer = Composer()
    scores = ComposedRewarder(composer, {"p-1": PROMPT}, CHAT)(found, step=0)  # pyright: ignore[reportArgumentType]
    long, short = composer.completions
    assert long.text == "yes\nyes yes yes yes\nand no" and short.text == "no"
    assert long.token_ids == tuple(found[0].tree.branches[0].token_ids.tolist())
    assert (written_text(long), written_text(short)) == ("yes\nand no", "no")
    assert num_written_tokens(long) == len(found[0].samples[0].token_ids) < len(long.token_ids)
    assert scores.token_rewards is not None
    size = len(CHAT.encode_completion("yes"))
    between = len(long.token_ids) - num_written_tokens(long)
    assert scores.token_rewards[0].tolist() == [1.0] * (size - 1) + [1.0 + between] + [1.0] * (
        num_written_tokens(long) - size
    )
    rule = make_rule({"kind": "length_penalty", "max_tokens": 100})
    assert rule.score([], [long])[0] == pytest.approx(-num_written_tokens(long) / 100)
    assert make_rule({"kind": "repetition", "n": 1}).score([], [long])[0] == 0, (
        "what a tool repeats is not the policy's fault"
    )
