"""Artifacts: named by content, kept once, found by id or cache key, lineage across kinds, tampering noticed."""

import json
import os
import pickle
import re
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_example import SUMMARY, add, chain, tree

from fairlead.core.errors import StoreError
from fairlead.store.artifacts import Artifact, ArtifactStore, cache_key, in_order
from fairlead.store.manifest import seal

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
CONFIGS = st.dictionaries(
    TEXT, st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT | st.lists(TEXT)
)


@pytest.fixture
def store(tmp_path):
    return ArtifactStore(tmp_path / "runs")


def test_commit_keeps_files_and_what_they_were_made_from(store):
    prompts = add(store, "prompts", config={"seed": 1}, name="first", seconds=2.5, step=7, stage="policies.sft")
    assert re.fullmatch(r"prompts-[0-9a-f]{16}", prompts.id)
    assert prompts.path == store.root / "artifacts" / "prompts" / prompts.id
    assert (prompts.path / "data.txt").read_text() == "x"
    assert (prompts.config, prompts.inputs, prompts.summary, prompts.seconds) == ({"seed": 1}, {}, SUMMARY, 2.5)
    assert (prompts.name, prompts.step, prompts.stage, prompts.num_bytes) == ("first", 7, "policies.sft", 1)
    assert prompts.manifest["schema"] == 1
    assert store.get(prompts.id) == prompts
    assert tree(store.root / "drafts") == []


def test_leaving_without_commit_or_with_an_error_removes_the_draft(store):
    with store.draft("prompts", stage="prompts") as draft:
        (draft.path / "sub").mkdir()
        (draft.path / "sub" / "a.txt").write_text("x")
    with pytest.raises(KeyboardInterrupt), store.draft("prompts", stage="prompts") as draft:
        (draft.path / "a.txt").write_text("x")
        raise KeyboardInterrupt
    assert store.list() == ()
    assert list((store.root / "drafts").iterdir()) == []


def test_a_draft_is_committed_once(store):
    with store.draft("prompts", stage="prompts") as draft:
        values = {"config": {}, "inputs": {}, "summary": {}, "code_version": "1"}
        draft.commit(**values)
        with pytest.raises(StoreError, match="expected one commit"):
            draft.commit(**values)


def test_equal_content_is_kept_once_and_found_under_both_keys(store):
    first = add(store, "prompts", cache_key="k1", seconds=1)
    second = add(store, "prompts", cache_key="k2", seconds=9, summary={"other": 1}, name="again")
    assert second == first and len(store.list()) == 1
    assert store.find("k1") == store.find("k2") == first
    assert store.find("k3") is None and store.find("") is None


def test_id_follows_everything_that_decides_the_content(store):
    base = add(store, "prompts")
    others = [
        add(store, "prompts", "y"), add(store, "completions"), add(store, "prompts", config={"a": 1}),
        add(store, "prompts", code_version="2"), add(store, "prompts", inputs={"base": base.id}),
    ]  # fmt: skip
    with store.draft("prompts", stage="stage") as draft:
        (draft.path / "renamed.txt").write_text("x")
        others.append(draft.commit(config={}, inputs={}, summary={}, code_version="1"))
    assert len({a.id for a in (base, *others)}) == 7
    assert add(store, "prompts", seconds=5, step=5, name="n", cache_key="k", summary={}).id == base.id


@settings(max_examples=10)
@given(config=CONFIGS)
def test_id_is_the_same_in_every_folder_and_can_be_computed_again(tmp_path_factory, config):
    stores = [ArtifactStore(tmp_path_factory.mktemp("machine")) for _ in range(2)]
    ids = {
        add(s, "prompts", config=dict(pairs)).id
        for s, pairs in zip(stores, (config.items(), reversed(config.items())), strict=True)
    }
    assert len(ids) == 1
    artifact = stores[0].verify(ids.pop())
    assert artifact.config == config


def test_a_known_id(store):
    """Written down once, so that a change of the rule cannot go unnoticed (it would orphan every store there is)."""
    assert add(store, "prompts", "x", config={"seed": 1}).id == "prompts-9c052635bca41f0e"


