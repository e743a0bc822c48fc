"""Which precision a model is trained in: what the recipe says, or what this machine's own speeds say.

    auto   GPU: bf16 where it has it.  CPU: bf16 where the processor has it, the machine's measured products gain at least PAYS, and the
           layers are large enough for conversions not to eat the gain; else fp32.

Measured once a machine and kept in a file, so that every run on a machine makes the same choice.
"""

import json
from pathlib import Path
from typing import Any, Literal

import torch

from fairlead.core.errors import ConfigError, explain
from fairlead.core.io import atomic_path
from fairlead.models.arithmetic import Precision, has_low_precision, measure_products
from fairlead.models.load import CausalModel

Wanted = Literal["auto", "fp32", "bf16"]
PAYS = 1.3
"""Ratio of the speeds of products, conversions included, from which bf16 shortens a whole step on a CPU."""
SMALLEST = 256
"""Hidden size below which it does not."""
_SHAPE = (2048, 512, 1536)


def choose_precision(wanted: Wanted, model: CausalModel, *, machine_file: Path | None) -> Precision:
    """The precision to train `model` in.

    Args:
        machine_file: where this machine's speeds are kept; None measures them again.
    Raises:
        ConfigError: bf16 was asked for and is not there.
    """
    on_cpu = model.device.type == "cpu"
    is_there = has_low_precision() if on_cpu else model.device.type == "cuda" and torch.cuda.is_bf16_supported()
    if wanted == "bf16" and (not is_there or model.why_padded):
        wrong = (
            "is not computed on padded rows" if is_there else f"is not in the instructions of this {model.device.type}"
        )
        raise ConfigError(
            explain("training.precision", wanted, wrong, expected="fp32 or auto", remedy="Change training.precision")
        )
    if wanted != "auto":
        return wanted
    if not is_there or model.why_padded:
        return "fp32"
    if on_cpu and (model.hidden_size < SMALLEST or machine_gain(machine_file) < PAYS):
        return "fp32"
    return "bf16"


def machine_gain(machine_file: Path | None) -> float:
    """How many times faster this machine multiplies in bf16 than in its best fp32; read from the file when it was measured here."""
    machine = f"{torch.cpu.get_capabilities().get('cpu_name', '')}, torch {torch.__version__}, {torch.get_num_threads()} threads"
    known = _known(machine_file)
    if machine in known:
        return float(known[machine]["gain"])
    speeds = measure_products(*_SHAPE)
    gain = speeds["bf16"] / max(speed for name, speed in speeds.items() if name != "bf16")
    if machine_file is not None:
        machine_file.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**known, machine: {"gain": gain, "gflops": speeds}}, indent=2) + "\n"
        with atomic_path(machine_file) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return gain


def _known(machine_file: Path | None) -> dict[str, Any]:
    """What was measured before; nothing when there is no file, or one of another kind."""
    if machine_file is None or not machine_file.is_file():
        return {}
    try:
        found = json.loads(machine_file.read_text(encoding="utf-8"))
        return {name: row for name, row in found.items() if float(row["gain"]) > 0}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
