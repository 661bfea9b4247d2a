"""Noise keeps the viewmaker's budget; expert views stay images and differ from example to example."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vmlite.pretrain import seeded
from vmlite.viewmaker import NORMS, Viewmaker
from vmlite.views import Chain, ImageExpert, L1Noise, measure


def size(p, norm):
    flat = p.flatten(1).double().abs()
    return flat.amax(1) if norm == math.inf else (flat**norm).mean(1) ** (1 / norm)


@given(
    st.lists(st.integers(1, 7), min_size=2, max_size=4),
    st.integers(0, 2**31),
    st.sampled_from(NORMS),
    st.floats(1e-3, 10),
)
def test_noise_keeps_the_budget_before_the_clamp_and_the_range_after_it(shape, seed, norm, eps):
    torch.manual_seed(seed)
    x = torch.rand(shape, dtype=torch.double)
    view = L1Noise(eps, norm)(x)
    assert view.shape == x.shape
    torch.testing.assert_close(size(view - x, norm), torch.full((len(x),), eps).double(), rtol=1e-5, atol=0)
    clamped = L1Noise(eps, norm, clamp=(0, 1))(x)
    assert clamped.min() >= 0
    assert clamped.max() <= 1
    assert (size(clamped - x, norm) <= eps * (1 + 1e-6)).all()


def test_noise_is_fresh_unless_given():
    views, x = L1Noise(), torch.rand(2, 3, 8, 8)
    noise = views.draw_noise(x, torch.Generator().manual_seed(1))
    assert torch.equal(noise, views.draw_noise(x, torch.Generator().manual_seed(1)))
    assert not torch.equal(noise, views.draw_noise(x, torch.Generator().manual_seed(2)))
    assert torch.equal(views(x, noise), views(x, noise))
    assert not torch.equal(views(x), views(x))


def test_noise_is_gaussian_before_the_projection():
    noise = L1Noise().draw_noise(torch.zeros(4, 3, 64, 64))
    assert noise.mean().abs() < 0.03
    assert noise.std() == pytest.approx(1, abs=0.03)
    assert noise.abs().mean() == pytest.approx(math.sqrt(2 / math.pi), abs=0.02)


@pytest.mark.parametrize("first", [L1Noise(0.1), Viewmaker(width=4)])
def test_a_chain_makes_several_views_of_each_example_one_after_the_other(first):
    x = torch.rand(2, 3, 8, 8)
    with seeded("views"):
        made = Chain(first, nn.Hardtanh(0.2, 0.8))(x, count=3).detach()
    assert made.shape == (6, 3, 8, 8)
    assert (made.min(), made.max()) == (pytest.approx(0.2), pytest.approx(0.8))
    with seeded("views"):
        expected = torch.cat([first(x) for _ in range(3)]).clamp(0.2, 0.8)
    torch.testing.assert_close(made, expected)
    assert Chain(first)(x).shape == x.shape


@pytest.mark.parametrize("arguments", [{"eps": 0}, {"eps": "0.1"}, {"norm": 3}])
def test_refused_budgets_of_noise(arguments):
    with pytest.raises(ValueError, match="must be"):
        L1Noise(**arguments)


@pytest.mark.parametrize("kind", ["all", "crop-flip"])
@pytest.mark.parametrize("shape", [(8, 3, 32, 32), (8, 1, 28, 20), (4, 3, 12, 12), (4, 52, 9, 16)])
def test_expert_views_stay_images_with_parameters_of_their_own(kind, shape):
    torch.manual_seed(0)
    views = ImageExpert(shape[2:], shape[1], kind)
    x = torch.rand(1, *shape[1:]).expand(shape).contiguous()
    view = views(x)
    assert view.shape == x.shape
    assert view.dtype == x.dtype
    assert view.min() >= 0
    assert view.max() <= 1
    distances = torch.cdist(view.flatten(1), view.flatten(1)) + 100 * torch.eye(len(x))
    assert distances.min() > 1e-3
    assert not torch.equal(view, views(x))


def test_expert_views_stay_on_in_eval_mode():
    """The paper's probe runs views in eval mode and expects them to be drawn afresh all the same."""
    views, x = ImageExpert((12, 12)).eval(), torch.rand(4, 3, 12, 12)
    assert not torch.allclose(views(x), x, atol=0.01)
    assert not torch.equal(views(x), views(x))


def test_expert_views_follow_torchs_seed():
    views, x = ImageExpert((12, 12)), torch.rand(4, 3, 12, 12)
    torch.manual_seed(3)
    first = views(x)
    torch.manual_seed(3)
    assert torch.equal(views(x), first)


def test_crop_flip_keeps_each_images_colours():
    """Crop and flip of an image of one colour change nothing; the colour operations do."""
    x = torch.tensor([0.2, 0.5, 0.8])[None, :, None, None].expand(16, 3, 16, 16).contiguous()
    torch.manual_seed(0)
    torch.testing.assert_close(ImageExpert((16, 16), kind="crop-flip")(x), x)
    assert (ImageExpert((16, 16))(x) - x).abs().amax((1, 2, 3)).gt(0.02).float().mean() > 0.5


def test_flip_happens_to_half_the_images():
    torch.manual_seed(0)
    ramp = torch.linspace(0, 1, 16).expand(400, 3, 16, 16).contiguous()
    view = ImageExpert((16, 16), kind="crop-flip")(ramp)
    flipped = view[..., 0].mean((1, 2)) > view[..., -1].mean((1, 2))
    assert flipped.float().mean() == pytest.approx(0.5, abs=0.1)


def test_refused_kind():
    with pytest.raises(ValueError, match="'all' or 'crop-flip', got 'crop'"):
        ImageExpert((12, 12), kind="crop")


def test_every_kind_of_view_says_where_it_acts():
    assert L1Noise.domain == ImageExpert.domain == "input"


class Shift(nn.Module):
    def __init__(self, *shifts):
        super().__init__()
        self.shifts = iter(shifts)

    def forward(self, x):
        return (x + next(self.shifts)).clamp(0, 1)


def test_measure_of_known_views():
    x = torch.tensor([[0.0, 0.25, 0.5, 0.75]])
    made = measure(Shift(0.25, -0.25), x)
    assert made["budget"] == pytest.approx(0.25)
    assert made["clamped"] == pytest.approx(1 / 4)  # 0.75 arrives at 1; the 0 that was there does not count
    assert made["difference"] == pytest.approx((0.25 + 0.5 + 0.5 + 0.5) / 4)
    assert measure(Shift(0.25, 0.25), x)["difference"] == 0
    assert measure(Shift(-0.5, 0), x, norm=math.inf)["budget"] == pytest.approx(0.5)
    assert measure(Shift(-0.5, 0), x, norm=2)["budget"] == pytest.approx(math.sqrt((0.25**2 + 2 * 0.5**2) / 4))
