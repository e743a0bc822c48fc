"""The rollout engine on vLLM, for models and loads that the local engine is too slow for. The only file that imports vllm (extra `[vllm]`).

    requests -> waiting, longest first -> at most max_slots in vLLM, one step at a time -> samples as they finish

vLLM's core runs in this process, so nothing is written between two steps: weights change there, whole, through vLLM's protocol of
start, update and finish, handed over in memory. Of a policy with a LoRA adapter the adapter alone goes over.
Each update salts the prefix cache anew, so no prompt is read from keys that older weights wrote.

Example:
    engine = VllmEngine("runs/policy", VllmSettings(precision="fp32"))
    engine.verify(policy)                                      # the trainer's forward says the same
    engine.update_weights(PolicyWeights(policy), version=1)
"""
# pyright: reportMissingImports=false

import os
import random
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

# Read when vllm is imported: one process, nothing sent to anybody, no chatter, threads as torch has them.
for _name, _value in {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR",
                      "VLLM_CPU_OMP_THREADS_BIND": "nobind"}.items():  # fmt: skip
    os.environ.setdefault(_name, _value)

from vllm.config import WeightTransferConfig
from vllm.distributed.parallel_state import cleanup_dist_env_and_memory
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.entrypoints.llm import LLM
from vllm.inputs.engine import tokens_input
from vllm.lora.request import LoRARequest
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.version import __version__ as vllm_version

from fairlead.core.errors import EngineError, explain
from fairlead.core.protocols import Decode, EngineHealth, GenerateRequest, PauseMode, Sample, Sampling, WeightSource
from fairlead.core.records import FinishReason
from fairlead.engine.opening import VllmSettings
from fairlead.engine.requests import check_requests, refuse_choices, sample_seed
from fairlead.engine.scheduler import require_finite
from fairlead.engine.stops import StopTexts
from fairlead.engine.turns import Turns
from fairlead.models.load import CausalModel
from fairlead.text.packing import Branch, Tree, pack_trees

_BACKEND = "fairlead"
_CLOSED = "it was closed"
_GB = 1 << 30
_CACHE_ON_CPU_GB = 1.0
_LOWEST_TEMPERATURE = 0.01  # vLLM raises lower ones to it, with a warning only
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Widths that vLLM has room for adapters in."""
_NUM_CHECKED = 32  # tokens that are compared with the trainer's forward
_CHECKED_TEMPERATURE = 0.7  # not 1, at which logprobs before and after processing are the same
_LARGEST_GAP = {"fp32": 1e-3, "bf16": 0.05}
"""Mean nats a token; small models differ by 1e-6 and by up to 0.01."""


@dataclass(slots=True, kw_only=True)
class _Writing:
    """A sample that vLLM writes."""

    request: GenerateRequest
    index: int
    version: int
    """At its start."""
    token_ids: list[int] = field(default_factory=list[int])
    logprobs: list[float] = field(default_factory=list[float])


@dataclass(slots=True, eq=False)
class _Round:
    """The samples of one `generate`."""

    waiting: deque[tuple[GenerateRequest, int]]
    writing: dict[str, _Writing] = field(default_factory=dict[str, _Writing])
    """By vLLM's name."""

    @property
    def num_active(self) -> int:
        return len(self.writing)

    @property
    def num_waiting(self) -> int:
        return len(self.waiting)


