"""The engine on vLLM, for real: `make test-vllm` runs these in an environment of its own. Elsewhere they are skipped."""

import json
import os
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

if os.environ.get("FAIRLEAD_REQUIRE") != "vllm":
    pytest.importorskip("vllm", reason="vllm is not installed; make test-vllm builds an environment that has it")

from fairlead.core.errors import EngineError
from fairlead.core.protocols import GenerateRequest, RolloutEngine, Sampling
from fairlead.engine.opening import VllmSettings
from fairlead.engine.sampler import process_logits
from fairlead.engine.vllm import VllmEngine
from fairlead.models.adapters import LoraSettings, add_lora, merged
from fairlead.models.load import load_policy
from fairlead.models.weights import PolicyWeights
from fairlead.text.packing import Branch, Tree, pack_trees

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1] / "policies")]
pytestmark = pytest.mark.filterwarnings("default")
VOCABULARY = 96
WAIT_S = 60.0


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A tiny random Llama whose distributions are neither flat nor certain."""
    torch.manual_seed(0)
    found = tmp_path_factory.mktemp("tiny")
    LlamaForCausalLM(
        LlamaConfig(vocab_size=VOCABULARY, hidden_size=128, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2,
                    num_key_value_heads=1, max_position_embeddings=128, tie_word_embeddings=False, initializer_range=0.15)
    ).save_pretrained(found)  # fmt: skip
    return found


def decode(ids):
    return "".join(chr(32 + int(i)) for i in ids)


_shared = []


@pytest.fixture
def engine(folder):
    """One for many tests, with the weights of the folder."""
    if not _shared:
        _shared.append(VllmEngine(folder, VllmSettings(precision="fp32"), max_slots=16, decode=decode))
    (found,) = _shared
    yield found
    found.resume()
    found.update_weights(PolicyWeights(load_policy(str(folder))), 0)


@pytest.fixture
def opened(folder):
    """Makes an engine of a test's own; a process has room for one."""
    while _shared:
        _shared.pop().close()
    made = []

    def make(settings, **options):
        made.append(VllmEngine(folder, settings, **options))
        return made[-1]

    yield make
    for found in made:
        found.close()


@pytest.fixture
def policy(folder):
    return load_policy(str(folder))


def some_requests(num=7, num_samples=2):
    rng = np.random.default_rng(0)
    prompts = [tuple(map(int, rng.integers(0, VOCABULARY, rng.integers(1, 40)))) for _ in range(num)]
    return [GenerateRequest(key=f"p{i}", token_ids=ids, num_samples=num_samples) for i, ids in enumerate(prompts)]


def by_name(samples):
    return {(s.key, s.sample_index): s for s in samples}


def trainer_logprobs(model, request, sample, temperature=1.0):
    tree = Tree(
        prompt_ids=np.asarray(request.token_ids, dtype=np.int64), branches=(Branch(token_ids=sample.token_ids),)
    )
    with torch.no_grad():
        return model.logprobs(pack_trees([tree]), temperature=temperature).logprobs.numpy()


