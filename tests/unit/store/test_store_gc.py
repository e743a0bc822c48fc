"""Garbage collection: nothing that is needed is ever deleted, whatever the history looks like."""

import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_example import add, chain, tree

from fairlead.core.errors import StoreError
from fairlead.store.artifacts import ArtifactStore
from fairlead.store.gc import apply_gc, plan_gc
from fairlead.store.registry import Registry


def both(store):
    return Registry(store, "policies"), Registry(store, "reward_models")


def approve(registry, artifact_id):
    registry.register(artifact_id, artifact_id)
    registry.promote(artifact_id, to="approved", reason="r")


KINDS = ["prompts", "preferences", "reward_model", "policy", "policy", "eval", "release"]
NODES = st.tuples(st.sampled_from(KINDS), st.lists(st.integers(0, 99), max_size=3), st.none() | st.integers(0, 99),
                  st.sampled_from(["none", "candidate", "approved", "released", "rolled_back", "removed"]))  # fmt: skip


def build(store, nodes):
    """A random history: artifacts with random inputs and references, registered to random states."""
    registries = dict(zip(("policy", "reward_model"), both(store), strict=True))
    made = []
    for i, (kind, parents, reference, state) in enumerate(nodes):
        inputs = {f"r{n}": made[p % i].id for n, p in enumerate(parents)} if i else {}
        config = {"deep": [{"model": made[reference % i].id}]} if i and reference is not None else {}
        made.append(add(store, kind, str(i), inputs=inputs, config=config))
        if kind in registries and state != "none":
            registry = registries[kind]
            registry.register(made[-1].id, str(i))
            if state in ("approved", "released", "rolled_back"):
                registry.promote(made[-1].id, to="approved", reason="r")
            if state in ("released", "rolled_back"):
                registry.promote(made[-1].id, to="released", reason="r")
            if state == "rolled_back" and len([e for e in registry.entries() if e.state == "released"]) > 1:
                registry.rollback()
            if state == "removed":
                registry.remove(made[-1].id, reason="r")
    return made, tuple(registries.values())


def naive_needed(made, registries, keep_last):
    """The rule restated: grow the set of what is needed until nothing is added."""
    needed = {a.id for a in made if a.kind == "release"}
    used = {i for a in made if a.kind == "policy" for i in a.inputs.values()}
    needed |= {a.id for a in made if a.kind == "reward_model" and a.id in used}
    for kind in {a.kind for a in made}:
        newest = [a.id for a in made if a.kind == kind]
        needed |= set(newest[len(newest) - keep_last :] if keep_last else [])
    for registry in registries:
        needed |= {e.artifact_id for e in registry.entries() if e.state in ("approved", "released")}
    while True:
        more = {i for a in made if a.id in needed for i in a.inputs.values()}
        more |= {a.config["deep"][0]["model"] for a in made if a.id in needed and a.config}
        if more <= needed:
            return needed
        needed |= more


@settings(max_examples=12)
@given(nodes=st.lists(NODES, min_size=1, max_size=9), keep_last=st.integers(0, 2))
def test_nothing_needed_is_deleted_and_nothing_else_stays(tmp_path_factory, nodes, keep_last):
    store = ArtifactStore(tmp_path_factory.mktemp("store"))
    made, registries = build(store, nodes)
    needed = naive_needed(made, registries, keep_last)
    plan = plan_gc(store, registries, keep_last=keep_last)
    assert set(plan.keep) == needed and set(plan.delete) == {a.id for a in made} - needed
    apply_gc(store, registries, plan, dry_run=False)
    assert set(store.ids()) == needed
    for id in needed:
        store.verify(id)
        store.lineage(id)
    for registry in registries:
        alive = [e for e in registry.entries() if e.state in ("approved", "released")]
        assert {e.artifact_id for e in alive} <= set(store.ids())
        assert {e.artifact_id for e in registry.entries() if e.state != "removed"} <= set(store.ids())
    assert {row["id"] for row in store.deleted.read()} == set(plan.delete)
    assert plan_gc(store, registries, keep_last=keep_last).delete == ()


def test_reasons_and_order(tmp_path):
    store = ArtifactStore(tmp_path)
    made = chain(store)
    stale = add(store, "prompts", "stale")
    child = add(store, "completions", "stale", inputs={"prompts": stale.id})
    plan = plan_gc(store, both(store), keep_last=0)
    assert plan.delete == (child.id, stale.id)
    assert plan.bytes == child.num_bytes + stale.num_bytes == 10
    assert plan.keep[made["release"].id] == "a release"
    assert plan.keep[made["eval"].id] == f"needed by {made['release'].id}"
    assert plan_gc(store, both(store), keep_last=1).keep[stale.id] == "one of the last 1 of kind prompts"


