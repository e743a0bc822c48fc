"""A copy of many tensors of one moment, in host memory that is used again, and its writing to a safetensors file.

One copy is made a snapshot: fresh memory for every checkpoint would cost more in page faults than the copy itself, and the library's own
writer copies every tensor once more. The file is read by any safetensors reader.

Example:
    snapshot = Snapshot()
    snapshot.take({"w": weight})             # the training goes on and changes `weight`
    digest = snapshot.write(folder / "tensors.safetensors")
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

_DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64", torch.int32: "I32",
    torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL", torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
}  # fmt: skip
_BLOCK_BYTES = 8 << 20
_ALIGNMENT = 8


@dataclass(slots=True, eq=False)
class Snapshot:
    """Host memory for one set of tensors. Not thread-safe: whoever writes it is done before the next `take`."""

    _memory: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.uint8))
    _header: bytes = b""
    _size: int = 0

    def take(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy every tensor. Once it returns, the originals may change."""
        names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))  # keeps every tensor aligned
        rows: dict[str, dict[str, object]] = {}
        start = 0
        for name in names:
            tensor = tensors[name]
            size = tensor.numel() * tensor.element_size()
            rows[name] = {
                "dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, start + size],
            }  # fmt: skip
            start += size
        self._reserve(start, on_device=any(t.is_cuda for t in tensors.values()))
        for name in names:
            self._copy(tensors[name], rows[name])
        if any(t.is_cuda for t in tensors.values()):
            torch.cuda.synchronize()  # copies into pinned memory do not wait
        text = json.dumps(rows).encode()
        self._header = text + b" " * (-len(text) % _ALIGNMENT)

    def _reserve(self, size: int, *, on_device: bool) -> None:
        self._size = size
        if len(self._memory) < size:
            self._memory = torch.empty(0, dtype=torch.uint8)  # let go of the old before the new
            self._memory = torch.empty(size, dtype=torch.uint8, pin_memory=on_device)

    def _copy(self, tensor: Tensor, row: dict[str, object]) -> None:
        offsets = row["data_offsets"]
        assert isinstance(offsets, list)
        if math.prod(tensor.shape):
            place = self._memory[offsets[0] : offsets[1]].view(tensor.dtype).view(tensor.shape)
            place.copy_(tensor.detach(), non_blocking=True)

    def write(self, path: Path) -> str:
        """Write the last snapshot to a new file and sync it to disk.

        Returns:
            SHA-256 of the file.
        Raises:
            OSError: the disk is full, or the place cannot be written.
        """
        digest = hashlib.sha256()
        with path.open("wb") as file:
            for block in (len(self._header).to_bytes(8, "little"), self._header):
                file.write(block)
                digest.update(block)
            data = self._memory.numpy().data[: self._size]
            for start in range(0, self._size, _BLOCK_BYTES):
                block = data[start : start + _BLOCK_BYTES]
                file.write(block)
                digest.update(block)
            file.flush()
            os.fsync(file.fileno())
        return digest.hexdigest()
