"""Recipe section `engine`: what writes completions, here or elsewhere.

Example:
    EngineSection.model_validate({"kind": "remote", "url": "http://localhost:8000/v1", "model": "qwen"})
"""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from fairlead.core.config import Config
from fairlead.core.errors import explain

_READ_BY: dict[tuple[str, ...], tuple[str, ...]] = {
    ("local", "vllm"): ("precision",),
    ("vllm",): ("memory_share", "cache_gb"),
    ("remote",): ("url", "model", "api", "key_env", "timeout_s", "max_tries", "num_parallel", "body"),
}


class EngineSection(Config):
    """What writes completions."""

    kind: Literal["local", "vllm", "remote"] = "local"
    """local: Fairlead's own engine, in this process, from the trainer's own parameters. vllm: vLLM in this process, with a copy of the weights
    (extra `vllm`). remote: a server with the OpenAI API; its weights are its own, so nothing trains on-policy from it."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of what samples. local on a CPU: auto is the precision of the policy's training on-policy, and fp32 elsewhere; bf16 needs a processor that
    multiplies it. local on a GPU: the model's own. vllm: auto is bf16 on a GPU, fp32 on a CPU."""
    memory_share: float = Field(default=0.4, gt=0, lt=1)
    """Of the GPU's memory that vllm takes for weights and cache; the rest is the trainer's."""
    cache_gb: float | None = Field(default=None, gt=0)
    """Keys and values of vllm, GB; null takes what memory_share leaves, on a CPU 1 GB."""
    url: str | None = None
    """Of a remote server, such as http://localhost:8000/v1. http or https; redirects are not followed."""
    model: str | None = None
    """The remote server's name for its model."""
    api: Literal["chat", "completions"] = "chat"
    """chat: messages go over and texts come back, for any server and any model. completions: token ids go over and come back, for a vLLM
    server that serves a model with the recipe's tokenizer."""
    key_env: str | None = None
    """Environment variable that holds the remote server's key, which is never written anywhere and goes over https or to this machine alone; null
    sends none."""
    timeout_s: float = Field(default=120.0, gt=0)
    """Of one remote answer."""
    max_tries: int = Field(default=6, ge=1)
    """Of one remote answer. Waits double from half a second up to a minute, or are what the server asks for."""
    num_parallel: int = Field(default=8, ge=1)
    """Remote answers asked for at a time."""
    body: dict[str, Any] = Field(default_factory=dict)
    """Added to what a remote server is sent; null takes a key out (`{max_tokens: null, max_completion_tokens: 128}`)."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for kinds, names in _READ_BY.items():
            for name in names if self.kind not in kinds else ():
                if name in self.model_fields_set and getattr(self, name) != type(self).model_fields[name].get_default(
                    call_default_factory=True
                ):
                    wrong, expected = f"is not read by kind={self.kind}", "kind: " + " or ".join(kinds)
                    raise ValueError(explain(f"engine.{name}", getattr(self, name), wrong, expected=expected,
                                             remedy="Change kind, or remove it"))  # fmt: skip
        for name in ("url", "model"):
            if self.kind == "remote" and not getattr(self, name):
                raise ValueError(
                    explain(
                        f"engine.{name}",
                        None,
                        "is missing",
                        expected="the address and the model of the server",
                        remedy="Set it",
                    )
                )
        return self
