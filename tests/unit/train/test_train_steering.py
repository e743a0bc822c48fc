"""What the rules decide is done: checkpoints kept, coefficients and rates moved, weights put back, runs ended, all of it resumable."""

import json

import pytest
import torch
from training_examples import make_learner, make_trees, weights

from fairlead.core.errors import TrainError
from fairlead.core.services import Services
from fairlead.telemetry import Action, Condition, Rule
from fairlead.train.hooks import Session

SNAPSHOT, ROLL_BACK, STOP = (Action(kind=kind) for kind in ("snapshot", "roll_back", "stop"))
RAISE_KL, SLOWER = Action(kind="raise_kl", factor=1.5, bound=1.0), Action(kind="scale_rate", factor=0.5)


def rule(*actions, limit=0.5):
    return Rule(
        id="high",
        when=(Condition(metric="rl/kl_k1", side="above", limit=limit, window=1),),
        remedy="Look",
        actions=actions,
    )


def session(learner, folder, *rules, allow=None, **options):
    services = Services(work=folder / "work", checkpoint_every_s=1e9, extras={"allow": allow or {}}, **options)
    return Session(
        learner, services=services, title="test", metric="sft/loss", metrics_path=folder / "metrics.jsonl", rules=rules
    )


def step(running, kl):
    """One optimiser step whose round had this KL."""
    learner = running.learner
    metrics = learner.step(make_trees("sft", seed=learner.step_number))
    return running.record({**metrics, "rl/kl_k1": kl})


def test_what_a_rule_says_is_told_shown_and_kept(tmp_path):
    said, learner = [], make_learner("sft", num_steps=4)
    with session(learner, tmp_path, rule(), say=said.append) as running:
        for kl in (0.1, 0.75, 0.8):
            step(running, kl)
        shown = (tmp_path / "work" / "alerts.jsonl").read_text()
    assert said == ["test: WARN high at step 2: rl/kl_k1 0.750 nats/token is above the limit 0.500. Look."]
    assert (tmp_path / "alerts.jsonl").read_text() == shown
    assert json.loads(shown)["rule"] == "high" and json.loads(shown)["step"] == 2


def test_a_quiet_run_leaves_no_file_of_alerts(tmp_path):
    with session(make_learner("sft", num_steps=4), tmp_path, rule()) as running:
        step(running, 0.1)
    assert not list(tmp_path.rglob("alerts.jsonl"))


def test_the_kl_coefficient_and_the_scale_of_a_scheduled_one_move(tmp_path):
    with session(make_learner("sft", num_steps=4), tmp_path, rule(RAISE_KL)) as running:
        running.extra |= {"kl_coef": 0.2, "kl_scale": 1.0}
        step(running, 0.9)
        assert running.extra == {"kl_coef": pytest.approx(0.3), "kl_scale": pytest.approx(1.5)}


def results(folder):
    return [row["results"] for row in map(json.loads, (folder / "work" / "alerts.jsonl").read_text().splitlines())]


@pytest.mark.parametrize(("extra", "expected"), [
    ({"kl_coef": 0.2}, "KL coefficient 0.200 to 0.300"), ({"kl_coef": 1.0}, "KL coefficient stays at 1"),
    ({"kl_coef": 0.0}, "KL coefficient stays at 0"), ({}, "no KL coefficient here"),
])  # fmt: skip
def test_what_came_of_an_alert_is_what_happened_and_not_what_was_ordered(extra, expected, tmp_path):
    with session(make_learner("sft", num_steps=4), tmp_path, rule(SNAPSHOT, RAISE_KL, ROLL_BACK, SLOWER)) as running:
        running.extra |= extra
        step(running, 0.9)
        assert results(tmp_path) == [
            [
                "checkpoint of step 1 kept",
                expected,
                "learning rate x 0.500 from here on",
                "no good checkpoint to go back to",
            ]
        ]
        step(running, 0.1)
        assert json.loads((tmp_path / "work" / "alerts.jsonl").read_text())["over_at"] == 2


def test_the_learning_rate_is_halved_from_the_next_step_on_and_after_a_resume(tmp_path):
    whole = make_learner("sft", num_steps=4)
    with session(whole, tmp_path / "a") as running:
        rates = [whole.step(make_trees("sft", seed=i))["learning_rate"] for i in range(3)]
    learner = make_learner("sft", num_steps=4)
    with session(learner, tmp_path / "b", rule(SLOWER)) as running:
        step(running, 0.9)
        running.save()
    again = make_learner("sft", num_steps=4)
    with session(again, tmp_path / "b", rule(SLOWER)):
        found = [again.step(make_trees("sft", seed=i))["learning_rate"] for i in (1, 2)]
    assert found == pytest.approx([rate / 2 for rate in rates[1:]])