class VllmEngine:
    """Implements RolloutEngine. One `generate` is read at a time; other threads may call the rest. One a process; `close` frees it.

    A sample belongs to its name here too (its seed is made of the sampling's seed, its key and its index), but not the same tokens as the
    local engine's. With adapters, samples in flight at an update finish under the adapter that they began with; their spans say so.

    Args:
        folder: the model, as transformers saves it.
        max_slots: samples written together.
        decode: text of a completion; needed for stop texts.
        on_token: called after each step with the tokens of the samples that it finished; may raise to stop.
        policy_version: of the weights in the folder; None when they are not the policy's, which then must be pushed first.
    Raises:
        EngineError: vLLM cannot load the model, or reports other logprobs than those of the distribution that it samples from.
    """

    def __init__(
        self, folder: str | Path, settings: VllmSettings | None = None, *, max_slots: int = 128, decode: Decode | None = None,
        on_token: Callable[[int], None] | None = None, policy_version: int | None = 0,
    ) -> None:  # fmt: skip
        if _open_engines:
            raise EngineError(
                explain(
                    "engine",
                    "vllm",
                    "is open in this process already",
                    expected="one at a time",
                    remedy="Close it first",
                )
            )
        self._home = Path(tempfile.mkdtemp(prefix="fairlead-vllm-"))
        _open_engines.add(id(self))
        self.name, self.max_slots = str(folder), max_slots
        self._settings = settings or VllmSettings()
        self._decode_text, self._on_token = decode, on_token
        self._turns = Turns()
        self._num_tokens = self._num_requests = self._num_updates = 0
        self._failure: str | None = None
        self._adapter: Any = None
        is_cpu = not torch.cuda.is_available()
        wanted = self._settings.precision
        self.precision: Literal["fp32", "bf16"] = ("fp32" if is_cpu else "bf16") if wanted == "auto" else wanted
        self.is_stale = False
        self._llm: Any = None
        try:
            with _undisturbed():
                self._llm = self._open(is_cpu)
            self.max_positions = int(self._llm.model_config.max_model_len)
            self._label(policy_version or 0)
            self._require_processed()
        except BaseException:
            self.close()
            raise
        self.is_stale = policy_version is None

    @property
    def about(self) -> str:
        """How it computes, for people."""
        adapters = "" if self._settings.lora_rank is None else ", adapters go over alone"
        return f"vLLM {vllm_version}, {self.precision}{adapters}"

    def pause(self, mode: PauseMode = "keep") -> None:
        """See RolloutEngine. The thread that reads the samples may pause too, but must `resume` before it asks for the next one."""
        self._turns.pause(mode)

    def resume(self) -> None:
        """See RolloutEngine."""
        self._turns.resume()

    def health(self) -> EngineHealth:
        """See RolloutEngine. `failed` after an update that broke off: its weights are of two versions."""
        turns = self._turns
        state = "failed" if self._failure else "paused" if turns.paused else "stale" if self.is_stale else "ready"
        return EngineHealth(state=state, policy_version=self.policy_version, num_tokens=self._num_tokens, num_active=turns.num_active,
                            num_waiting=turns.num_waiting, num_aborted=turns.num_aborted)  # fmt: skip

    def close(self) -> None:
        """Free its memory and its files; it cannot be used afterwards."""
        if self._failure == _CLOSED:
            return
        self._failure, self._llm = _CLOSED, None
        _open_engines.discard(id(self))
        shutil.rmtree(self._home, ignore_errors=True)
        cleanup_dist_env_and_memory()

    def update_weights(self, source: WeightSource | None, version: int) -> None:
        """Take new weights, whole or not at all: all of them, or the adapter alone where the engine was made for one.

        Raises:
            EngineError: an update broke off, or does not hold every weight; the engine does not sample any more then. Or `source` is
                None, and the engine never had the policy's weights.
        """
        with self._turns.step:
            self._require_alive()
            if source is None:
                if self.is_stale:
                    raise self._stale()
            elif self._settings.lora_rank is not None:
                self._push_adapter(source)
            else:
                self._push_all(source)
            self._num_updates += 1
            self._label(version)
            self.is_stale = False

    def generate(self, requests: Sequence[GenerateRequest], sampling: Sampling) -> Iterator[Sample]:
        """Sample; those that may get longest begin first.

        Raises:
            EngineError: as LocalEngine; an engine that is stale or failed; sampling that vLLM does in another way.
        """
        check_requests(requests, sampling, max_positions=self.max_positions, has_decoder=self._decode_text is not None)
        _check_sampling(sampling)
        turns = self._turns
        round_ = turns.begin(lambda: self._begin(requests, sampling))
        texts = StopTexts(sampling.stop, self._decode_text) if sampling.stop and self._decode_text else None
        try:
            while round_.waiting or round_.writing:
                turns.await_turn(round_)
                with turns.step:
                    if turns.current is not round_:
                        return
                    self._require_alive()
                    done = self._step(round_, sampling, texts)
                turns.told()
                yield from done
        finally:
            with turns.step:
                self._drop(round_, list(round_.writing))
            turns.end(round_)

    def verify(self, model: CausalModel) -> float:
        """Compare the logprobs of one sample with the trainer's forward; returns the mean difference, nats a token.

        Raises:
            EngineError: they differ: other weights, or logprobs of another distribution.
        """
        size = int(model.config.get_text_config().vocab_size)
        prompt = tuple(int(t) for t in np.random.default_rng(0).integers(0, size, 8))
        room = min(_NUM_CHECKED, self.max_positions - len(prompt))
        sampling = Sampling(max_new_tokens=room, temperature=_CHECKED_TEMPERATURE)
        (sample,) = self.generate([GenerateRequest(key="verify", token_ids=prompt)], sampling)
        tree = Tree(prompt_ids=np.asarray(prompt, dtype=np.int64), branches=(Branch(token_ids=sample.token_ids),))
        with torch.no_grad():
            found = model.logprobs(pack_trees([tree]), temperature=sampling.temperature).logprobs.float().cpu().numpy()
        gap = float(np.abs(found - sample.sampling_logprobs).mean())
        if not gap <= _LARGEST_GAP[self.precision]:
            raise EngineError(explain("engine", "vllm", f"gives other logprobs than the trainer's forward (by {gap:.2g} nats a token)",
                                      expected=f"<= {_LARGEST_GAP[self.precision]} in {self.precision}",
                                      remedy="Use engine.kind: local for this model"))  # fmt: skip
        return gap

    def _open(self, is_cpu: bool) -> Any:
        settings, rank, cache = self._settings, self._settings.lora_rank, self._settings.cache_gb
        if cache is None and is_cpu:
            cache = _CACHE_ON_CPU_GB
        adapters: dict[str, Any] = {}
        if rank is not None:
            room = next(size for size in _RANKS if size >= rank)
            adapters = {"enable_lora": True, "max_lora_rank": room, "max_loras": 2}  # the one in flight and the new one
        try:
            return LLM(
                model=self.name, skip_tokenizer_init=True, dtype={"fp32": "float32", "bf16": "bfloat16"}[self.precision], seed=0,
                logprobs_mode="processed_logprobs", generation_config="vllm", max_model_len=settings.max_length, max_num_seqs=self.max_slots,
                gpu_memory_utilization=settings.memory_share, kv_cache_memory_bytes=None if cache is None else int(cache * _GB),
                enforce_eager=is_cpu, async_scheduling=False, use_tqdm_on_load=False, disable_log_stats=True,
                weight_transfer_config=WeightTransferConfig(backend=_BACKEND), **adapters,
            )  # fmt: skip
        except Exception as error:  # vLLM raises whatever its parts raise
            raise EngineError(explain("engine", "vllm", f"cannot load {self.name} ({_first_line(error)})",
                                      expected="a model that vLLM runs, and room",
                                      remedy="Raise engine.memory_share or engine.cache_gb, or use engine.kind: local")) from error  # fmt: skip

    def _require_processed(self) -> None:
        """One token is left: its logprob is 0, unless vLLM reports what it computed before the cut."""
        sampling = Sampling(max_new_tokens=2, top_k=1)
        (sample,) = self.generate([GenerateRequest(key="processed", token_ids=(0, 0))], sampling)
        if np.abs(sample.sampling_logprobs).max() > 1e-5:
            raise EngineError(explain("engine.logprobs", "raw", "are not those of the distribution that is sampled from",
                                      expected="processed_logprobs", remedy="Install a version of vLLM that has them (>= 0.32)"))  # fmt: skip

    def _require_alive(self) -> None:
        if self._failure:
            raise EngineError(explain("engine", "failed", f"cannot go on: {self._failure}", expected="an engine whose weights are whole",
                                      remedy="Start again; the run goes on at its last checkpoint"))  # fmt: skip

    def _stale(self) -> EngineError:
        return EngineError(explain("engine", "stale", "has never had the policy's weights", expected="update_weights first",
                                   remedy="Push the policy's weights"))  # fmt: skip

    def _label(self, version: int) -> None:
        """What vLLM writes beside each token from now on."""
        self.policy_version = version
        self._llm.update_weight_version(str(version))

    def _begin(self, requests: Sequence[GenerateRequest], sampling: Sampling) -> _Round:
        self._require_alive()
        if self.is_stale:
            raise self._stale()
        ordered = sorted(requests, key=lambda r: (-(len(r.token_ids) + r.limit(sampling)), r.key))
        return _Round(deque((request, i) for request in ordered for i in range(request.num_samples)))

    def _step(self, round_: _Round, sampling: Sampling, texts: StopTexts | None) -> list[Sample]:
        """Let samples begin where there is room, write a token of each, and take those that ended."""
        while self._turns.admits and round_.waiting and len(round_.writing) < self.max_slots:
            request, index = round_.waiting.popleft()
            self._admit(round_, request, index, sampling, streams=texts is not None)
        with torch.random.fork_rng(
            devices=[]
        ):  # on a CPU vLLM draws from the process's generator too, and uses none of it
            outputs = self._llm.llm_engine.step()
        done = [self._take(round_, output, texts) for output in outputs]
        samples = [sample for sample in done if sample is not None]
        num_tokens = sum(len(sample.token_ids) for sample in samples)
        self._num_tokens += num_tokens
        if self._on_token:
            self._on_token(num_tokens)
        return samples

    def _admit(
        self, round_: _Round, request: GenerateRequest, index: int, sampling: Sampling, *, streams: bool
    ) -> None:
        params = SamplingParams(
            max_tokens=request.limit(sampling), temperature=sampling.temperature, top_p=sampling.top_p, top_k=sampling.top_k,
            min_p=sampling.min_p, repetition_penalty=sampling.repetition_penalty, seed=sample_seed(sampling.seed, request.key, index),
            stop_token_ids=list(sampling.stop_token_ids), ignore_eos=True, detokenize=False, logprobs=0, flat_logprobs=True,
            output_kind=RequestOutputKind.DELTA if streams else RequestOutputKind.FINAL_ONLY,
        )  # fmt: skip
        name, self._num_requests = str(self._num_requests), self._num_requests + 1
        prompt = tokens_input(list(request.token_ids), cache_salt=str(self._num_updates))
        self._llm.llm_engine.add_request(name, prompt, params, lora_request=self._adapter)
        round_.writing[name] = _Writing(request=request, index=index, version=self.policy_version)

    def _take(self, round_: _Round, output: Any, texts: StopTexts | None) -> Sample | None:
        """What a step added to a sample; the sample where that ended it."""
        writing = round_.writing.get(output.request_id)
        if writing is None:  # dropped by a pause
            return None
        found = output.outputs[0]
        writing.token_ids += found.token_ids
        writing.logprobs += found.logprobs.logprobs
        reason: FinishReason = "stop" if found.finish_reason == "stop" else "length"
        is_over = bool(output.finished)
        if texts is not None and writing.token_ids:
            ids = np.asarray(writing.token_ids, dtype=np.int64)
            if texts.may_end(ids[-1:])[0] and texts.is_reached(ids):
                if not is_over:
                    self._drop(round_, [output.request_id])
                reason, is_over = "stop", True
        if not is_over:
            return None
        round_.writing.pop(output.request_id, None)
        return self._sample(writing, reason, found.weight_versions)

    def _sample(self, writing: _Writing, reason: FinishReason, labels: Any) -> Sample:
        num = len(writing.token_ids)
        logprobs = np.asarray(writing.logprobs, dtype=np.float32)
        assert len(logprobs) == num, f"vLLM gave {len(logprobs)} logprobs for {num} tokens"
        require_finite(logprobs)
        spans = ((writing.version, 0, num),)
        if self._adapter is None and labels:
            spans = tuple((int(span.version), int(span.start), int(span.end)) for span in labels)
        return Sample(key=writing.request.key, sample_index=writing.index, token_ids=np.asarray(writing.token_ids, dtype=np.int64),
                      sampling_logprobs=logprobs, finish_reason=reason, policy_versions=spans)  # fmt: skip

    def _drop(self, round_: _Round, names: list[str]) -> None:
        """Take samples out of vLLM."""
        if names and self._llm is not None:
            self._llm.llm_engine.abort_request(names)
        for name in names:
            round_.writing.pop(name, None)

    def _push_adapter(self, source: WeightSource) -> None:
        """Hand over the adapter alone; the weights beneath it are those of the folder."""
        number = self._num_updates + 1
        folder = self._home / f"adapter-{number}"
        request = LoRARequest(f"policy-{number}", number, str(folder))
        try:
            if not source.write_adapter(folder):
                raise ValueError("the policy has no adapter")
            self._llm.llm_engine.add_lora(request)
        except Exception as error:  # vLLM raises whatever its parts raise; what it had before still stands
            raise EngineError(explain("engine", "vllm", f"did not take the adapter ({_first_line(error)})",
                                      expected="a LoRA adapter of linear layers",
                                      remedy="Use engine.kind: local, or train without lora")) from error  # fmt: skip
        self._adapter = request
        for old in self._home.glob("adapter-*"):
            if int(old.name.rpartition("-")[2]) < number - 1:
                shutil.rmtree(old)

    def _push_all(self, source: WeightSource) -> None:
        """Hand over every weight, through vLLM's protocol."""
        _handed.append(source)
        try:
            self._llm.start_weight_update()
            self._llm.update_weights({"update_info": {}})
            self._llm.finish_weight_update()
        except Exception as error:  # vLLM raises whatever its parts raise
            self._failure = f"an update broke off ({_first_line(error)})"
            raise EngineError(explain("engine", "vllm", f"did not take the policy's weights ({_first_line(error)})",
                                      expected="every weight of the model, by its name",
                                      remedy="Use engine.kind: local for this model")) from error  # fmt: skip
        finally:
            _handed.clear()


