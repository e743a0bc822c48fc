"""Stop texts across tokens: where a completion ends, and that only tokens which can complete a text are decoded."""

import numpy as np
import pytest

import tiny_models
from fairlead.core.errors import EngineError
from fairlead.core.protocols import GenerateRequest, Sampling
from fairlead.engine.local import LocalEngine
from fairlead.engine.stops import StopTexts

PIECES = {0: "ab", 1: "c", 2: "d", 3: "\ufffd", 4: "", 5: "bca"}


def decode(ids):
    return "".join(PIECES[int(i)] for i in ids)


def ids(*tokens):
    return np.array(tokens, dtype=np.int64)


def test_a_text_may_lie_across_tokens():
    stops = StopTexts(("bc",), decode)
    assert not stops.is_reached(ids(0)) and stops.is_reached(ids(0, 1)) and stops.is_reached(ids(2, 5))
    assert not stops.is_reached(ids(0, 2, 1))


def test_only_tokens_with_a_last_character_may_end():
    """`c` is in 1 and 5; half a character and an empty text may always hide it."""
    assert StopTexts(("bc",), decode).may_end(ids(0, 1, 2, 3, 4, 5)).tolist() == [False, True, False, True, True, True]
    assert StopTexts(("b ",), decode).may_end(ids(0, 2)).tolist() == [True, True], "a decoder may strip white space"


def test_what_a_token_can_do_is_asked_once():
    asked: list[np.ndarray] = []

    def learn(token_ids):
        asked.append(token_ids)
        return decode(token_ids)

    stops = StopTexts(("c",), learn)
    for _ in range(3):
        stops.may_end(ids(2, 0, 2))
    assert [x.tolist() for x in asked] == [[0], [2]]


def test_a_sample_ends_with_its_stop_text():
    """The stop text of each prompt is what it says third; found samples are the free ones cut there."""
    model, chars = tiny_models.load("llama"), "abcdefghijklmnopqrstuvwxyz"

    def spell(token_ids):
        return "".join(chars[i % 26] for i in token_ids.tolist())

    engine = LocalEngine(model, decode=spell)
    requests = [GenerateRequest(key=f"p{i}", token_ids=(1, 9 + i)) for i in range(4)]
    free = {s.key: s for s in engine.generate(requests, Sampling(max_new_tokens=12, seed=1))}
    stop = spell(free["p0"].token_ids[:5])[-2:]
    found = {s.key: s for s in engine.generate(requests, Sampling(max_new_tokens=12, seed=1, stop=(stop,)))}
    for key, sample in found.items():
        whole, length = free[key].token_ids, len(sample.token_ids)
        assert sample.token_ids.tolist() == whole[:length].tolist()
        assert stop not in spell(whole[: length - 1])
        assert (sample.finish_reason == "stop") == (stop in spell(sample.token_ids))
    assert found["p0"].finish_reason == "stop" and len(found["p0"].token_ids) <= 5


def test_stop_texts_need_a_decoder():
    engine = LocalEngine(tiny_models.load("llama"))
    with pytest.raises(EngineError, match=r"sampling\.stop=.* cannot be found without a decoder"):
        list(engine.generate([GenerateRequest(key="p", token_ids=(1,))], Sampling(max_new_tokens=2, stop=("x",))))


def test_a_request_may_have_a_limit_of_its_own():
    model = tiny_models.load("llama")
    requests = [GenerateRequest(key=f"p{i}", token_ids=(1, 9), max_new_tokens=n) for i, n in enumerate((3, None, 40))]
    found = {s.key: len(s.token_ids) for s in LocalEngine(model).generate(requests, Sampling(max_new_tokens=7))}
    assert found == {"p0": 3, "p1": 7, "p2": 7}