def moved(model, scale=0.05):
    """The model with other weights."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.module.parameters():
            parameter.add_(torch.randn_like(parameter) * scale)
    return model


def test_greedy_is_that_of_transformers(engine, folder):
    plain = AutoModelForCausalLM.from_pretrained(folder)
    plain.generation_config.eos_token_id = None
    requests = some_requests(num_samples=1)
    found = by_name(engine.generate(requests, Sampling(max_new_tokens=30, temperature=0.0)))
    for request in requests:
        ids = torch.tensor([request.token_ids])
        expected = plain.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=30, do_sample=False)
        assert found[request.key, 0].token_ids.tolist() == expected[0, ids.shape[1] :].tolist()


@pytest.mark.parametrize("temperature", [0.0, 0.6, 1.0])
def test_logprobs_are_the_trainers(engine, policy, temperature):
    requests = some_requests()
    found = by_name(engine.generate(requests, Sampling(max_new_tokens=20, temperature=temperature, seed=3)))
    assert len(found) == 14
    for request in requests:
        for i in range(2):
            sample = found[request.key, i]
            assert sample.sampling_logprobs.dtype == np.float32 and sample.finish_reason == "length"
            expected = trainer_logprobs(policy, request, sample, temperature or 1.0)
            np.testing.assert_allclose(sample.sampling_logprobs, expected, atol=1e-4)


def test_cut_and_penalised_logprobs_are_of_what_is_sampled_from(engine, folder):
    """By the local engine's own rule for a cut distribution, on logits of plain transformers."""
    plain = AutoModelForCausalLM.from_pretrained(folder)
    (request,) = some_requests(num=1, num_samples=1)
    for sampling in (
        Sampling(max_new_tokens=15, temperature=0.8, top_k=7, seed=1),
        Sampling(max_new_tokens=15, top_p=0.6, seed=2),
        Sampling(max_new_tokens=15, min_p=0.2, seed=3),
        Sampling(max_new_tokens=15, repetition_penalty=1.4, seed=4),
        Sampling(max_new_tokens=15, repetition_penalty=1.4, temperature=0.0),
    ):
        (sample,) = engine.generate([request], sampling)
        ids = [*request.token_ids, *sample.token_ids.tolist()]
        with torch.no_grad():
            logits = plain(torch.tensor([ids])).logits[0]
        for t, token in enumerate(sample.token_ids.tolist()):
            seen = torch.zeros(1, VOCABULARY, dtype=torch.bool)
            seen[0, ids[: len(request.token_ids) + t]] = True
            row = process_logits(logits[None, len(request.token_ids) + t - 1], sampling, seen).log_softmax(-1)
            assert float(row[0, token]) == pytest.approx(float(sample.sampling_logprobs[t]), abs=1e-4)


def test_samples_belong_to_their_names(engine):
    """Order, neighbours and the number of samples change nothing; seeds and indices do."""
    requests, sampling = some_requests(), Sampling(max_new_tokens=12, seed=5)
    first = by_name(engine.generate(requests, sampling))
    again = by_name(engine.generate(requests[::-1], sampling))
    alone = by_name(engine.generate(requests[:1], sampling))
    for name, sample in first.items():
        assert again[name].token_ids.tolist() == sample.token_ids.tolist()
    assert alone["p0", 1].token_ids.tolist() == first["p0", 1].token_ids.tolist()
    assert first["p0", 0].token_ids.tolist() != first["p0", 1].token_ids.tolist()
    other = by_name(engine.generate(requests, Sampling(max_new_tokens=12, seed=6)))
    assert sum(other[n].token_ids.tolist() == s.token_ids.tolist() for n, s in first.items()) < 3


def test_the_first_tokens_follow_the_probabilities(engine, folder):
    """2,000 samples against the exact probabilities: total variation of their shares, whose spread is about sqrt(V / N) / 2."""
    request = GenerateRequest(key="many", token_ids=(3, 1, 4), num_samples=2000)
    tokens = [int(s.token_ids[0]) for s in engine.generate([request], Sampling(max_new_tokens=1, seed=0))]
    shares = np.bincount(tokens, minlength=VOCABULARY) / len(tokens)
    with torch.no_grad():
        plain = AutoModelForCausalLM.from_pretrained(folder)
        exact = plain(torch.tensor([[3, 1, 4]])).logits[0, -1].softmax(-1).numpy()
    assert 0.5 * np.abs(shares - exact).sum() < 0.15
    assert shares[exact.argmax()] == pytest.approx(float(exact.max()), abs=4 * float(exact.max() / 2000) ** 0.5)


def test_stop_tokens_and_limits(engine):
    requests = some_requests(num=4)
    free = by_name(engine.generate(requests, Sampling(max_new_tokens=30, seed=2)))
    stop = int(free["p0", 0].token_ids[7])
    found = by_name(engine.generate(requests, Sampling(max_new_tokens=30, seed=2, stop_token_ids=(stop,))))
    for name, sample in free.items():
        ids = sample.token_ids.tolist()
        expected = ids[: ids.index(stop) + 1] if stop in ids else ids
        assert found[name].token_ids.tolist() == expected
        assert found[name].finish_reason == ("stop" if stop in ids else "length")
        assert len(found[name].sampling_logprobs) == len(expected)
    short = GenerateRequest(key="p0", token_ids=requests[0].token_ids, max_new_tokens=3)
    (sample,) = engine.generate([short], Sampling(max_new_tokens=30, seed=2))
    assert sample.token_ids.tolist() == free["p0", 0].token_ids.tolist()[:3]


