"""Crash safety and concurrency: whatever is killed, and whoever writes at the same time, only whole artifacts are listed."""

import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from store_example import add, tree

from fairlead.core.errors import StoreError
from fairlead.store.artifacts import ArtifactStore
from fairlead.store.locks import FileLock

COMMIT_FOREVER = """
    import itertools, sys
    from pathlib import Path
    from fairlead.store.artifacts import ArtifactStore
    store = ArtifactStore(Path(sys.argv[1]))
    previous = {}
    print("ready", flush=True)
    for i in itertools.count():
        with store.draft("prompts", stage="prompts") as draft:
            for n in range(20):
                (draft.path / f"{n}.txt").write_text(f"{sys.argv[2]} {i} {n}" * 200)
            artifact = draft.commit(config={}, inputs=previous, summary={}, code_version="1", cache_key=f"{sys.argv[2]} {i}")
            previous = {"previous": artifact.id}
        print(artifact.id, flush=True)
"""

HOLD_A_DRAFT = """
    import sys
    from pathlib import Path
    from fairlead.store.artifacts import ArtifactStore
    with ArtifactStore(Path(sys.argv[1])).draft("prompts", stage="prompts") as draft:
        (draft.path / "data.txt").write_text("x")
        print("ready", flush=True)
        sys.stdin.read()
"""

COMMIT_THE_SAME = """
    import sys
    from pathlib import Path
    from fairlead.store.artifacts import ArtifactStore
    store = ArtifactStore(Path(sys.argv[1]))
    print("ready", flush=True)
    sys.stdin.readline()
    for i in range(20):
        with store.draft("prompts", stage="prompts") as draft:
            (draft.path / "data.txt").write_text(str(i))
            print(draft.commit(config={}, inputs={}, summary={}, code_version="1").id)
"""

FULL_DISK = """
    import resource, sys
    from pathlib import Path
    from fairlead.core.errors import StoreError
    from fairlead.store.artifacts import ArtifactStore
    store = ArtifactStore(Path(sys.argv[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    try:
        with store.draft("prompts", stage="prompts") as draft:
            (draft.path / "data.txt").write_text("x" * 500)
            draft.commit(config={"text": "x" * 5000}, inputs={}, summary={}, code_version="1")
    except StoreError as error:
        print(error)
"""


def start(script, *arguments):
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)], text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    assert process.stdout and process.stdout.readline() == "ready\n"
    return process


def finish(process):
    out, err = process.communicate()
    return out, err


def test_killed_in_the_middle_of_commits_lists_only_intact_artifacts(tmp_path):
    store, acknowledged = ArtifactStore(tmp_path), set()
    for attempt in range(6):
        process = start(COMMIT_FOREVER, tmp_path, attempt)
        acknowledged.add(process.stdout.readline().strip())
        time.sleep(0.007 * attempt)
        process.kill()
        acknowledged |= {line for line in finish(process)[0].splitlines() if line}
        assert process.returncode == -signal.SIGKILL
        assert acknowledged <= set(store.ids())
        for artifact in store.list():
            store.verify(artifact.id)
            store.lineage(artifact.id)
        assert store.damaged() == ()
        store.clean_drafts()
        assert list((tmp_path / "drafts").iterdir()) == []


def test_processes_that_commit_the_same_do_not_disturb_each_other(tmp_path):
    processes = [start(COMMIT_THE_SAME, tmp_path) for _ in range(3)]
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [finish(process) for process in processes]
    assert [err for _, err in outputs] == ["", "", ""]
    assert outputs[0][0] == outputs[1][0] == outputs[2][0]
    store = ArtifactStore(tmp_path)
    assert sorted(outputs[0][0].split()) == sorted(store.verify(id).id for id in store.ids())
    assert len(store.ids()) == 20 and tree(tmp_path / "drafts") == []


def test_clean_drafts_takes_those_of_dead_processes_only(tmp_path):
    store = ArtifactStore(tmp_path)
    process = start(HOLD_A_DRAFT, tmp_path)
    assert (store.live_drafts(), store.clean_drafts()) == (1, 0)
    with store.draft("prompts", stage="prompts") as draft:
        (draft.path / "data.txt").write_text("mine")
        assert store.live_drafts() == 2
        process.kill()
        finish(process)
        assert (store.live_drafts(), store.clean_drafts()) == (1, 1)
        assert (draft.path / "data.txt").read_text() == "mine"
        draft.commit(config={}, inputs={}, summary={}, code_version="1")
    assert store.live_drafts() == 0 and list((tmp_path / "drafts").iterdir()) == []


def test_full_disk_is_one_sentence_and_leaves_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FULL_DISK), str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert "Raise it (ulimit -f) and run the same command again" in done.stdout and done.stdout.count("\n") == 1, (
        done.stderr
    )
    assert ArtifactStore(tmp_path).list() == () and tree(tmp_path / "drafts") == []


def test_a_damaged_copy_is_replaced_and_its_remains_are_cleaned(tmp_path):
    store = ArtifactStore(tmp_path)
    artifact = add(store, "prompts")
    (artifact.path / "data.txt").write_text("damaged")
    assert add(store, "prompts").id == artifact.id
    assert store.verify(artifact.id)
    assert store.clean_drafts() == 1
    assert tree(tmp_path / "drafts") == []


def test_a_lock_excludes_and_survives_the_removal_of_its_file(tmp_path):
    first, second = FileLock(tmp_path / "a.lock"), FileLock(tmp_path / "a.lock")
    assert first.acquire() and not second.acquire(wait=False)
    first.release(remove=True)
    assert second.acquire(wait=False) and not first.acquire(wait=False)
    (tmp_path / "a.lock").unlink()
    third = FileLock(tmp_path / "a.lock")
    assert third.acquire(wait=False)
    second.release()
    third.release()


def test_an_input_that_vanishes_while_the_draft_is_written_stops_the_commit(tmp_path):
    store = ArtifactStore(tmp_path)
    prompts = add(store, "prompts")
    with pytest.raises(StoreError, match="is not in"), store.draft("completions", stage="s") as draft:
        store.remove(prompts)
        draft.commit(config={}, inputs={"prompts": prompts.id}, summary={}, code_version="1")
    assert store.list() == ()


def test_publishing_checks_the_inputs_again_under_the_lock(tmp_path):
    store = ArtifactStore(tmp_path)
    prompts = add(store, "prompts")
    completions = add(store, "completions", inputs={"prompts": prompts.id})
    store.remove(completions)
    store.remove(prompts)
    with store.draft("completions", stage="s") as draft, pytest.raises(StoreError, match="is not in"):
        store.publish(draft.path, completions)
    assert store.ids() == ()


def test_whoever_waited_for_a_lock_whose_file_was_removed_holds_the_new_one(tmp_path):
    first, second, third = (FileLock(tmp_path / "a.lock") for _ in range(3))
    first.acquire()
    waiting = threading.Thread(target=second.acquire)
    waiting.start()
    time.sleep(0.2)
    first.release(remove=True)
    waiting.join()
    assert not third.acquire(wait=False)
    second.release()
