"""The composer: routing, failures, statistics that survive a checkpoint, swaps, the log of scored samples."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from verifier_example import section as section_of

from fairlead.core.config import parse_config
from fairlead.core.errors import ConfigError, DataError, EngineError
from fairlead.core.records import Completion, Message, Prompt
from fairlead.core.reward_section import ComposeSection
from fairlead.core.transcripts import num_written_tokens, written_meta, written_text
from fairlead.rewards.compose import normalise_then_sum
from fairlead.rewards.composer import Composer
from fairlead.rewards.pool import WorkerPool
from fairlead.rewards.router import Router
from fairlead.rewards.rules import make_rule
from fairlead.rewards.scored import SCORED_FILE, ScoredLog, read_scored
from fairlead.rewards.sources import Asked, Direct, Pooled
from fairlead.rewards.verifiers import make_verifier
from fairlead.telemetry.metrics import describe

NAN = math.nan
RULE = {"type": "rule", "rule": {"kind": "missing_eos"}}


def prompt(text, *, slice="chat", **meta):
    return Prompt(messages=(Message(role="user", content=text),), slice=slice, meta=meta)


def reply(text, *, number=0, finish_reason="stop"):
    return Completion(
        prompt_id="p",
        text=text,
        model="policy",
        token_ids=tuple(range(len(text))),
        sample_index=number,
        finish_reason=finish_reason,
    )


def section(components, **options):
    return parse_config(ComposeSection, {"components": components, **options}, where="policies.p.rewards")


class Says:
    """A scorer that reads its score off the text, or raises what it is told to."""

    name = "says"

    def __init__(self, read=float, error=None):
        self.read, self.error = read, error

    def score(self, prompts, completions):
        if self.error:
            raise self.error
        return np.array([self.read(c.text) for c in completions], dtype=np.float64)


class Partly:
    """A source that fails on some texts, as a pool of workers does."""

    is_dense = False

    def active(self, step):
        return ""

    def ask(self, prompts, completions, *, step):
        failed = np.array([c.text == "slow" for c in completions])
        return Asked(values=np.where(failed, NAN, 1.0), failed=failed, reason="took longer than 1 s")


class Swapped:
    """A reward model that is another one from step 10 on, and scores ten times as high."""

    is_dense = False

    def active(self, step):
        return "model-b" if step >= 10 else "model-a"

    def ask(self, prompts, completions, *, step):
        values = np.array([float(c.text) for c in completions]) * (10 if step >= 10 else 1)
        return Asked(values=values, failed=np.zeros(len(values), dtype=bool))


def same(found, expected):
    np.testing.assert_allclose(found, np.asarray(expected, dtype=np.float64), rtol=1e-9, atol=1e-12)


def test_a_mixed_batch_is_scored_by_what_each_prompt_is_for():
    """Chat: 2 * text. Math: a verifier of its own and the penalty of -1 for a cut reply, weight 0.5."""
    composer = Composer(
        section({"help": {**RULE, "weight": 2, "except_slices": ["math"]}, "right": {**RULE, "slices": ["math"]},
                 "eos": {"type": "rule", "rule": {"kind": "missing_eos"}, "weight": 0.5}}),
        {"help": Direct(Says()), "right": Direct(Says(lambda text: float(text == "4"))), "eos": Direct(make_rule({"kind": "missing_eos"}))},
    )  # fmt: skip
    chat, sums = prompt("hi"), prompt("2+2", slice="math")
    found = composer.score(
        [chat, sums, chat, sums], [reply("3"), reply("4"), reply("1", finish_reason="length"), reply("5")], step=0
    )
    same(found.total, [6, 1, 1.5, 0])
    same(found.components["help"], [3, NAN, 1, NAN])
    same(found.components["right"], [NAN, 1, NAN, 0])
    assert not found.dropped.any() and not found.is_advantage and found.token_rewards is None
    assert (
        found.metrics["reward/help_mean"] == 2
        and found.metrics["reward/help_share"] == 0.5
        and found.metrics["reward/right_std"] == 0.5
    )
    assert found.metrics["reward/total_mean"] == pytest.approx(2.125) and found.metrics["reward/dropped"] == 0
    for name in found.metrics:
        assert describe(name).meaning


def test_a_failure_costs_the_sample_and_leaves_its_group():
    said = []
    composer = Composer(section({"a": {**RULE}}), {"a": Partly()}, say=said.append)
    one = prompt("x")
    for _ in range(2):
        found = composer.score([one] * 3, [reply("ok"), reply("slow"), reply("ok")], step=0)
        same(found.total, [1, NAN, 1])
        assert found.dropped.tolist() == [False, True, False]
        assert found.metrics["reward/a_failed"] == 1 and found.metrics["reward/a_share"] == 1
    assert len(said) == 1 and "took longer than 1 s" in said[0]


def test_in_a_group_the_statistics_are_those_of_the_survivors():
    composer = Composer(
        section({"a": RULE, "b": RULE}, combine="normalise_then_sum"), {"a": Partly(), "b": Direct(Says(len))}
    )
    one = prompt("x")
    found = composer.score([one] * 4, [reply("ok"), reply("slow"), reply("fine"), reply("longest")], step=0)
    assert composer.needs_groups and found.is_advantage
    kept = {"a": np.ones(3), "b": np.array([2.0, 4.0, 7.0])}
    same(found.total[~found.dropped], normalise_then_sum(kept, {"a": 1, "b": 1}, np.zeros(3, dtype=np.int64)))


@pytest.mark.parametrize(("rule", "total"), [("skip", [5, 5]), ("drop", [NAN, NAN])])
def test_a_component_that_raises_is_dropped_or_skipped(rule, total):
    broken = Direct(Says(error=RuntimeError("the service is down")))
    composer = Composer(section({"a": {**RULE, "on_failure": rule}, "b": RULE}), {"a": broken, "b": Direct(Says())})
    same(composer.score([prompt("x")] * 2, [reply("5"), reply("5")], step=0).total, total)


def test_a_component_that_is_only_logged_costs_nothing_when_it_fails():
    broken = Direct(Says(error=RuntimeError("down")))
    composer = Composer(section({"a": {**RULE, "weight": 0}, "b": RULE}), {"a": broken, "b": Direct(Says())})
    same(composer.score([prompt("x")], [reply("5")], step=0).total, [5])


def test_checks_in_worker_processes_fail_one_by_one():
    """A verifier that the second reply kills and the third outlasts: these two are dropped, in time."""
    spec = section_of("custom", build="verifier_faults:build", timeout_s=3)
    with WorkerPool(num_workers=1, retries=0) as pool:
        composer = Composer(section({"a": RULE}), {"a": Pooled(make_verifier(spec, pool=pool))})
        found = composer.score(
            [prompt("x")] * 4, [reply("score 0.5"), reply("exit 3"), reply("sleep 60"), reply("score 1")], step=0
        )
    same(found.total, [len("score 0.5") / 1000, NAN, NAN, len("score 1") / 1000])
    assert found.metrics["reward/a_failed"] == 2 and found.metrics["reward/dropped"] == 0.5


def test_stop_ends_the_run_with_the_reason():
    broken = Direct(Says(error=RuntimeError("down")))
    composer = Composer(section({"a": {**RULE, "on_failure": "stop"}}), {"a": broken})
    with pytest.raises(
        EngineError, match=r"rewards\.components\.a failed on 1 of 1 completions \(RuntimeError: down\)"
    ):
        composer.score([prompt("x")], [reply("5")], step=0)


def test_wrong_files_are_not_a_failure_to_be_survived():
    composer = Composer(section({"a": RULE}), {"a": Direct(Says(error=DataError("prompt has no answer")))})
    with pytest.raises(DataError, match="no answer"):
        composer.score([prompt("x")], [reply("5")], step=0)


def test_infinite_scores_are_failures():
    composer = Composer(section({"a": RULE}), {"a": Direct(Says())})
    found = composer.score([prompt("x")] * 2, [reply("inf"), reply("2")], step=0)
    assert found.dropped.tolist() == [True, False] and found.metrics["reward/a_failed"] == 1


def test_a_service_that_stays_down_ends_the_run_after_some_rounds_and_counts_across_a_checkpoint():
    make = lambda: Composer(section({"a": RULE}, max_failed_rounds=3), {"a": Direct(Says(error=OSError("refused")))})  # noqa: E731
    first = make()
    for _ in range(2):
        assert first.score([prompt("x")], [reply("1")], step=0).dropped.all()
    again = make()
    again.restore(json.loads(json.dumps(first.state())))
    with pytest.raises(EngineError, match="scored no completion in 3 rounds in a row"):
        again.score([prompt("x")], [reply("1")], step=0)


def test_running_statistics_go_on_from_a_checkpoint_exactly():
    make = lambda: Composer(section({"a": RULE}, normalise_by="running"), {"a": Direct(Says())})  # noqa: E731
    rounds = [[reply("1"), reply("3")], [reply("8"), reply("4.5")], [reply("-2"), reply("0.1")]]
    whole, first, again = make(), make(), make()
    expected = [whole.score([prompt("x")] * 2, r, step=i).total for i, r in enumerate(rounds)]
    for i in range(2):
        first.score([prompt("x")] * 2, rounds[i], step=i)
    again.restore(json.loads(json.dumps(first.state())))
    assert again.score([prompt("x")] * 2, rounds[2], step=2).total.tolist() == expected[2].tolist()
    same(expected[0], np.array([-1, 1]) / math.sqrt(2))


def test_what_is_scored_aside_is_in_the_units_of_the_round_and_leaves_no_trace(tmp_path):
    """Samples 1 and 3: mean 2, deviation sqrt(2); a greedy completion of 6 is (6 - 2) / sqrt(2), whatever was scored aside before."""
    log = ScoredLog(tmp_path, num_samples=9)
    composer = Composer(
        section({"a": RULE}, normalise_by="running", max_failed_rounds=2), {"a": Direct(Says())}, log=log
    )
    composer.score([prompt("x")] * 2, [reply("1"), reply("3")], step=0)
    state, rows = json.dumps(composer.state()), (tmp_path / SCORED_FILE).read_bytes()
    for _ in range(3):
        same(composer.score([prompt("x")], [reply("6")], step=0, is_aside=True).total, [4 / math.sqrt(2)])
        assert composer.score([prompt("x")], [reply("nan")], step=0, is_aside=True).dropped.all(), (
            "and no failure of a round"
        )
    assert json.dumps(composer.state()) == state and (tmp_path / SCORED_FILE).read_bytes() == rows


def test_reference_statistics_are_taken_once_from_the_samples():
    """Samples 0 and 2: mean 1, sample deviation sqrt(2); weighed by 3 the sum has mean 3 and deviation 3 sqrt(2)."""
    calls = []

    def samples():
        calls.append(1)
        return [prompt("y")] * 2, [reply("0"), reply("2")]

    composer = Composer(
        section({"a": {**RULE, "weight": 3}}, normalise_by="reference"), {"a": Direct(Says())}, reference=samples
    )
    for _ in range(2):
        same(composer.score([prompt("x")], [reply("5")], step=0).total, [(15 - 3) / (3 * math.sqrt(2))])
    assert len(calls) == 1


def test_each_component_in_its_own_units_where_there_are_no_groups():
    composer = Composer(section({"a": RULE, "b": {**RULE, "weight": 2}}, combine="normalise_then_sum", normalise_by="reference"),
                        {"a": Direct(Says()), "b": Direct(Says(lambda text: 100 * float(text)))},
                        reference=lambda: ([prompt("y")] * 2, [reply("0"), reply("2")]))  # fmt: skip
    assert not composer.needs_groups
    same(composer.score([prompt("x")], [reply("3")], step=0).total, [(3 - 1) / math.sqrt(2) * (1 + 2)])


def test_a_swap_is_logged_and_starts_statistics_of_its_own():
    composer = Composer(
        section({"a": {"type": "model", "swaps": {10: "model-b"}}}, normalise_by="running"), {"a": Swapped()}
    )
    replies = [reply("1"), reply("3")]
    first, second = (composer.score([prompt("x")] * 2, replies, step=step) for step in (9, 10))
    assert (first.active, second.active) == ({"a": "model-a"}, {"a": "model-b"})
    assert (first.metrics["reward/a_swaps"], second.metrics["reward/a_swaps"]) == (0, 1)
    same(second.total, first.total)  # ten times as high, in statistics of its own


def test_the_log_gives_every_sample_back_and_an_interrupted_round_is_written_once(tmp_path):
    make = lambda: Composer(section({"a": RULE, "b": {**RULE, "slices": ["math"]}}),  # noqa: E731
                            {"a": Direct(Says()), "b": Direct(Says())}, log=ScoredLog(tmp_path, num_samples=2))  # fmt: skip
    asked = prompt("x", level=2)
    first = make()
    first.score([asked] * 3, [reply("1"), reply("2"), reply("3")], step=0)
    first.score([asked] * 3, [reply("4"), reply("5"), reply("6")], step=4)
    with (tmp_path / SCORED_FILE).open("a") as file:
        file.write('{"step": 4, "pro')  # killed while it wrote
    assert [row.step for row in read_scored(tmp_path / SCORED_FILE)] == [0, 0, 4, 4]
    make().score([asked] * 3, [reply("7"), reply("8"), reply("9")], step=4)
    rows = list(read_scored(tmp_path / SCORED_FILE))
    assert [(row.step, row.completion.text, row.total) for row in rows] == [
        (0, "1", 1),
        (0, "2", 2),
        (4, "7", 7),
        (4, "8", 8),
    ]
    assert rows[0].prompt == asked and rows[0].prompt.meta == {"level": 2} and rows[0].completion.token_ids == (0,)
    assert rows[0].components["a"] == 1 and math.isnan(rows[0].components["b"])
    (tmp_path / "out").mkdir()
    first.save(tmp_path / "out")
    assert (tmp_path / "out" / SCORED_FILE).read_text() == (tmp_path / SCORED_FILE).read_text()


def test_what_a_policy_wrote_of_several_turns_is_logged_with_them(tmp_path):
    turns = replace(reply("1\n2\n3"), meta=written_meta(["1", "3"], num_tokens=5), token_ids=tuple(range(9)), id="")
    composer = Composer(
        section({"a": RULE}), {"a": Direct(Says(lambda text: float(len(text))))}, log=ScoredLog(tmp_path, num_samples=2)
    )
    composer.score([prompt("x")] * 2, [turns, reply("4")], step=0)
    first, second = read_scored(tmp_path / SCORED_FILE)
    assert (written_text(first.completion), num_written_tokens(first.completion)) == ("1\n3", 5)
    assert first.completion.text == "1\n2\n3" and len(first.completion.token_ids) == 9
    assert written_text(second.completion) == "4" and not second.completion.meta


def test_routing_by_slice_meta_and_by_the_prompt_itself():
    router = Router(
        section(
            {"a": {**RULE, "slices": ["chat"]}, "b": {**RULE, "where": {"level": [2, 3], "checked": True}}}
        ).components
    )
    prompts = [prompt("x"), prompt("y", slice="math", level=3, checked=True), prompt("z", level=1, checked=True), prompt("w", level=2, checked=1),
               prompt("v", rewards=["b"]), prompt("u", slice="other", rewards="a")]  # fmt: skip
    found = router.applies(prompts)
    assert found["a"].tolist() == [True, False, True, True, False, True]
    assert found["b"].tolist() == [False, True, False, False, True, False]
    assert [row[:2] + row[3:] for row in router.check([prompts[0], prompts[1]]).rows] == [
        ("a", "rule", 1, 0.5),
        ("b", "rule", 1, 0.5),
    ]


def test_routing_names_what_does_not_fit():
    router = Router(section({"a": {**RULE, "slices": ["chat"]}, "math": {**RULE, "slices": ["maths"]}}).components)
    with pytest.raises(DataError, match=r"meta\.rewards=mth is not a component \(did you mean math\?\)"):
        router.applies([prompt("x", rewards=["mth"])])
    with pytest.raises(
        DataError, match=r"rewards\.components\.math\.slices=maths is a slice without prompts \(did you mean math\?\)"
    ):
        router.check([prompt("x"), prompt("y", slice="math")])
    other = {"a": {**RULE, "slices": ["chat"]}, "b": {**RULE, "where": {"level": 2}}}
    router = Router(section(other).components)
    with pytest.raises(DataError, match=r"is scored by no component of rewards \(1 of 2 prompts; its slice is math\)"):
        router.check([prompt("x"), prompt("y", slice="math")])
    with pytest.raises(DataError, match=r"p\.rewards\.components\.b scores none of the 1 prompts; .* slices are chat"):
        router.check([prompt("x")], where="p.rewards")
    with pytest.raises(DataError, match=r"a\.except_slices=code is a slice without prompts; expected .*which are chat"):
        Router(section({"a": {**RULE, "except_slices": ["code"]}}).components).check([prompt("x")])


@pytest.mark.parametrize(("components", "options", "message"), [
    ({"total": RULE}, {}, "is no name for a component"),
    ({"a": {**RULE, "weight": 0}}, {}, "weigh nothing"),
    ({"a": {**RULE, "slices": ["x"], "except_slices": ["x"]}}, {}, "are also in slices"),
    ({"a": RULE}, {"normalise_by": "group"}, "is not possible with combine=weight_then_normalise; expected method, running or reference"),
    ({"a": RULE}, {"combine": "normalise_then_sum", "normalise_by": "method"}, "expected group, running or reference"),
    ({"a": {"type": "model", "swaps": {0: "m"}}}, {}, "is before the first swap"),
])  # fmt: skip
def test_sections_that_do_not_fit_are_refused(components, options, message):
    with pytest.raises(ConfigError, match=message):
        section(components, **options)
