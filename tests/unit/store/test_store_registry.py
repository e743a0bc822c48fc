"""Registries: allowed steps only, rollback to the release before, a log that survives being killed."""

import json
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_example import add

from fairlead.core.errors import StoreError
from fairlead.store.artifacts import ArtifactStore
from fairlead.store.log import AppendLog
from fairlead.store.registry import Registry


@pytest.fixture
def store(tmp_path):
    return ArtifactStore(tmp_path)


def release(registry, artifact_id, name=None):
    registry.register(artifact_id, name or artifact_id)
    registry.promote(artifact_id, to="approved", reason="gates passed")
    return registry.promote(artifact_id, to="released", reason="review")


def policies(store, num):
    return [add(store, "policy", str(i)) for i in range(num)]


def test_the_way_of_a_release(store, monkeypatch):
    monkeypatch.setenv("USER", "ada")
    (policy,), registry = policies(store, 1), Registry(store, "policies")
    assert registry.current() is None and registry.entries() == ()
    assert registry.register(policy.id, "helpful-v1").state == "candidate"
    assert registry.promote("helpful-v1", to="approved", reason="gates passed").state == "approved"
    entry = registry.promote(policy.id[:12], to="released", reason="review")
    assert (entry.state, entry.is_current, entry.actor, entry.reason, entry.name) == (
        "released",
        True,
        "ada",
        "review",
        "helpful-v1",
    )
    assert registry.current() == entry and registry.entries() == (entry,)
    assert [(e.action, e.reason) for e in registry.events()] == [
        ("candidate", ""),
        ("approved", "gates passed"),
        ("released", "review"),
    ]
    assert Registry(store, "reward_models").entries() == ()


def test_the_actor_is_unknown_without_a_user(store, monkeypatch):
    monkeypatch.delenv("USER", raising=False)
    assert Registry(store, "policies").register(policies(store, 1)[0].id, "a").actor == "unknown"


def test_rollback_restores_the_release_before_and_is_recorded(store):
    (a, b, c), registry = policies(store, 3), Registry(store, "policies")
    for policy in (a, b, c):
        release(registry, policy.id)
    assert registry.rollback(reason="toxic").artifact_id == b.id
    assert registry.current().artifact_id == b.id
    event = registry.events()[-1]
    assert (event.action, event.artifact_id, event.restored, event.reason) == ("rolled_back", c.id, b.id, "toxic")
    assert registry.rollback().artifact_id == a.id
    with pytest.raises(StoreError, match="nothing to go back to; expected at least 2"):
        registry.rollback()
    registry.promote(c.id, to="approved", reason="fixed")
    assert registry.promote(c.id, to="released", reason="again").is_current
    assert registry.rollback().artifact_id == a.id


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        (["released"], "is candidate and cannot become released; expected approved or removed"),
        (["approved", "approved"], "is approved and cannot become approved; expected released or removed"),
        (
            ["approved", "released", "released"],
            "is released and cannot become released; expected rolled_back or removed",
        ),
        (["approved", "released", "approved"], "is released and cannot become approved"),
        (["removed", "approved"], "is removed and cannot become approved; expected candidate"),
    ],
)
def test_wrong_steps_say_what_is_allowed(store, steps, words):
    (policy,), registry = policies(store, 1), Registry(store, "policies")
    registry.register(policy.id, "a")
    actions = {
        "removed": lambda: registry.remove(policy.id, reason="r"),
    }
    with pytest.raises(StoreError, match=words):
        for i, step in enumerate(steps):
            before, is_last = registry.events(), i == len(steps) - 1
            actions.get(step, lambda step=step: registry.promote(policy.id, to=step, reason="r"))()
            assert not is_last, "the last step must fail"
    assert registry.events() == before


