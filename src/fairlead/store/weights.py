"""Which files a model may consist of: safetensors only, because loading a pickle runs whatever code is inside it."""

from pathlib import Path

from fairlead.core.errors import StoreError, explain

MODEL_KINDS = frozenset({"policy", "reward_model"})
_PICKLE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".dill", ".npy", ".npz"})
_ARCHIVE_START = b"PK\x03\x04"  # torch.save writes a zip of pickles


def check_model_file(path: Path) -> None:
    """Refuse a file of a model that is, or may hide, a pickle.

    Raises:
        StoreError: names the file.
    """
    with path.open("rb") as file:
        start = file.read(16)
    if path.suffix.lower() == ".safetensors":
        is_fine = _is_safetensors(start, path.stat().st_size)
        wrong = "is not a safetensors file"
    else:
        is_fine = path.suffix.lower() not in _PICKLE_SUFFIXES and not _is_pickle(start)
        wrong = "may run code when it is loaded"
    if not is_fine:
        raise StoreError(explain(path, None, wrong, expected="weights as .safetensors",
                                 remedy="Save the model again with safe_serialization=True"))  # fmt: skip


def _is_pickle(start: bytes) -> bool:
    """True for pickle protocols 2 to 5, and for the archives of torch.save."""
    return (len(start) > 1 and start[0] == 0x80 and start[1] <= 5) or start.startswith(_ARCHIVE_START)


def _is_safetensors(start: bytes, num_bytes: int) -> bool:
    """A little-endian length, then a JSON object of that length.

    Source: https://github.com/huggingface/safetensors#format.
    """
    return len(start) > 8 and int.from_bytes(start[:8], "little") <= num_bytes - 8 and start[8:9] == b"{"