def test_a_reward_model_that_a_policy_used_outlives_the_policy(tmp_path):
    store = ArtifactStore(tmp_path)
    preferences = add(store, "preferences")
    reward_model = add(store, "reward_model", inputs={"preferences": preferences.id})
    unused = add(store, "reward_model", "unused")
    policy = add(store, "policy", "old", inputs={"rewards": reward_model.id})
    for deleted in ({policy.id, unused.id}, set()):
        plan = plan_gc(store, both(store), keep_last=0)
        assert set(plan.delete) == deleted
        assert plan.keep == {
            reward_model.id: f"the policy {policy.id} was trained against it", preferences.id: f"needed by {reward_model.id}"
        }  # fmt: skip
        apply_gc(store, both(store), plan, dry_run=False)
    store.verify(reward_model.id)
    store.lineage(reward_model.id)


def test_a_kept_policy_keeps_what_it_was_made_from(tmp_path):
    store = ArtifactStore(tmp_path)
    reward_model = add(store, "reward_model")
    old = add(store, "policy", "old", inputs={"reward_model": reward_model.id})
    add(store, "reward_model", "newer")
    add(store, "policy", "newer")
    policies, reward_models = both(store)
    assert set(plan_gc(store, (policies, reward_models), keep_last=1).delete) == {old.id}
    approve(policies, old.id)
    plan = plan_gc(store, (policies, reward_models), keep_last=1)
    assert plan.delete == () and plan.keep[reward_model.id] == f"the policy {old.id} was trained against it"
    assert plan.keep[old.id].startswith("approved in policies")


def test_a_forgotten_registry_is_read_all_the_same(tmp_path):
    store = ArtifactStore(tmp_path)
    policy = add(store, "policy")
    approve(Registry(store, "policies"), policy.id)
    assert plan_gc(store, (), keep_last=0).delete == ()


def test_dry_run_is_the_default_and_touches_nothing(tmp_path):
    store = ArtifactStore(tmp_path)
    add(store, "prompts")
    before = tree(tmp_path)
    plan = plan_gc(store, both(store), keep_last=0)
    assert apply_gc(store, both(store), plan) == plan and len(plan.delete) == 1
    assert tree(tmp_path) == before


def test_the_record_of_a_deletion_and_the_error_that_cites_it(tmp_path):
    store = ArtifactStore(tmp_path)
    policy = add(store, "policy", step=40, name="old", cache_key="k")
    Registry(store, "policies").register(policy.id, "old")
    apply_gc(store, both(store), plan_gc(store, both(store), keep_last=0), dry_run=False)
    (row,) = store.deleted.read()
    assert (row["id"], row["step"], row["metrics"], row["name"]) == (policy.id, 40, {"accuracy": 0.7}, "old")
    assert len(row["hash"]) == 64 and row["time"] > row["created"] == policy.created
    assert Registry(store, "policies").entries()[0].state == "removed"
    assert store.find("k") is None
    with pytest.raises(StoreError, match=r"it was deleted on .* \(nothing needed it\)"):
        store.get(policy.id)
    assert tree(tmp_path / "drafts") == []


def test_a_plan_that_no_longer_holds_is_refused(tmp_path):
    store = ArtifactStore(tmp_path)
    policy = add(store, "policy")
    plan = plan_gc(store, both(store), keep_last=0)
    approve(Registry(store, "policies"), policy.id)
    with pytest.raises(StoreError, match="is needed by now: approved in policies"):
        apply_gc(store, both(store), plan, dry_run=False)
    assert store.ids() == (policy.id,)


def test_what_was_made_after_the_plan_stays(tmp_path):
    store = ArtifactStore(tmp_path)
    old = add(store, "prompts", "old")
    plan = plan_gc(store, both(store), keep_last=0)
    new = add(store, "prompts", "new")
    apply_gc(store, both(store), plan, dry_run=False)
    assert store.ids() == (new.id,) and old.id != new.id
    child_plan = plan_gc(store, both(store), keep_last=0)
    child = add(store, "completions", inputs={"prompts": new.id})
    with pytest.raises(StoreError, match="was made from it"):
        apply_gc(store, both(store), child_plan, dry_run=False)
    assert set(store.ids()) == {new.id, child.id}


def test_a_running_stage_a_damaged_manifest_and_a_negative_number_stop_it(tmp_path):
    store = ArtifactStore(tmp_path)
    artifact = add(store, "prompts")
    plan = plan_gc(store, both(store), keep_last=0)
    with store.draft("prompts", stage="s"), pytest.raises(StoreError, match="drafts=1 are being written"):
        apply_gc(store, both(store), plan, dry_run=False)
    with pytest.raises(StoreError, match="keep_last=-1 is negative"):
        plan_gc(store, both(store), keep_last=-1)
    (artifact.path / "manifest.json").write_text("{")
    with pytest.raises(StoreError, match="what they need is unknown"):
        plan_gc(store, both(store), keep_last=0)


def test_lineage_that_is_already_broken_is_no_reason_to_fail(tmp_path):
    store = ArtifactStore(tmp_path)
    made = chain(store)
    shutil.rmtree(made["prompts"].path)
    assert plan_gc(store, both(store), keep_last=0).delete == ()
