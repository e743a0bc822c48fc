"""Six tokens through a loaded model: encoders are refused, and a plan that computes something else is found out."""

import pytest
import torch
from transformers import BertConfig, BertLMHeadModel

import tiny_models
from fairlead.core.errors import ModelError
from fairlead.models.load import attach_plans, load_policy
from fairlead.models.probe import make_probe


def test_encoders_are_refused(tmp_path):
    """transformers loads a BERT as a causal language model, with a warning that nobody sees."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = BertConfig(**sizes, vocab_size=96, max_position_embeddings=64)
    BertLMHeadModel(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="bert lets a token see later ones; expected a decoder that looks back only"):
        load_policy(str(tmp_path))


def test_a_state_that_nothing_announces_is_found_out():
    """A layer that hands half of its output to the next token of the row: it looks back only, and in a shared row to a sibling."""
    model = tiny_models.load("llama")
    assert model.why_padded is None
    model.causal_lm.set_attn_implementation("sdpa")
    layer = model.backbone.get_submodule("layers.0.mlp")
    layer.register_forward_hook(lambda module, args, out: out + 0.5 * torch.nn.functional.pad(out, (0, 0, 1, -1)))
    assert attach_plans(model) == "computes something else under a plan of ours"
    assert model.config._attn_implementation == "sdpa"


def test_the_probe_is_one_tree_and_its_two_rows():
    probe = make_probe(96)
    assert probe.rows.tolist() == [[48, 49, 50, 51], [48, 49, 52, 53]]
    assert probe.layout.token_ids.tolist() == [48, 49, 50, 51, 52, 53]
    assert probe.layout.position_ids.tolist() == [0, 1, 2, 3, 2, 3]
    assert make_probe(4).rows.max() < 4


@pytest.mark.parametrize("kind", tiny_models.KINDS)
def test_both_forwards_of_a_sound_model_agree(kind):
    probe = make_probe(tiny_models.VOCABULARY)
    model, plain = tiny_models.load(kind), tiny_models.load_plain(kind)
    with torch.no_grad():
        own = getattr(plain, plain.base_model_prefix)(input_ids=probe.rows, use_cache=False).last_hidden_state
        planned = model.hidden(probe.layout)
    assert probe.is_causal(own) and probe.agrees(own, planned)
    torch.testing.assert_close(planned[4:], own[1, 2:], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_faults_are_seen_and_rounding_is_not(dtype):
    probe = make_probe(96)
    own = torch.randn(2, 4, 32, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert not probe.is_causal(own), "the prompts differ"
    own[1, :2] = own[0, :2]
    planned = torch.cat([own[0], own[1, 2:]])
    assert probe.is_causal(own) and probe.agrees(own, planned)
    assert probe.agrees(own, planned * (1 + torch.finfo(dtype).eps * 4))
    swapped = planned[[0, 1, 2, 3, 5, 4]]
    assert not probe.agrees(own, swapped)
    assert not probe.agrees(own, torch.full_like(planned, torch.nan))