def test_other_refusals(store):
    (a, b), registry = policies(store, 2), Registry(store, "policies")
    registry.register(a.id, "first")
    assert registry.register(a.id, "first") == registry.entries()[0]
    assert registry.register(a.id, "other recipe, same artifact") == registry.entries()[0]
    refusals = {
        "is a prompts; expected a policy": lambda: registry.register(add(store, "prompts").id, "x"),
        "is empty; expected a name": lambda: registry.register(b.id, " "),
        "is empty; expected why": lambda: registry.promote(a.id, to="approved", reason=""),
        r"is not registered \(did you mean first\?\)": lambda: registry.promote("first1", to="approved", reason="r"),
        "is not in": lambda: registry.register("policy-0000000000000000", "x"),
        "expected policies or reward_models": lambda: Registry(store, "models"),
    }
    for words, action in refusals.items():
        with pytest.raises(StoreError, match=words):
            action()
    assert len(registry.events()) == 1


def test_a_name_of_several_artifacts_does_not_decide_between_them(store):
    (a, b), registry = policies(store, 2), Registry(store, "policies")
    for policy in (a, b):
        registry.register(policy.id, "run/policy")
    with pytest.raises(StoreError, match=f"means 2 entries \\({a.id}, {b.id}\\)"):
        registry.promote("run/policy", to="approved", reason="r")
    registry.remove(a.id, reason="r")
    assert registry.promote("run/policy", to="approved", reason="r").artifact_id == b.id


def test_the_current_release_cannot_be_removed_but_an_earlier_one_can(store):
    (a, b), registry = policies(store, 2), Registry(store, "policies")
    release(registry, a.id)
    release(registry, b.id)
    with pytest.raises(StoreError, match="is the current release"):
        registry.remove(b.id, reason="r")
    assert registry.remove(a.id, reason="old").state == "removed"
    with pytest.raises(StoreError, match="nothing to go back to"):
        registry.rollback()
    assert registry.register(a.id, "again").state == "candidate"


def test_damaged_files_are_neither_promoted_nor_restored(store):
    (a, b), registry = policies(store, 2), Registry(store, "policies")
    release(registry, a.id)
    release(registry, b.id)
    registry.register(c := add(store, "policy", "c").id, "c")
    for id in (a.id, c):
        (store.get(id).path / "data.txt").write_text("damaged")
    with pytest.raises(StoreError, match="data.txt was changed"):  # noqa: RUF043
        registry.rollback()
    with pytest.raises(StoreError, match="data.txt was changed"):  # noqa: RUF043
        registry.promote(c, to="approved", reason="r")
    assert registry.current().artifact_id == b.id


@settings(max_examples=12)
@given(
    actions=st.lists(
        st.tuples(st.sampled_from(["register", "approved", "released", "remove", "rollback"]), st.integers(0, 2)),
        max_size=25,
    )
)
def test_any_sequence_agrees_with_a_naive_model(tmp_path_factory, actions):
    """The model: a state for each artifact and a stack of releases."""
    store = ArtifactStore(tmp_path_factory.mktemp("store"))
    made, registry = policies(store, 3), Registry(store, "policies")
    states, stack = {}, []
    allowed = {"register": (None, "removed"), "approved": ("candidate", "rolled_back"), "released": ("approved",)}
    for action, i in actions:
        state = states.get(i)
        if action == "register" and state not in (None, "removed"):
            before = registry.events()
            registry.register(made[i].id, f"n{i}")
            assert registry.events() == before
            continue
        if action == "rollback":
            fine = len(stack) > 1
        elif action == "remove":
            fine = state not in (None, "removed") and stack[-1:] != [i]
        else:
            fine = state in allowed[action]
        try:
            if action == "rollback":
                registry.rollback()
            elif action == "register":
                registry.register(made[i].id, f"n{i}")
            elif action == "remove":
                registry.remove(made[i].id, reason="r")
            else:
                registry.promote(made[i].id, to=action, reason="r")
            assert fine
        except StoreError:
            assert not fine
            continue
        if action == "rollback":
            states[stack.pop()] = "rolled_back"
        else:
            states[i] = {"register": "candidate", "remove": "removed"}.get(action, action)
            stack = [s for s in stack if s != i] + ([i] if action == "released" else [])
        current = registry.current()
        assert (current and current.artifact_id) == (made[stack[-1]].id if stack else None)
        assert {e.artifact_id: e.state for e in registry.entries()} == {made[n].id: s for n, s in states.items()}


