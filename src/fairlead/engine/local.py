"""The in-process rollout engine: the trainer's own parameters, continuous batching over a preallocated cache, batch-invariant sampling.

    requests -> scheduler (slots, steps, stops) -> runner (the C++ kernel, or the model's modules) -> samples as they finish

Weights are the trainer's, so a weight update is a version number. Between two samples the reader may train on: samples in flight go on
with the new weights, and their spans say which tokens were written by which.

Example:
    engine = LocalEngine(model, max_slots=64)
    for sample in engine.generate([GenerateRequest(key="p1", token_ids=(1, 5, 7), num_samples=4)], Sampling(max_new_tokens=32)):
        ...
"""

from collections.abc import Callable, Iterator, Sequence

import torch

from fairlead.core.errors import EngineError, explain
from fairlead.core.protocols import (
    Decode,
    EngineHealth,
    GenerateRequest,
    PauseMode,
    Sample,
    Sampling,
    WeightSource,
)
from fairlead.engine.by_kernel import KernelRunner
from fairlead.engine.by_modules import ModuleRunner
from fairlead.engine.cache import KEY_TOKENS, round_up
from fairlead.engine.kernel import load_kernel
from fairlead.engine.layers import OtherShapeError
from fairlead.engine.requests import check_requests
from fairlead.engine.room import Room, can_shrink
from fairlead.engine.runner import Runner
from fairlead.engine.scheduler import Schedule
from fairlead.engine.turns import Turns
from fairlead.models.arithmetic import Precision
from fairlead.models.load import CausalModel


def cannot_write(model: str, why: str, *, stages: Sequence[str] = ()) -> EngineError:
    """The error for a model that cannot sample while it is trained.

    Args:
        why: `why_padded` of the model.
        stages: of the recipe that would need it to.
    """
    remedy = "SFT, reward models, DPO and KTO train it, and completions and evals sample from it"
    remedy += f", without {', '.join(stages)} in the recipe" if stages else ""
    return EngineError(explain("model", model, f"cannot write completions while it is trained: it {why}",
                               expected="a model whose sequences can share a row", remedy=remedy))  # fmt: skip