def test_a_snapshot_stays_when_newer_checkpoints_push_it_out(tmp_path):
    learner = make_learner("sft", num_steps=8)
    with session(learner, tmp_path, rule(SNAPSHOT)) as running:
        for kl in (0.1, 0.9, 0.1, 0.1, 0.1):
            step(running, kl)
            if learner.step_number != 2:
                running.save()
    assert [path.name for path in sorted((tmp_path / "work" / "checkpoints").iterdir())] == [
        f"step-{n:08d}" for n in (2, 4, 5)
    ]


def test_weights_and_optimiser_go_back_while_steps_go_on(tmp_path):
    """Good is the state after the first row; the rows that broke the rule are undone, the next step is made from the good weights."""
    said, learner = [], make_learner("sft", num_steps=8)
    with session(learner, tmp_path, rule(ROLL_BACK), say=said.append) as running:
        step(running, 0.1)
        good = weights(learner)
        step(running, 0.2)
        assert not all(torch.equal(a, b) for a, b in zip(good, weights(learner), strict=True))
        assert step(running, 0.9).wants_roll_back
        assert all(torch.equal(a, b) for a, b in zip(good, weights(learner), strict=True))
        assert learner.step_number == 3
        assert {float(state["step"]) for part in learner.optimizer.parts for state in part.state.values()} == {1.0}
        assert said[-1] == "test: back to the weights of step 1; steps, prompts and seeds go on."
        assert results(tmp_path) == [["back to the weights of step 1"]]
        step(running, 0.1)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]


def test_a_run_that_went_back_and_was_killed_ends_as_one_that_was_not(tmp_path):
    def run(folder, stops):
        for stop in stops:
            learner = make_learner("sft", num_steps=8)
            with session(learner, folder, rule(ROLL_BACK, SLOWER)) as running:
                for kl in (0.1, 0.2, 0.9, 0.1, 0.3, 0.2)[learner.step_number : stop]:
                    step(running, kl)
                if stop < 6:
                    running.save()
        return learner

    whole, parts = run(tmp_path / "a", [6]), run(tmp_path / "b", [2, 4, 6])
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(parts), strict=True))
    names = ("metrics.jsonl", "alerts.jsonl")
    assert [(tmp_path / "a" / n).read_bytes() for n in names] == [(tmp_path / "b" / n).read_bytes() for n in names]


def test_without_a_good_checkpoint_training_goes_on_and_says_so(tmp_path):
    said = []
    with session(make_learner("sft", num_steps=4), tmp_path, rule(ROLL_BACK), say=said.append) as running:
        step(running, 0.9)
    assert said[-1] == "test: there is no good checkpoint to go back to; training goes on from here."


def test_a_run_that_a_rule_stopped_is_saved_and_refused_until_the_rule_is_allowed(tmp_path):
    learner, said = make_learner("sft", num_steps=4), []
    message = (
        r"test was stopped at step 2 by rule high: .*0.900 .* Look. Everything is saved; .* --allow alert.high='why'"
    )
    with pytest.raises(TrainError, match=message), session(learner, tmp_path, rule(STOP)) as running:
        step(running, 0.1)
        step(running, 0.9)
    again = make_learner("sft", num_steps=4)
    with pytest.raises(TrainError, match=message), session(again, tmp_path, rule(STOP)):
        pytest.fail("a stopped run went on")
    allowed = make_learner("sft", num_steps=4)
    with session(allowed, tmp_path, rule(STOP), allow={"alert.high": "meant"}, say=said.append) as running:
        assert running.resumed_from == 2 and again.step_number == 0
        assert all(torch.equal(a, b) for a, b in zip(weights(learner), weights(allowed), strict=True))
        step(running, 0.9)
    assert said[0] == "test: high is allowed on record: meant"
    assert results(tmp_path) == [["stopped here"]]


def test_a_loss_that_is_no_number_stops_by_the_rule_of_its_name(tmp_path):
    with (
        pytest.raises(TrainError, match="stopped at step 1 by rule not_finite: rl/score=nan is not finite"),
        session(
            make_learner("sft", num_steps=4), tmp_path, Rule(id="not_finite", when=(), remedy="Look", actions=(STOP,))
        ) as running,
    ):
        metrics = running.learner.step(make_trees("sft", seed=0))
        running.record({**metrics, "rl/score": float("nan")})
