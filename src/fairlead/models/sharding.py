"""Weights sharded over processes by torch's FSDP2: each layer is gathered when it runs, the rest from forward to backward.

Our forward does not call the model but its backbone, and reads the language-model head's weight instead of calling it. So embeddings,
last norm and head form the root group, which stays whole until the backward has used the head, and the backbone is entered through
a method that has the root's hooks. Losses stay sums: FSDP averages gradients over processes, so a loss is multiplied by their number.

Example:
    mesh = init_device_mesh("cuda", (world_size,))
    shard(model, mesh=mesh)
    optimizer = AdamW(model.module.parameters())       # after sharding: the parameters are new ones
"""

from typing import Any

from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from transformers.modeling_layers import GradientCheckpointingLayer

from fairlead.models.load import CausalModel

_ENTRY = "run_backbone"


def shard(model: CausalModel, *, mesh: DeviceMesh) -> None:
    """Shard a model in place over a mesh of one axis (or two: shards within, copies across). Call once, after adapters."""
    if model.device.type == "cpu":
        model.set_precision(
            "fp32"
        )  # FSDP refills a gathered weight without autograd's count, by which bf16 copies know their age
    lm, backbone = model.causal_lm, model.backbone

    def run_backbone(**inputs: Any) -> Any:
        return backbone(**inputs)

    for module in list(lm.modules()):
        if isinstance(module, GradientCheckpointingLayer):
            fully_shard(module, mesh=mesh)
    fully_shard(lm, mesh=mesh, reshard_after_forward=False)
    setattr(lm, _ENTRY, run_backbone)
    register_fsdp_forward_method(lm, _ENTRY)
    model.entry = getattr(lm, _ENTRY)
