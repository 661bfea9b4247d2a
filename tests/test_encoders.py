"""The encoders are torchvision's networks, with another stem, normalisation inside and a head."""

import pytest
import torch
import torchvision
from torch import nn

from vmlite.encoders import ENCODERS, resnet18, resnet50


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("name", "dim"), [("resnet18", 512), ("resnet50", 2048)])
@pytest.mark.parametrize("stem", ["small", "standard"])
def test_width_64_has_torchvisions_parameters_apart_from_the_ends(name, dim, stem):
    with torch.device("meta"):
        theirs = getattr(torchvision.models, name)()
    ours = ENCODERS[name](stem=stem)
    kernel = 3 if stem == "small" else 7
    assert ours.feature_dim == dim
    assert count(ours.head) == dim * 128 + 128
    assert ours.net.conv1.weight.shape == (64, 3, kernel, kernel)
    assert count(ours) - count(ours.head) - count(ours.net.conv1) == (
        count(theirs) - count(theirs.fc) - count(theirs.conv1)
    )


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_standard_stem_with_torchvisions_weights_gives_torchvisions_features(name):
    torch.manual_seed(0)
    theirs = getattr(torchvision.models, name)()
    theirs.fc = nn.Identity()
    x = torch.randn(2, 3, 40, 48)
    theirs(x)  # fills batch norm's running statistics with something particular
    ours = ENCODERS[name](stem="standard")
    ours.net.load_state_dict(theirs.state_dict())
    assert torch.allclose(ours.train().features(x), theirs.train()(x), rtol=1e-4, atol=1e-5)
    assert torch.allclose(ours.eval().features(x), theirs.eval()(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("build", "growth"), [(resnet18, 8), (resnet50, 32)])
@pytest.mark.parametrize("channels", [1, 3, 52])
def test_any_channels_and_pooled_features_are_the_mean_of_prepool_features(build, growth, channels):
    encoder = build(channels, width=4).eval()
    x = torch.rand(2, channels, 17, 24)
    maps = encoder.feature_maps(x)
    assert maps.shape == (2, growth * 4, 3, 3)
    flat, pooled = encoder.features(x, pool=False), encoder.features(x)
    assert torch.equal(flat, maps.flatten(1))
    torch.testing.assert_close(pooled, flat.view(2, growth * 4, 9).mean(2))
    assert encoder(x).shape == (2, 128)


def test_feature_map_sizes_of_the_two_stems():
    x = torch.rand(1, 3, 32, 32)
    assert resnet18(width=4).eval().feature_maps(x).shape == (1, 32, 4, 4)
    assert resnet18(width=4, stem="standard").eval().feature_maps(x).shape == (1, 32, 1, 1)


def test_heads():
    x = torch.rand(4, 3, 8, 8)
    linear = resnet18(width=4, embedding_dim=5).eval()
    assert isinstance(linear.head, nn.Linear)
    torch.testing.assert_close(linear(x), linear.features(x) @ linear.head.weight.T + linear.head.bias)
    mlp = resnet18(width=4, embedding_dim=5, head="mlp").eval()
    first, act, last = mlp.head
    assert (first.weight.shape, last.weight.shape) == ((32, 32), (5, 32))
    assert isinstance(act, nn.ReLU)
    torch.testing.assert_close(mlp(x), last(first(mlp.features(x)).relu()))


def test_normalisation_inside_equals_normalising_outside():
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.25, 0.5]
    inside, outside = resnet18(width=4, mean=mean, std=std), resnet18(width=4)
    weights = {k: v for k, v in inside.state_dict().items() if k not in ("mean", "std")}
    outside.load_state_dict(weights, strict=False)
    x = torch.rand(4, 3, 8, 8)
    normalised = torchvision.transforms.functional.normalize(x, mean, std)
    torch.testing.assert_close(inside(x), outside(normalised))
    assert not torch.allclose(inside(x), outside(x), atol=1e-3)


def test_statistics_belong_to_the_state_and_are_copies():
    mean = torch.tensor([0.4, 0.5, 0.6])
    encoder = resnet18(width=4, mean=mean, std=torch.ones(3))
    mean.zero_()
    assert encoder.state_dict()["mean"].flatten().tolist() == pytest.approx([0.4, 0.5, 0.6])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"stem": "tiny"}, "stem must be one of small, standard, got 'tiny'"),
        ({"head": "none"}, "head must be one of linear, mlp, got 'none'"),
        ({"mean": [0.5]}, "one value for each of the 3 channels"),
        ({"std": [1.0, 1.0]}, "one value for each of the 3 channels"),
    ],
)
def test_error_texts(arguments, text):
    with pytest.raises(ValueError, match=text):
        resnet18(3, width=4, **arguments)


def test_initial_weights_follow_he():
    """Kaiming's normal initialisation over the fan out, and batch norm as the identity."""
    torch.manual_seed(0)
    encoder = resnet18(width=64)
    for name, p in encoder.net.named_parameters():
        if p.ndim == 4:
            expected = (2 / (p.shape[0] * p.shape[2] * p.shape[3])) ** 0.5
            assert float(p.detach().std()) == pytest.approx(expected, rel=0.05), name
        else:
            assert (p == (1 if name.endswith("weight") else 0)).all(), name