def test_stop_texts_keep_the_token_that_completed_them(engine):
    requests = some_requests(num=4)
    free = by_name(engine.generate(requests, Sampling(max_new_tokens=30, seed=2)))
    text = decode(free["p0", 0].token_ids[6:8])
    found = by_name(engine.generate(requests, Sampling(max_new_tokens=30, seed=2, stop=(text,))))
    assert found["p0", 0].token_ids.tolist() == free["p0", 0].token_ids.tolist()[:8]
    for name, sample in free.items():
        whole = decode(sample.token_ids)
        end = whole.find(text) + len(text) if text in whole else len(whole)
        assert decode(found[name].token_ids) == whole[:end]
        assert found[name].finish_reason == ("stop" if text in whole else "length")
        np.testing.assert_allclose(found[name].sampling_logprobs, sample.sampling_logprobs[:end], atol=1e-4)
    assert engine.health().num_active == 0


def staggered(num=6):
    """Requests that end one after the other."""
    return [GenerateRequest(key=f"p{i}", token_ids=(1, 9, 7 + i), max_new_tokens=4 + 3 * i) for i in range(num)]


def test_samples_come_as_they_finish(engine):
    samples = engine.generate(staggered(), Sampling(max_new_tokens=40))
    assert next(samples).key == "p0" and engine.health().num_active == 5
    assert [s.key for s in samples] == ["p1", "p2", "p3", "p4", "p5"]


def test_new_weights_count_from_the_next_round(engine, policy):
    requests, sampling = some_requests(), Sampling(max_new_tokens=20, seed=1)
    before = by_name(engine.generate(requests, sampling))
    engine.update_weights(PolicyWeights(moved(policy)), 7)
    after = by_name(engine.generate(requests, sampling))
    assert engine.health().policy_version == 7
    for request in requests:
        sample = after[request.key, 0]
        assert sample.policy_versions == ((7, 0, 20),) and before[request.key, 0].policy_versions == ((0, 0, 20),)
        np.testing.assert_allclose(sample.sampling_logprobs, trainer_logprobs(policy, request, sample), atol=1e-4)
    assert any(before[n].token_ids.tolist() != after[n].token_ids.tolist() for n in before)


def test_samples_in_flight_go_on_with_new_weights(engine, policy):
    samples = engine.generate(staggered(), Sampling(max_new_tokens=40, temperature=0.0))
    next(samples)
    engine.update_weights(PolicyWeights(moved(policy)), 3)
    rest = list(samples)
    for sample in rest:
        assert sample.policy_versions == ((0, 0, 4), (3, 4, len(sample.token_ids)))
    engine.update_weights(PolicyWeights(load_policy(policy.name)), 4)
    whole = by_name(engine.generate(staggered(), Sampling(max_new_tokens=40, temperature=0.0)))
    assert any(s.token_ids.tolist() != whole[s.key, 0].token_ids.tolist() for s in rest)
    assert all(s.token_ids.tolist()[:4] == whole[s.key, 0].token_ids.tolist()[:4] for s in rest)


def test_an_update_that_lacks_weights_is_refused_and_the_engine_writes_no_more(opened, folder):
    class Half(PolicyWeights):
        def named_weights(self):
            yield from list(super().named_weights())[:-3]

    found = opened(VllmSettings(precision="fp32"), max_slots=4)
    with pytest.raises(EngineError, match="did not come"):
        found.update_weights(Half(load_policy(str(folder))), 1)
    assert found.health().state == "failed"
    with pytest.raises(EngineError, match="broke off"):
        list(found.generate(staggered(), Sampling(max_new_tokens=4)))


def test_a_stale_engine_samples_only_once_it_has_the_policys_weights(opened, folder, policy):
    found = opened(VllmSettings(precision="fp32", max_length=64), max_slots=4, policy_version=None)
    assert found.health().state == "stale" and found.max_positions == 64
    with pytest.raises(EngineError, match="never had"):
        list(found.generate(staggered(), Sampling(max_new_tokens=4)))
    with pytest.raises(EngineError, match="never had"):
        found.update_weights(None, 5)
    found.update_weights(PolicyWeights(policy), 5)
    assert found.health().state == "ready" and found.verify(policy) < 1e-4
    with pytest.raises(EngineError, match="leaves room for"):
        list(found.generate([GenerateRequest(key="long", token_ids=(1, 2))], Sampling(max_new_tokens=63)))


