"""Weight averaging and models with several outputs."""

import pytest
import torch
from test_models_heads import trees

import tiny_models
from fairlead.core.errors import ModelError
from fairlead.models.averaging import average_reward_models
from fairlead.models.checkpoint import save_policy
from fairlead.models.heads import MEMBER_FOLDER, Readout, even_readout, load_head, new_reward_head, save_head
from fairlead.text import pack_trees


def saved(folder, *, seed, shift=0.0):
    """A reward model whose weights are moved by `shift`, in a folder."""
    model = new_reward_head(tiny_models.load("llama"), seed=seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(shift * torch.ones_like(parameter))
    save_policy(model.base, tiny_models.make_tokenizer(), folder)
    save_head(model, folder)
    return model


def test_every_weight_is_the_mean(tmp_path):
    models = [saved(tmp_path / str(i), seed=0, shift=shift) for i, shift in enumerate((0.0, 0.3, -0.6))]
    found = average_reward_models([tmp_path / str(i) for i in range(3)], device="cpu")
    for mean, *each in zip(found.parameters(), *(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(mean, sum(each) / 3)
    assert (found.mean, found.std, found.facts) == (0.0, 1.0, {})


def test_the_mean_of_heads_on_one_trunk_is_the_mean_of_scores(tmp_path):
    models = [saved(tmp_path / str(i), seed=i) for i in range(2)]
    layout = pack_trees(trees())
    found = average_reward_models([tmp_path / "0", tmp_path / "1"], device="cpu").scores(layout)
    torch.testing.assert_close(found, sum(model.scores(layout) for model in models) / 2)


def test_only_single_models_are_averaged(tmp_path):
    model = saved(tmp_path / "e", seed=0)
    saved(tmp_path / "e" / MEMBER_FOLDER.format(1), seed=1)
    model.readout = even_readout(["1", "2"])
    save_head(model, tmp_path / "e")
    with pytest.raises(ModelError, match="is an ensemble"):
        average_reward_models([tmp_path / "e"], device="cpu")


def test_an_ensemble_comes_back_with_its_members(tmp_path):
    """Normalised outputs of both trunks, their mean, and the mean less half their standard deviation."""
    first, second = saved(tmp_path, seed=0), saved(tmp_path / MEMBER_FOLDER.format(1), seed=1)
    readout = Readout(names=("1", "2"), means=(0.5, -1.0), stds=(2.0, 0.5), weights=(0.5, 0.5), is_ensemble=True)
    first.readout = readout
    save_head(first, tmp_path)
    again = load_head(tiny_models.load("llama"), tmp_path)
    layout = pack_trees(trees())
    z = torch.stack([(first.outputs(layout)[:, 0] - 0.5) / 2.0, (second.outputs(layout)[:, 0] + 1.0) / 0.5])
    torch.testing.assert_close(again.scores(layout), z.mean(dim=0))
    again.uncertainty_coef = 0.5
    torch.testing.assert_close(again.scores(layout), z.mean(dim=0) - 0.5 * (z[0] - z[1]).abs() / 2)
    assert not any(p.requires_grad for p in again.members[0].base.module.parameters())


def test_a_readout_by_hand():
    """Outputs 1 and 3, sd 1 about their mean 2: 2 - 0.5 * 1 = 1.5; attributes weigh 1 and -2: 1 - 6 = -5."""
    outputs = torch.tensor([[1.0, 3.0]])
    assert even_readout(["a", "b"]).scores(outputs, uncertainty_coef=0.5).tolist() == [1.5]
    attributes = Readout(names=("a", "b"), means=(0.0, 0.0), stds=(1.0, 1.0), weights=(1.0, -2.0), is_ensemble=False)
    assert attributes.scores(outputs).tolist() == [-5.0]


def test_damaged_readouts_are_one_line_errors(tmp_path):
    model = new_reward_head(tiny_models.load("llama"), seed=0, num_outputs=2)
    model.readout = Readout(names=("a", "b"), means=(0.0,), stds=(1.0, 1.0), weights=(1.0, 1.0), is_ensemble=False)
    save_head(model, tmp_path)
    with pytest.raises(ModelError, match=r"damaged head .*differ in length"):
        load_head(model.base, tmp_path)
