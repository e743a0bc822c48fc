"""The next batch made ready while the device computes: trees taken from disk, planned and laid out by one thread.

    device   | step k                                  | step k + 1
    thread   | trees of step k + 1 -> rows -> pinned   | trees of step k + 2 -> ...

Batches are pure functions of the step, so nothing depends on when one is made; what fails in the thread is raised where the batch is taken.
On a CPU the loop makes its batches itself: that is 0.9 ms of a step of 214 ms (32 pairs, a model of 1.6 M parameters, 2 cores), and the
thread would take it from the cores that compute.
"""

import contextlib
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace

import numpy as np
import torch

from fairlead.text.packing import Layout, Tree
from fairlead.train.batches import EpochBatches, MicroBatch, make_microbatches


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A global batch, planned."""

    trees: Sequence[Tree]
    microbatches: Sequence[MicroBatch]
    max_tokens: int
    """Budget of the plan."""


def prepare(trees: Sequence[Tree], *, max_tokens: int, is_pinned: bool = False) -> Prepared:
    """Plan a batch; `is_pinned` lays its index arrays into memory that a CUDA device copies from by itself."""
    microbatches = make_microbatches(trees, max_tokens=max_tokens)
    if is_pinned:
        microbatches = [replace(batch, layout=_pinned(batch.layout)) for batch in microbatches]
    return Prepared(trees, microbatches, max_tokens)


def _pinned(layout: Layout) -> Layout:
    arrays = {f.name: value for f in fields(layout) if isinstance(value := getattr(layout, f.name), np.ndarray)}
    return replace(layout, **{name: torch.from_numpy(value).pin_memory().numpy() for name, value in arrays.items()})


@contextlib.contextmanager
def prepared_batches(
    source: Sequence[Sequence[Tree]], *, start: int, max_tokens: Callable[[], int], device: torch.device
) -> Generator[Iterator[Prepared]]:
    """The batches of a source from a step on, made ahead where that pays: on CUDA, from sources that do not wait for the step before.

    Args:
        max_tokens: the budget as it is when a batch is planned.
    """
    is_cuda = device.type == "cuda"

    def make(number: int) -> Prepared:
        return prepare(source[number], max_tokens=max_tokens(), is_pinned=is_cuda)

    if not (is_cuda and isinstance(source, EpochBatches)):
        yield map(make, range(start, len(source)))
        return
    with one_ahead(make, range(start, len(source))) as batches:
        yield batches


@contextlib.contextmanager
def one_ahead(make: Callable[[int], Prepared], numbers: range) -> Generator[Iterator[Prepared]]:
    """`map(make, numbers)` with the next one made by a thread; the thread ends with the block."""
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="next-batch")

    def stream() -> Iterator[Prepared]:
        upcoming = pool.submit(make, numbers[0]) if numbers else None
        for following in numbers[1:]:
            assert upcoming is not None
            ready = upcoming.result()
            upcoming = pool.submit(make, following)
            yield ready
        if upcoming is not None:
            yield upcoming.result()

    try:
        yield stream()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