def test_verification_meets_other_weights(engine, policy):
    assert isinstance(engine, RolloutEngine)
    assert engine.verify(policy) < 1e-4
    with pytest.raises(EngineError, match="other logprobs"):
        engine.verify(moved(policy))


def leftovers():
    """Folders of engines that are there."""
    return {path.name for path in Path(tempfile.gettempdir()).glob("fairlead-vllm-*")}


def test_vllm_is_held_to_processed_logprobs_and_one_that_is_refused_leaves_nothing(opened, folder, monkeypatch):
    """A vLLM that reports raw ones does not start; the process has room for another, and the disk holds nothing of it."""
    from fairlead.engine import vllm as module

    before, real = leftovers(), module.LLM
    monkeypatch.setattr(module, "LLM", lambda **options: real(**{**options, "logprobs_mode": "raw_logprobs"}))
    with pytest.raises(EngineError, match="processed_logprobs"):
        VllmEngine(folder, VllmSettings(precision="fp32"), max_slots=4)
    assert leftovers() == before
    monkeypatch.setattr(module, "LLM", real)
    assert (
        len(list(opened(VllmSettings(precision="fp32"), max_slots=4).generate(staggered(), Sampling(max_new_tokens=4))))
        > 0
    )


@pytest.mark.parametrize("kind", ["lora", "rslora"])
def test_an_adapter_goes_over_alone(opened, folder, policy, kind):
    adapted = add_lora(policy, LoraSettings(kind=kind, rank=4, alpha=16.0), seed=0)
    found = opened(VllmSettings(precision="fp32", lora_rank=4), max_slots=8, policy_version=None)
    for version in (1, 2, 3, 4):
        with torch.no_grad():
            for name, parameter in adapted.module.named_parameters():
                if "lora_" in name:
                    parameter.add_(torch.randn_like(parameter) * 0.1)
        found.update_weights(PolicyWeights(adapted), version)
        assert found.verify(adapted) < 1e-4
        (sample,) = found.generate(staggered(1), Sampling(max_new_tokens=9))
        assert sample.policy_versions == ((version, 0, 4),)
    assert len(list(found._home.iterdir())) == 2, "adapters that nothing reads any more go"
    with pytest.raises(EngineError, match="has no adapter"):
        found.update_weights(PolicyWeights(load_policy(str(folder))), 9)
    assert found.health().state == "ready" and found.verify(adapted) < 1e-4


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_adapted_weights_may_go_over_whole(engine, policy, kind):
    adapted = add_lora(policy, LoraSettings(kind=kind, rank=4, alpha=16.0), seed=0)
    moved(adapted, scale=0.02)
    engine.update_weights(PolicyWeights(adapted), 2)
    assert engine.verify(adapted) < 1e-4
    assert engine.verify(merged(adapted)) < 1e-4


def read_in_a_thread(engine, requests, sampling):
    """(thread, samples so far)"""
    found, began = [], threading.Event()

    def read():
        for sample in engine.generate(requests, sampling):
            found.append(sample)
            began.set()

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    assert began.wait(WAIT_S)
    return thread, found


def long_requests(num=60):
    return [GenerateRequest(key=f"p{i:03}", token_ids=(1, 9, 7), max_new_tokens=60) for i in range(num)]


def test_another_thread_may_freeze_it(engine):
    sampling = Sampling(max_new_tokens=60, seed=1)
    expected = {s.key: s.token_ids.tolist() for s in engine.generate(long_requests(), sampling)}
    thread, found = read_in_a_thread(engine, long_requests(), sampling)
    for _ in range(3):
        engine.pause("keep")
        before = engine.health()
        threading.Event().wait(0.05)
        assert engine.health() == before and before.state == "paused"
        engine.resume()
    thread.join(WAIT_S)
    assert {s.key: s.token_ids.tolist() for s in found} == expected


def test_waiting_finishes_what_has_begun(engine):
    thread, found = read_in_a_thread(engine, long_requests(), Sampling(max_new_tokens=60))
    engine.pause("wait")
    health = engine.health()
    assert health.num_active == 0 and thread.is_alive() == bool(health.num_waiting)
    engine.resume()
    thread.join(WAIT_S)
    assert len(found) == 60


