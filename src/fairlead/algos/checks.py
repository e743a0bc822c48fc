"""The properties that every training method must have, for the registered ones and for yours.

They catch what trains without complaint and is wrong: a mean in place of a sum, a mask by multiplication, a count that
depends on the model, a graph kept alive by a metric.

Legend:
    unit  what may not be split: a group for kind "groups", else a sequence

Example:
    @pytest.mark.parametrize("name, check", check_algorithm(MY_SPEC))
    def test_shared_property(name, check):
        check()
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import fields, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from fairlead.algos.random_batches import MODEL_OUTPUTS, random_batch
from fairlead.algos.spec import Algorithm, Batch, Loss, RolloutBatch
from fairlead.algos.units import axis_of, cut_statistics, merge_batches, num_units, select_units

Check = Callable[[], None]


def check_algorithm(algorithm: Algorithm, config: Any = None, *, seed: int = 0) -> Iterator[tuple[str, Check]]:
    """Yield (name, check) pairs; a check raises AssertionError with the numbers when the property does not hold.

    Args:
        config: settings to check under; None means the defaults.
        seed: of the random batch, which is in float64.
    """
    settings = algorithm.config() if config is None else config
    batch = random_batch(algorithm.batch, seed=seed)
    for check in (
        microbatches_sum_to_the_whole,
        order_of_units_is_inert,
        order_of_tokens_is_inert,
        absent_units_are_inert,
        masked_tokens_are_inert,
        unread_tensors_are_inert,
        gradient_is_that_of_the_loss,
        extremes_stay_finite,
        count_ignores_the_model,
        metrics_carry_no_gradient,
        inputs_are_left_alone,
        statistics_are_of_the_whole_batch,
    ):
        yield check.__name__, partial(check, algorithm, settings, batch)


def microbatches_sum_to_the_whole(algorithm: Algorithm, config: Any, batch: Batch) -> None:
    """Totals, counts, metrics and gradients of two halves, told the statistics of the batch, add up to those of the batch."""
    known = with_statistics(algorithm, config, batch)
    whole = _evaluate(algorithm, config, known)
    halves = [_evaluate(algorithm, config, half) for half in _halves(known)]
    for name, value in whole.items():
        parts = [half[name] for half in halves]
        _assert_close(name, torch.cat(parts) if value.ndim else parts[0] + parts[1], value)


def order_of_units_is_inert(algorithm: Algorithm, config: Any, batch: Batch) -> None:
    """Reversing the sequences (or groups) changes nothing but the order of the gradients."""
    reordered = _evaluate(algorithm, config, select_units(batch, list(reversed(range(num_units(batch))))))
    _assert_same_scalars(reordered, _evaluate(algorithm, config, batch))


def order_of_tokens_is_inert(algorithm: Algorithm, config: Any, batch: Batch) -> None:
    """Losses read tokens through `sequence_index` only."""
    order = torch.arange(batch.sequence_index.numel()).flip(0)
    reordered: Batch = replace(
        batch, **{name: x[order] for name, x in _tensors(batch).items() if axis_of(batch, name) == "N"}
    )
    _assert_same_scalars(_evaluate(algorithm, config, reordered), _evaluate(algorithm, config, batch))


def absent_units_are_inert(algorithm: Algorithm, config: Any, batch: Batch) -> None:
    """A unit of weight 0 changes nothing, even where its log-probabilities are -inf; it gets a gradient of exactly 0."""
    if "weights" not in _tensors(batch):
        return
    kept = list(range(1, num_units(batch)))
    silent = select_units(batch, [0])
    poison = {name: torch.full_like(x, -torch.inf) for name, x in _tensors(silent).items() if name in MODEL_OUTPUTS}
    tensors = _tensors(batch)
    weights = tensors["weights"].clone()
    weights[0] = 0.0
    poisoned = {"weights": weights}
    for name, dead in poison.items():
        # Unit 0 comes first in every random batch.
        poisoned[name] = torch.cat([dead, tensors[name][dead.shape[0] :]])
    found = _evaluate(algorithm, config, replace(batch, **poisoned))
    expected = _evaluate(algorithm, config, select_units(batch, kept))
    for name, value in expected.items():
        if value.ndim:
            dead = torch.zeros(found[name].numel() - value.numel(), dtype=value.dtype)
            value = torch.cat([dead, value])
        _assert_close(name, found[name], value)


def masked_tokens_are_inert(algorithm: Algorithm, config: Any, batch: Batch) -> None:
    """A token of correction 0 gets no gradient and gives none, even where its log-probabilities are -inf; it stays in the count."""
    if not isinstance(batch, RolloutBatch):
        return
    assert batch.correction is not None
    masked = batch.correction == 0
    dead = torch.full_like(batch.logprobs, -torch.inf)
    tensors = {
        name: x for name in ("logprobs", "old_logprobs", "ref_logprobs") if (x := _tensors(batch).get(name)) is not None
    }
    poisoned = replace(batch, **{name: torch.where(masked, dead, x) for name, x in tensors.items()})
    found, expected = _evaluate(algorithm, config, poisoned), _evaluate(algorithm, config, batch)
    for name, value in expected.items():
        _assert_close(name, found[name], value)
    assert not bool(found["gradient of logprobs"][masked].any()), "a masked token has a gradient"


def unread_tensors_are_inert(algorithm: Algorithm, config: Any, batch: Batch) -> None:
    """NaN in a tensor that the spec does not ask for is never seen."""
    reads = algorithm.needs_for(config) | ({"logprobs"} if "scores" not in algorithm.needs else set())
    unread = ((MODEL_OUTPUTS | {"ref_logprobs"}) - reads) & _tensors(batch).keys()
    poisoned = replace(batch, **{name: torch.full_like(_tensors(batch)[name], torch.nan) for name in unread})
    absent = replace(batch, **{name: None for name in unread if name != "logprobs"})
    expected = _evaluate(algorithm, config, batch)
    for other in (poisoned, absent):
        found = _evaluate(algorithm, config, other)
        _assert_close("total", found["total"], expected["total"])


def gradient_is_that_of_the_loss(algorithm: Algorithm, config: Any, batch: Batch) -> None:
    """Finite differences agree with autograd, in float64; with `holds_fixed`, what the loss detaches stays as it was."""
    batch = with_statistics(algorithm, config, batch)
    leaves = _leaves(algorithm, config, batch)
    fixed: list[Tensor] = []
    holds_fixed = algorithm.holds_fixed is not None and algorithm.holds_fixed(config)

    def total(*values: Tensor) -> Tensor:
        with _Fixed(fixed) if holds_fixed else nullcontext():
            return algorithm.loss(replace(batch, **dict(zip(leaves, values, strict=True))), config).total

    assert torch.autograd.gradcheck(total, tuple(leaves.values()), eps=1e-6, atol=1e-5, rtol=1e-4)


def extremes_stay_finite(algorithm: Algorithm, config: Any, batch: Batch) -> None:
    """Log-probabilities of -1e4, and scores as far out, give a finite loss and gradient in float32."""
    for policy, reference in ((-1e4, -1.0), (-1.0, -1e4), (-1e4, -1e4), (0.0, 0.0)):
        extreme = {name: x.float() for name, x in _tensors(batch).items() if x.is_floating_point()}
        for name in MODEL_OUTPUTS & extreme.keys():
            extreme[name] = torch.full_like(extreme[name], policy)
        for name in ("ref_logprobs", "old_logprobs", "old_values"):
            if name in extreme:
                extreme[name] = torch.full_like(extreme[name], reference)
        for name, value in _evaluate(algorithm, config, replace(batch, **extreme)).items():
            assert bool(value.isfinite().all()), f"{name} is {value} at logprobs {policy}, reference {reference}"


def count_ignores_the_model(algorithm: Algorithm, config: Any, batch: Batch) -> None:
    """The divisor comes from masks and sizes: it is known before the forward pass, and has no gradient."""
    blind = replace(
        batch, **{name: torch.full_like(x, torch.nan) for name, x in _leaves(algorithm, config, batch).items()}
    )
    expected, found = algorithm.count(batch, config), algorithm.count(blind, config)
    assert not expected.requires_grad, "count carries a gradient"
    assert expected.ndim == 0 and float(expected) > 0, f"count is {expected}; expected a positive scalar"
    _assert_close("count", found, expected)


def metrics_carry_no_gradient(algorithm: Algorithm, config: Any, batch: Batch) -> None:
    """Metrics are named `area/name` and are two scalars each, cut from the graph; the total is one scalar in it."""
    batch = with_statistics(algorithm, config, batch)
    result = algorithm.loss(replace(batch, **_leaves(algorithm, config, batch)), config)
    assert result.total.ndim == 0 and result.total.requires_grad, "total must be a scalar with a gradient"
    for name, pair in result.metrics.items():
        assert name.count("/") == 1, f"metric {name!r} is not area/name"
        assert all(part.ndim == 0 and not part.requires_grad for part in pair), (
            f"{name} is not two scalars without gradient"
        )


def inputs_are_left_alone(algorithm: Algorithm, config: Any, batch: Batch) -> None:
    """The loss is pure: the same twice, and it writes into nothing that it was given."""
    before = {name: x.clone() for name, x in _tensors(batch).items()}
    first, second = (_evaluate(algorithm, config, batch) for _ in range(2))
    for name, value in first.items():
        assert torch.equal(value, second[name]), f"{name} differs between two calls"
    for name, x in _tensors(batch).items():
        assert torch.equal(x, before[name]), f"the loss wrote into {name}"


def statistics_are_of_the_whole_batch(algorithm: Algorithm, config: Any, batch: Batch) -> None:
    """Statistics are scalars or one value a unit, without gradient, the same whatever the order and the cut of the units."""
    if algorithm.statistics is None:
        return
    watched = replace(batch, **_leaves(algorithm, config, batch))
    whole = algorithm.statistics(watched, config)
    cut_statistics(whole, [num_units(batch)])
    assert not any(x.requires_grad for x in whole.values()), "a statistic carries a gradient"
    merged = algorithm.statistics(merge_batches(_halves(batch)), config)
    reordered = algorithm.statistics(select_units(batch, list(reversed(range(num_units(batch))))), config)
    for name, value in whole.items():
        _assert_close(f"statistic {name} of two merged halves", merged[name], value)
        _assert_close(
            f"statistic {name} of the batch reversed", reordered[name], value.flip(0) if value.ndim else value
        )


def with_statistics(algorithm: Algorithm, config: Any, batch: Batch) -> Batch:
    """The batch as the loop hands it to the loss: with the statistics that the method asks for."""
    if algorithm.statistics is None or batch.statistics:
        return batch
    with torch.no_grad():
        return replace(batch, statistics=algorithm.statistics(batch, config))


class _Fixed(TorchFunctionMode):
    """Keeps what is detached the first time, and gives it again, in order, every later time."""

    def __init__(self, kept: list[Tensor]) -> None:
        super().__init__()
        self._kept, self._is_first, self._place = kept, not kept, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if func is not Tensor.detach:
            return found
        if self._is_first:
            self._kept.append(found.clone())
        self._place += 1
        return self._kept[self._place - 1]


def _halves(batch: Batch) -> list[Batch]:
    middle = num_units(batch) // 2
    return [select_units(batch, list(units)) for units in (range(middle), range(middle, num_units(batch)))]


def _evaluate(algorithm: Algorithm, config: Any, batch: Batch) -> dict[str, Tensor]:
    """Total, count and metrics (scalars) and gradients (vectors), by name; the batch's own statistics unless it has some."""
    batch = with_statistics(algorithm, config, batch)
    leaves = _leaves(algorithm, config, batch)
    result: Loss = algorithm.loss(replace(batch, **leaves), config)
    gradients = torch.autograd.grad(result.total, list(leaves.values()), allow_unused=True)
    values = {"total": result.total.detach(), "count": algorithm.count(batch, config)}
    for name, (total, count) in result.metrics.items():
        values |= {f"sum of {name}": total, f"count of {name}": count}
    for (name, leaf), gradient in zip(leaves.items(), gradients, strict=True):
        values[f"gradient of {name}"] = torch.zeros_like(leaf) if gradient is None else gradient
    return values


def _leaves(algorithm: Algorithm, config: Any, batch: Batch) -> dict[str, Tensor]:
    """The tensors with gradient that this method reads, as fresh leaves."""
    names = {"logprobs"} | (MODEL_OUTPUTS & algorithm.needs_for(config))
    return {name: x.clone().requires_grad_() for name, x in sorted(_tensors(batch).items()) if name in names}


def _tensors(batch: Batch) -> dict[str, Tensor]:
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def _assert_same_scalars(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, value in expected.items():
        if value.ndim == 0:
            _assert_close(name, found[name], value)


def _assert_close(name: str, found: Tensor, expected: Tensor) -> None:
    ok = torch.allclose(found.double(), expected.double(), rtol=1e-9, atol=1e-9)
    assert ok, f"{name} is {found.tolist()}, expected {expected.tolist()}"