def _check_sampling(sampling: Sampling) -> None:
    """Refuse what vLLM would do in another way than the other engines, without a word, and what it cannot record."""
    refuse_choices(sampling, engine="vLLM")
    if 0 < sampling.temperature < _LOWEST_TEMPERATURE:
        raise EngineError(explain("sampling.temperature", sampling.temperature, "is raised by vLLM", expected=f"0, or >= {_LOWEST_TEMPERATURE}",
                                  remedy="Use 0 for the most likely tokens"))  # fmt: skip
    if sampling.min_p > 0 and sampling.top_p < 1:
        raise EngineError(explain("sampling.min_p", sampling.min_p, "is applied before top_p by vLLM, and after it by the other engines",
                                  expected="one of the two", remedy="Leave one out, or use engine.kind: local"))  # fmt: skip


@contextmanager
def _undisturbed() -> Generator[None]:
    """Put back what vLLM sets for the whole process: random states, threads, the default type."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    on_gpu = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else None
    threads, kind = torch.get_num_threads(), torch.get_default_dtype()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if on_gpu is not None:
            torch.cuda.set_rng_state_all(on_gpu)
        torch.set_num_threads(threads)
        torch.set_default_dtype(kind)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__


_open_engines: set[int] = set()
"""vLLM's groups of processes belong to the process as a whole, so one engine would take them from another."""
_handed: list[WeightSource] = []
"""The source of the update that is being made; vLLM's worker lives in this process and takes it from here."""


