"""The engine of an on-policy run: the local one on the trainer's own parameters, or vLLM with a copy that follows them."""

from collections.abc import Callable

from fairlead.core.protocols import Decode, RolloutEngine
from fairlead.engine.local import LocalEngine
from fairlead.engine.opening import VllmSettings, open_vllm
from fairlead.models.load import CausalModel
from fairlead.models.weights import PolicyWeights
from fairlead.policies.online_config import OnlineConfig


def open_policy_engine(
    config: OnlineConfig,
    policy: CausalModel,
    *,
    max_length: int,
    on_token: Callable[[int], None],
    say: Callable[[str], None],
    decode: Decode,
) -> RolloutEngine:
    """The engine, with the policy's weights as they are.

    Args:
        config: resolved.
        decode: text of a completion, in which stop texts are found.
        say: told in one line when the local engine decodes fewer sequences together than it was asked to.
    Raises:
        EngineError: it cannot run this model, is not installed, or has other logprobs than the trainer's forward.
    """
    engine = config.engine
    if engine.kind != "vllm":
        precision = "bf16" if engine.precision == "bf16" else "fp32"
        return LocalEngine(
            policy, max_slots=config.max_slots, on_token=on_token, precision=precision, say=say, decode=decode
        )
    lora = config.training.lora
    settings = VllmSettings(precision=engine.precision, memory_share=engine.memory_share, cache_gb=engine.cache_gb,
                            max_length=min(max_length, policy.max_positions),
                            lora_rank=None if lora is None or lora.kind == "dora" else lora.rank)  # fmt: skip
    found = open_vllm(
        policy.name, settings, max_slots=config.max_slots, decode=decode, on_token=on_token, policy_version=None
    )
    try:
        found.update_weights(PolicyWeights(policy), 0)
        found.verify(policy)
    except BaseException:  # a process has room for one, and nobody else could close it
        found.close()
        raise
    return found