@given(config=CONFIGS, other=CONFIGS)
def test_cache_key_is_a_function_of_its_parts(config, other):
    key = cache_key("sft", config, {"a": "x-1"}, "v1")
    assert key == cache_key("sft", dict(reversed(config.items())), {"a": "x-1"}, "v1")
    assert key not in {cache_key("dpo", config, {"a": "x-1"}, "v1"), cache_key("sft", config, {"b": "x-1"}, "v1"),
                       cache_key("sft", config, {"a": "x-1"}, "v2")}  # fmt: skip
    assert (key == cache_key("sft", other, {"a": "x-1"}, "v1")) == (
        json.dumps(config, sort_keys=True) == json.dumps(other, sort_keys=True)
    )


def test_get_takes_a_unique_beginning_and_names_the_nearest(store):
    a, b = add(store, "prompts", "a"), add(store, "prompts", "b")
    assert store.get(a.id[:-1]) == a
    assert store.get(b.id.removeprefix("prompts-")[:6]) == b
    with pytest.raises(StoreError, match="begins 2 ids"):
        store.get("prompts-")
    wrong = a.id[:-2] + ("00" if a.id[-2:] != "00" else "11")
    with pytest.raises(StoreError, match=f"did you mean {a.id}"):
        store.get(wrong)
    for text in ("", "p", "../../etc", "nothing-like-it"):
        with pytest.raises(StoreError, match="is not in"):
            store.get(text)


def test_list_is_oldest_first_and_by_kind(store):
    made = [add(store, kind, str(i)) for i, kind in enumerate(["prompts", "eval", "prompts"])]
    assert store.list() == tuple(made)
    assert store.list("prompts") == (made[0], made[2])
    assert store.list("nothing") == ArtifactStore(store.root / "none").list() == ()


def test_lineage_and_descendants_across_kinds(store):
    made = chain(store)
    lineage = store.lineage(made["release"].id)
    assert lineage[0] == made["release"]
    assert {a.kind for a in lineage} == set(made)
    place = {a.id: i for i, a in enumerate(lineage)}
    assert all(place[a.id] < place[i] for a in lineage for i in a.inputs.values())
    assert [a.kind for a in store.lineage(made["preferences"].id)] == ["preferences", "completions", "prompts"]
    down = store.descendants(made["reward_model"].id)
    assert [a.kind for a in down] == ["policy", "eval", "release"]
    assert store.descendants(made["release"].id) == ()


@settings(max_examples=10)
@given(edges=st.lists(st.lists(st.integers(0, 30), max_size=3), min_size=1, max_size=8))
def test_lineage_equals_the_naive_closure(tmp_path_factory, edges):
    store = ArtifactStore(tmp_path_factory.mktemp("store"))
    made: list[Artifact] = []
    for i, parents in enumerate(edges):
        inputs = {f"r{n}": made[p % i].id for n, p in enumerate(parents)} if i else {}
        made.append(add(store, "prompts", str(i), inputs=inputs))

    def ancestors(artifact):
        direct = {a.id: a for a in made if a.id in artifact.inputs.values()}
        return set(direct).union(*(ancestors(a) for a in direct.values()))

    for artifact in made:
        assert {a.id for a in store.lineage(artifact.id)} == ancestors(artifact) | {artifact.id}
        assert {a.id for a in store.descendants(artifact.id)} == {a.id for a in made if artifact.id in ancestors(a)}
    order = {a.id: n for n, a in enumerate(in_order(made))}
    assert all(order[i] < order[a.id] for a in made for i in a.inputs.values())


def test_lineage_names_who_needs_a_missing_input(store):
    made = chain(store)
    shutil.rmtree(made["prompts"].path)
    with pytest.raises(StoreError, match=r"needs its input prompts: artifact=prompts-.* is not in"):
        store.lineage(made["release"].id)


def test_unknown_input_is_refused_before_anything_is_published(store):
    with pytest.raises(StoreError, match="is not in"):
        add(store, "prompts", inputs={"a": "prompts-0000000000000000"})
    assert store.list() == ()


