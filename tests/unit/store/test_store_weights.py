"""Models are safetensors only: anything that may run code when it is loaded is refused at commit."""

import io
import pickle
import zipfile

import pytest
from store_example import safetensors

from fairlead.core.errors import StoreError
from fairlead.store.artifacts import ArtifactStore


def commit(root, kind, name, content):
    store = ArtifactStore(root)
    with store.draft(kind, stage="train") as draft:
        (draft.path / "sub").mkdir()
        (draft.path / "sub" / name).write_bytes(content)
        return draft.commit(config={}, inputs={}, summary={}, code_version="1")


def archive() -> bytes:
    """What torch.save writes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps([1]))
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["policy", "reward_model"])
@pytest.mark.parametrize(
    ("name", "content"),
    [("pytorch_model.bin", b"x"), ("optimizer.pt", b"x"), ("a.PTH", b"x"), ("x.pkl", b"x"), ("x.ckpt", b"x"), ("x.npy", b"x"),
     ("weights", archive()), ("weights.dat", pickle.dumps([1], protocol=2)), ("config.json", pickle.dumps([1])),
     ("model.safetensors", pickle.dumps(["x" * 50])), ("model.safetensors", b""), ("model.safetensors", safetensors()[:20])],
)  # fmt: skip
def test_files_that_may_run_code_are_refused(tmp_path, kind, name, content):
    with pytest.raises(StoreError, match=r"expected weights as \.safetensors"):
        commit(tmp_path, kind, name, content)
    assert ArtifactStore(tmp_path).list() == ()


@pytest.mark.parametrize("num_floats", [1, 1000])
def test_safetensors_and_plain_text_are_taken(tmp_path, num_floats):
    assert commit(tmp_path, "policy", "model.safetensors", safetensors(bytes(8 * num_floats))).num_bytes > 0
    assert commit(tmp_path, "policy", "tokenizer.json", b"{}").num_bytes == 2


def test_a_header_whose_length_looks_like_a_pickle_is_taken(tmp_path):
    """A header of 0x0480 bytes begins with 80 04, as pickle protocol 4 does."""
    body = safetensors()
    header = body[8:-8].ljust(0x0480)
    content = len(header).to_bytes(8, "little") + header + bytes(8)
    assert content[:2] == b"\x80\x04"
    commit(tmp_path, "policy", "model.safetensors", content)


def test_other_kinds_may_hold_anything(tmp_path):
    assert commit(tmp_path, "evals", "scores.npy", b"x").kind == "evals"
