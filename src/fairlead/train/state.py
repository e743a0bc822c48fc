"""What a learner is at one moment, by name: trainable weights, optimiser state, step, statistics, and the global random generators.

Names are those of the modules (`parameter/policy.model.norm.weight`, `optimizer/policy.model.norm.weight/exp_avg`), never positions: a
changed set of trainable parameters is noticed. Nothing in Fairlead draws from the global generators while it trains (tested); their
state is kept for algorithms and models of users that do.
"""

import random
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from fairlead.models.heads import ScalarModel
from fairlead.train.forward import Models
from fairlead.train.optim import OptimizerSet

PARAMETER = "parameter/"
_OPTIMIZER = "optimizer/"
_RNG = "rng/"


def named_parameters(models: Models) -> dict[str, nn.Parameter]:
    """Every parameter that the models hold, by name, each once."""
    found: dict[int, tuple[str, nn.Parameter]] = {}
    for role, model in (("policy", models.policy), ("value", models.value), ("reward", models.reward)):
        parts: Iterable[tuple[str, nn.Module]] = ()
        if isinstance(model, ScalarModel):
            parts = ((f"{role}.base", model.base.module), (f"{role}.head", model.head))
        elif model is not None:
            parts = ((role, model.module),)
        for prefix, module in parts:
            for name, parameter in module.named_parameters():
                found.setdefault(id(parameter), (f"{prefix}.{name}", parameter))
    return dict(found.values())


def parameter_tensors(named: Mapping[str, nn.Parameter], *, prefix: str = PARAMETER) -> dict[str, Tensor]:
    """Trainable weights as a checkpoint names them; the tensors themselves, not copies."""
    return {prefix + name: parameter.detach() for name, parameter in named.items()}


@torch.no_grad()
def load_parameters(
    named: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor], *, prefix: str = PARAMETER
) -> None:
    """Put back what `parameter_tensors` named."""
    for name, parameter in named.items():
        parameter.copy_(tensors[prefix + name])


def optimizer_state(
    optimizers: OptimizerSet, named: Mapping[str, nn.Parameter]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """State of the optimisers by parameter: the tensors themselves (the parts of quantised ones), and plain values (`name/key`)."""
    tensors: dict[str, Tensor] = {}
    values: dict[str, Any] = {}
    for optimizer in optimizers.parts:
        for name, parameter in named.items():
            for key, value in optimizer.state.get(parameter, {}).items():
                if not isinstance(value, Tensor):
                    values[f"{name}/{key}"] = value
                elif is_traceable_wrapper_subclass(value):
                    parts, _meta = value.__tensor_flatten__()
                    tensors |= {f"{_OPTIMIZER}{name}/{key}.{part}": getattr(value, part).detach() for part in parts}
                else:
                    tensors[f"{_OPTIMIZER}{name}/{key}"] = value.detach()
    return tensors, values


def load_optimizer(
    optimizers: OptimizerSet, named: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor], values: Mapping[str, Any]
) -> None:  # fmt: skip
    """Put back what `optimizer_state` took; the optimiser brings each tensor to the device and dtype that it works in."""
    rows: dict[str, dict[str, Any]] = {}
    own = {name.removeprefix(_OPTIMIZER): t for name, t in tensors.items() if name.startswith(_OPTIMIZER)}
    for path, value in (*own.items(), *values.items()):
        name, _, key = path.rpartition("/")
        rows.setdefault(name, {})[key] = value
    names = {id(parameter): name for name, parameter in named.items()}
    for optimizer in optimizers.parts:
        order = [names[id(p)] for group in optimizer.param_groups for p in group["params"]]
        state = {i: _join_parts(rows[name]) for i, name in enumerate(order) if name in rows}
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _join_parts(row: Mapping[str, Any]) -> dict[str, Any]:
    """One parameter's state with each `key.codes, key.scale, key.qmap` as the 8-bit tensor that they are."""
    found = {key: value for key, value in row.items() if "." not in key}
    for key in sorted({key.partition(".")[0] for key in row if "." in key}):
        from torchao.optim.subclass_8bit import OptimState8bit  # pyright: ignore[reportMissingImports] # optional

        codes, scale, qmap = (row[f"{key}.{part}"] for part in ("codes", "scale", "qmap"))
        found[key] = OptimState8bit(codes, scale, qmap, bool((qmap < 0).any()))
    return found


def random_state() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The global generators of torch (also of every CUDA device), numpy and Python."""
    tensors = {f"{_RNG}torch": torch.get_rng_state()}
    if torch.cuda.is_initialized():
        tensors |= {f"{_RNG}cuda/{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    version, numbers, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state()
    tensors[f"{_RNG}numpy"] = torch.from_numpy(np.asarray(keys).astype(np.int64))
    values = {"python": [version, list(numbers), gauss], "numpy": [kind, int(position), int(has_gauss), float(cached)]}
    return tensors, values


def restore_random_state(tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Put back what `random_state` took; CUDA devices that are not there any more are left out."""
    torch.set_rng_state(tensors[f"{_RNG}torch"])
    for device, state in _device_states(tensors):
        torch.cuda.set_rng_state(state, device)
    version, numbers, gauss = values["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, position, has_gauss, cached = values["numpy"]
    keys = tensors[f"{_RNG}numpy"].numpy().astype(np.uint32)
    np.random.set_state((kind, keys, position, has_gauss, cached))


def _device_states(tensors: Mapping[str, Tensor]) -> Iterator[tuple[int, Tensor]]:
    prefix = f"{_RNG}cuda/"
    for name, state in tensors.items():
        number = int(name.removeprefix(prefix)) if name.startswith(prefix) else -1
        if 0 <= number < torch.cuda.device_count():
            yield number, state