def edit_manifest(artifact, *, reseal=False, **changes):
    path = artifact.path / "manifest.json"
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(values | ({"seal": seal(values)} if reseal else {})))


TAMPERING = {
    "data.txt was changed": lambda a: (a.path / "data.txt").write_text("X"),
    "data.txt is missing": lambda a: (a.path / "data.txt").unlink(),
    "extra.txt was added": lambda a: (a.path / "extra.txt").write_text(""),
    "is a link or a device": lambda a: (a.path / "link").symlink_to("/etc/passwd"),
    "summary.json was changed": lambda a: (a.path / "summary.json").write_text("{}"),
    "manifest.json was changed after the commit": lambda a: edit_manifest(a, step=99),
    "manifest.json was changed": lambda a: edit_manifest(a, reseal=True, config={"seed": 2}),
    "manifest.json=": lambda a: (a.path / "manifest.json").write_text("{"),
    "manifest.json does not exist": lambda a: (a.path / "manifest.json").unlink(),
    "is not an object": lambda a: (a.path / "manifest.json").write_text("[]"),
    "is newer than this version": lambda a: edit_manifest(a, reseal=True, schema=2),
}


@pytest.mark.parametrize("words", TAMPERING)
def test_tampering_is_named_not_found_in_the_cache_and_healed_by_a_new_commit(store, words):
    artifact = add(store, "prompts", config={"seed": 1}, cache_key="k")
    assert store.find("k") == artifact
    TAMPERING[words](artifact)
    with pytest.raises(StoreError) as caught:
        store.verify(artifact.id)
    assert words in str(caught.value).replace(" is damaged: ", " ") and len(str(caught.value).splitlines()) == 1
    assert store.find("k") is None
    again = add(store, "prompts", config={"seed": 1}, cache_key="k")
    assert again.id == artifact.id
    assert store.verify(artifact.id) == store.find("k") == again


def test_a_renamed_artifact_is_noticed(store):
    artifact = add(store, "prompts")
    artifact.path.rename(artifact.path.with_name("prompts-0123456789abcdef"))
    assert store.list() == ()
    assert "belongs to " + artifact.id in store.damaged()[0]


@pytest.mark.parametrize(
    ("values", "words"),
    [({"config": {"a": float("nan")}}, "is not JSON"), ({"summary": {"a": object()}}, "is not JSON"), ({"seconds": float("inf")}, "is not JSON")],
)  # fmt: skip
def test_values_that_are_not_json_are_refused(store, values, words):
    with pytest.raises(StoreError, match=words):
        add(store, "prompts", **values)
    assert store.list() == () and tree(store.root / "drafts") == []


@pytest.mark.parametrize("name", ["manifest.json", "summary.json"])
def test_names_of_the_store_are_refused(store, name):
    with pytest.raises(StoreError, match="is written by the store"), store.draft("prompts", stage="s") as draft:
        (draft.path / name).write_text("{}")
        draft.commit(config={}, inputs={}, summary={}, code_version="1")


@pytest.mark.parametrize("link", [lambda p: p.symlink_to("/etc/passwd"), lambda p: p.symlink_to("/etc"), os.mkfifo])
def test_links_and_devices_are_refused(store, link):
    with pytest.raises(StoreError, match="is a link or a device"), store.draft("prompts", stage="s") as draft:
        link(draft.path / "x")
        draft.commit(config={}, inputs={}, summary={}, code_version="1")


@pytest.mark.parametrize("kind", ["", "../x", "a/b", "Policy", ".hidden", "a-b"])
def test_kinds_that_cannot_name_a_folder_are_refused(store, kind):
    with pytest.raises(StoreError, match="cannot name a folder"), store.draft(kind, stage="s"):
        pass
    assert not store.root.exists()


def test_store_and_artifact_pickle(store):
    artifact = add(store, "prompts")
    again = pickle.loads(pickle.dumps(store))
    assert pickle.loads(pickle.dumps(artifact)) == again.get(artifact.id)


def test_a_root_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="cannot be written"):
        add(ArtifactStore(tmp_path / "file" / "runs"), "prompts")