class LocalEngine:
    """Implements RolloutEngine on a CausalModel in this process. One `generate` is read at a time; other threads may call the rest.

    Args:
        max_slots: samples decoded together; more is faster per token and takes more memory. Fewer where memory does not hold them (room.py).
        decode: text of a completion; needed for stop texts.
        on_token: called with the number of tokens of each step; may raise to stop.
        use_kernel: False runs the model's own modules also where the C++ kernel could.
        precision: of what samples on a CPU, whatever the trainer computes in; on a GPU it is the model's own.
        say: told in one line when slots become fewer.
    Raises:
        EngineError: the model's sequences cannot share a row (the slots of the cache are one), or it is not sampled in this precision here.
    """

    def __init__(
        self, model: CausalModel, *, max_slots: int = 128, decode: Decode | None = None, on_token: Callable[[int], None] | None = None,
        use_kernel: bool = True, precision: Precision = "fp32", say: Callable[[str], None] = lambda _line: None,
    ) -> None:  # fmt: skip
        if model.why_padded is not None:
            raise cannot_write(model.name, model.why_padded)
        self.model = model
        self.policy_version = 0
        self._runner = choose_runner(model, use_kernel=use_kernel, precision=precision)
        self.room = Room(runner=self._runner, device=model.device, max_slots=max_slots, say=say)
        self._decode_text = decode
        self._num_tokens = 0
        self._on_token = on_token
        self._turns = Turns()

    @property
    def about(self) -> str:
        """How it computes, for people."""
        return self._runner.about

    def pause(self, mode: PauseMode = "keep") -> None:
        """See RolloutEngine. The thread that reads the samples may pause too, but must `resume` before it asks for the next one."""
        self._turns.pause(mode)

    def resume(self) -> None:
        """See RolloutEngine."""
        self._turns.resume()

    def update_weights(self, source: WeightSource | None, version: int) -> None:
        """Take note of a new policy version; the parameters are the trainer's own, and `source` is not read."""
        with self._turns.step:
            self.policy_version = version
            if self._turns.current is not None:
                self._runner.rebind()

    def health(self) -> EngineHealth:
        """See RolloutEngine."""
        turns = self._turns
        return EngineHealth(state="paused" if turns.paused else "ready", policy_version=self.policy_version, num_tokens=self._num_tokens,
                            num_active=turns.num_active, num_waiting=turns.num_waiting, num_aborted=turns.num_aborted,
                            num_out_of_memory=self.room.num_out_of_memory)  # fmt: skip

    def close(self) -> None:
        """Nothing to free."""

    def generate(self, requests: Sequence[GenerateRequest], sampling: Sampling) -> Iterator[Sample]:
        """Sample; those that may get longest begin first.

        Raises:
            EngineError: an empty prompt, one that leaves no room, two requests of one name, stop texts without a decoder, or logits that
                are not finite.
        """
        check_requests(
            requests, sampling, max_positions=self.model.max_positions, has_decoder=self._decode_text is not None
        )
        turns = self._turns
        schedule = turns.begin(lambda: self._begin(requests, sampling))
        try:
            while not schedule.is_done:
                turns.await_turn(schedule)
                with turns.step, torch.inference_mode():
                    if turns.current is not schedule:
                        return
                    done = self._step(schedule)
                turns.told()
                yield from done
        finally:
            turns.end(schedule)

    def _step(self, schedule: Schedule) -> list[Sample]:
        """One step, in fewer slots when memory runs out."""
        while True:
            try:
                return schedule.step(self.policy_version, admits=self._turns.admits)
            except Exception as error:
                if not can_shrink(error, schedule.num_slots):
                    raise
            schedule.begin_again(self.room.make_less(schedule.num_slots))

    def _begin(self, requests: Sequence[GenerateRequest], sampling: Sampling) -> Schedule:
        with torch.inference_mode():
            longest = max((len(r.token_ids) + r.limit(sampling) for r in requests), default=1)
            num_slots = self.room.make(max(1, sum(r.num_samples for r in requests)), round_up(longest, KEY_TOKENS))
            return Schedule(
                requests, sampling, self._runner, num_slots=num_slots, vocabulary=len(self.model.output_head().weight),
                decode=self._decode_text, on_token=self._count,
            )  # fmt: skip

    def _count(self, num_tokens: int) -> None:
        self._num_tokens += num_tokens
        if self._on_token:
            self._on_token(num_tokens)


def choose_runner(model: CausalModel, *, use_kernel: bool = True, precision: Precision = "fp32") -> Runner:
    """The kernel where it computes this model, else the model's own modules, which on a CPU sample in fp32.

    Raises:
        EngineError: neither computes in this precision.
    """
    found = _open_kernel(model, precision) if use_kernel else "as asked"
    if not isinstance(found, str):
        return found
    if model.device.type == "cpu" and (precision, model.arithmetic.precision) != ("fp32", "fp32"):
        wanted = precision if precision != "fp32" else model.arithmetic.precision
        raise EngineError(explain("engine.precision", wanted, f"needs the C++ kernel on a CPU ({found})", expected="fp32",
                                  remedy="Set training.precision and engine.precision to fp32"))  # fmt: skip
    return ModuleRunner(model, found)


def why_not_sampled(model: CausalModel, precision: Precision) -> str | None:
    """What keeps the kernel from sampling this model in this precision, in words; None where it does."""
    found = _open_kernel(model, precision)
    return found if isinstance(found, str) else None


def _open_kernel(model: CausalModel, precision: Precision) -> KernelRunner | str:
    """The kernel, or why it is not used."""
    if model.device.type != "cpu":
        return f"on {model.device.type}"
    library = load_kernel()
    if isinstance(library, str):
        return library
    try:
        return KernelRunner(model, library, precision=precision)
    except OtherShapeError as error:
        return f"the model {error}"