@pytest.mark.parametrize("cut", [1, 5, 60])
def test_a_torn_last_line_is_cut_off_with_a_notice(store, cut):
    (a, b), notices = policies(store, 2), []
    registry = Registry(store, "policies", say=notices.append)
    registry.register(a.id, "a")
    whole = registry.events()
    registry.register(b.id, "b")
    path = store.root / "registries" / "policies.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    assert registry.events() == whole
    assert len(notices) == 1 and "ended in the middle of an event" in notices[0] and "\n" not in notices[0]
    assert registry.register(b.id, "b").state == "candidate"
    assert len(registry.events()) == 2 and len(notices) == 1


def test_the_notice_is_a_warning_by_default_and_garbage_is_no_crash(tmp_path):
    log = AppendLog(tmp_path / "x.jsonl")
    log.path.write_bytes(b'{"a": 1}\n\x00\xff\x00')
    with pytest.warns(UserWarning, match="never took effect and was cut off"):
        assert log.read() == ({"a": 1},)
    assert log.path.read_bytes() == b'{"a": 1}\n'


@pytest.mark.parametrize("line", [b"{", b"[1]", b"\xff"])
def test_damage_that_no_crash_explains_is_a_located_error(tmp_path, line):
    log = AppendLog(tmp_path / "x.jsonl")
    log.path.write_bytes(b'{"a": 1}\n' + line + b'\n{"a": 2}\n')
    with pytest.raises(StoreError, match=r"x\.jsonl:2"):
        log.read()


@pytest.mark.parametrize("change", [{"new": 1}, {"action": "exploded"}])
def test_events_of_a_newer_version_are_refused(store, change):
    registry = Registry(store, "policies")
    registry.register(policies(store, 1)[0].id, "a")
    path = store.root / "registries" / "policies.jsonl"
    path.write_text(json.dumps(json.loads(path.read_text()) | change) + "\n")
    with pytest.raises(StoreError, match="Upgrade fairlead"):
        registry.entries()


def test_no_room_for_an_event_leaves_the_log_as_it_was(tmp_path):
    script = """
        import resource, sys
        from pathlib import Path
        from fairlead.core.errors import StoreError
        from fairlead.store.log import AppendLog
        log = AppendLog(Path(sys.argv[1]))
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        with log.exclusive():
            log.append({"a": 1})
            try:
                log.append({"a": "x" * 200})
            except StoreError as error:
                print(error)
    """
    path = tmp_path / "x.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(path)], capture_output=True, text=True, check=True
    )
    assert "cannot be written (File too large)" in done.stdout, done.stderr
    assert path.read_bytes() == b'{"a": 1}\n'


APPEND_FOREVER = """
    import itertools, sys
    from pathlib import Path
    from fairlead.store.log import AppendLog
    log = AppendLog(Path(sys.argv[1]), say=lambda text: None)
    print("ready", flush=True)
    for i in itertools.count():
        with log.exclusive():
            log.append({"i": len(log.read()), "text": "x" * 5000})
            print(i, flush=True)
"""


def test_killed_while_appending_loses_nothing_that_was_acknowledged(tmp_path):
    log = AppendLog(tmp_path / "x.jsonl", say=lambda _: None)
    acknowledged = 0
    for attempt in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(APPEND_FOREVER), str(log.path)], text=True, stdout=subprocess.PIPE
        )
        assert process.stdout and process.stdout.readline() == "ready\n"
        acknowledged += len(process.stdout.readline().split())
        time.sleep(0.005 * attempt)
        process.kill()
        acknowledged += len(process.communicate()[0].split())
        assert process.returncode == -signal.SIGKILL
        rows = log.read()
        assert [row["i"] for row in rows] == list(range(len(rows)))
        assert acknowledged <= len(rows) <= acknowledged + attempt + 1


def test_processes_that_append_at_the_same_time_lose_nothing(tmp_path):
    script = APPEND_FOREVER.replace("itertools.count()", "range(30)")
    arguments = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "x.jsonl")]
    processes = [subprocess.Popen(arguments, stdout=subprocess.DEVNULL) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert [row["i"] for row in AppendLog(tmp_path / "x.jsonl").read()] == list(range(90))