def test_aborting_drops_and_counts(engine):
    before = engine.health().num_aborted
    thread, found = read_in_a_thread(engine, long_requests(), Sampling(max_new_tokens=60))
    engine.pause("abort")
    thread.join(WAIT_S)
    health = engine.health()
    assert not thread.is_alive() and health.num_active == health.num_waiting == 0
    assert len(found) + health.num_aborted - before == 60
    with pytest.raises(EngineError, match="resume"):
        list(engine.generate(staggered(), Sampling(max_new_tokens=40)))
    engine.resume()
    assert len(list(engine.generate(staggered(), Sampling(max_new_tokens=40)))) == 6


def test_a_reader_that_goes_away_takes_its_samples_along(engine):
    samples = engine.generate(long_requests(), Sampling(max_new_tokens=60))
    next(samples)
    with pytest.raises(EngineError, match="another generate"):
        next(engine.generate(staggered(), Sampling(max_new_tokens=4)))
    samples.close()
    assert engine.health().num_active == 0
    assert not engine._llm.llm_engine.has_unfinished_requests()


def test_what_vllm_would_do_otherwise_is_refused(engine):
    with pytest.raises(EngineError, match="raised by vLLM"):
        list(engine.generate(staggered(), Sampling(max_new_tokens=4, temperature=0.001)))
    with pytest.raises(EngineError, match="before top_p"):
        list(engine.generate(staggered(), Sampling(max_new_tokens=4, min_p=0.1, top_p=0.9)))
    with pytest.raises(EngineError, match="asked for twice"):
        list(engine.generate([*staggered(), *staggered()], Sampling(max_new_tokens=4)))


def test_a_process_keeps_its_random_states_and_settings(opened):
    torch.manual_seed(11)
    np.random.seed(12)
    expected = torch.get_rng_state().clone(), np.random.get_state()[1].copy(), torch.get_num_threads()
    found = opened(VllmSettings(precision="fp32"), max_slots=4)
    list(found.generate(staggered(), Sampling(max_new_tokens=8)))
    assert torch.equal(torch.get_rng_state(), expected[0])
    assert (np.random.get_state()[1] == expected[1]).all() and torch.get_num_threads() == expected[2]
    assert torch.get_default_dtype() == torch.float32


def test_a_folder_that_vllm_cannot_load_is_an_error_in_words(opened, tmp_path):
    before = leftovers()
    for _ in range(2):  # the first has made room
        with pytest.raises(EngineError, match="cannot load"):
            VllmEngine(tmp_path / "nothing", VllmSettings(precision="fp32"))
    assert leftovers() == before


def test_a_process_has_room_for_one(opened, folder):
    found = opened(VllmSettings(precision="fp32"), max_slots=4)
    with pytest.raises(EngineError, match="one at a time"):
        VllmEngine(folder)
    found.close()
    found.close()
    with pytest.raises(EngineError, match="closed"):
        list(found.generate(staggered(), Sampling(max_new_tokens=4)))


@pytest.mark.parametrize(
    ("lora", "old"),
    [(None, "trainer"), ({"rank": 4}, "trainer"), (None, "step")],
    ids=["whole", "lora", "one step a round"],
)
def test_an_on_policy_run_follows_its_policy(opened, folder, tmp_path, monkeypatch, lora, old):
    """GRPO with vLLM: what it samples from is the trainer's policy in every round, and samples name the version that wrote them."""
    import online_example

    import tiny_models

    def load(_kind):
        model = load_policy(str(folder))
        return model if lora is None else add_lora(model, LoraSettings(rank=4), seed=0)

    monkeypatch.setattr(tiny_models, "load", load)
    training = {"learning_rate": 1e-2} | ({} if lora is None else {"lora": lora})
    size = 8 if old == "step" else 4
    loop = online_example.make_loop(tmp_path, "grpo", engine={"kind": "vllm"}, training=training, minibatch_size=size)
    try:
        online_example.run(loop)
        assert loop.config.old_logprobs == old and "vLLM" in loop.engine.about
        rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
        assert len(rows) == 3 and all(row["rl/sampling_gap"] < 1e-4 for row in rows)
        assert loop.engine.health().policy_version == 3 and loop.engine.verify(loop.models.policy) < 1e-4
        with pytest.raises(EngineError, match="other logprobs"):
            loop.engine.verify(load_policy(str(folder)))
    finally:
        loop.engine.close()


def test_half_precision_stays_near_the_trainer(opened, policy):
    found = opened(VllmSettings(precision="bf16"), max_slots=4)
    assert 1e-6 < found.verify(policy) < 0.05