@dataclass
class _NoInit(WeightTransferInitInfo):
    """Nothing has to be agreed on."""


@dataclass
class _NoInfo(WeightTransferUpdateInfo):
    """Everything lies in `_handed`."""


class HandOver(WeightTransferEngine):
    """vLLM's side of an update: reads the trainer's tensors where they are, layer by layer, into its own."""

    init_info_cls = _NoInit
    update_info_cls = _NoInfo

    def init_transfer_engine(self, init_info: _NoInit) -> None:
        """Nothing to set up."""

    def start_weight_update(self) -> None:
        """Get ready to load layer by layer."""
        initialize_layerwise_reload(self.model)

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """Load all weights; the base class would wait for an accelerator, which a CPU has none of."""
        self.receive_weights(self.parse_update_info(update_info))
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    def receive_weights(self, update_info: _NoInfo) -> None:
        """Load, and refuse what is not the whole model: a weight left out would silently stay as it was."""
        (source,) = _handed
        wanted = {name for name, _ in self.model.named_parameters()}
        found = self.model.load_weights(source.named_weights())
        missing = sorted(wanted - set(found or wanted))
        if missing:
            raise ValueError(f"{len(missing)} weights did not come, first {missing[0]}")

    def finish_weight_update(self) -> None:
        """Put what was loaded in place."""
        finalize_layerwise_reload(self.model, self.model_config)

    def shutdown(self) -> None:
        """Nothing to free."""


if _BACKEND not in WeightTransferEngineFactory._registry:
    WeightTransferEngineFactory.register_engine(_BACKEND, HandOver)
