"""Algorithm 1: the budget holds exactly, noise decides everything, and the network is the released one."""

import math

import numpy as np
import pytest
import scipy.fft
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vmlite.pretrain import seeded
from vmlite.viewmaker import NORMS, Viewmaker, dct2, perturb, project

SHAPES = st.lists(st.integers(1, 7), min_size=2, max_size=4).map(tuple)
SEEDS = st.integers(0, 2**31)
EPS = st.floats(1e-4, 10)


def size(p, norm):
    """mean(|p|**norm)**(1/norm) of each example, straight from the contract, in float64."""
    flat = p.detach().flatten(1).double().abs()
    return flat.amax(1) if norm == math.inf else (flat**norm).mean(1) ** (1 / norm)


def normal(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@given(SHAPES, SEEDS, st.sampled_from(NORMS), EPS, st.floats(-30, 30))
def test_project_meets_the_budget_exactly(shape, seed, norm, eps, exponent):
    p = normal(shape, seed) * 10.0**exponent
    projected = project(p, eps, norm)
    assert projected.shape == p.shape
    torch.testing.assert_close(size(projected, norm), torch.full((len(p),), eps).double(), rtol=1e-5, atol=0)


@given(SHAPES, SEEDS, st.sampled_from(NORMS), EPS, st.sampled_from([torch.float16, torch.bfloat16]))
def test_project_computes_half_precision_in_float32(shape, seed, norm, eps, dtype):
    p = normal(shape, seed).to(dtype)
    p[p == 0] = 1
    projected = project(p, eps, norm)
    assert projected.dtype == torch.float32
    torch.testing.assert_close(size(projected, norm), torch.full((len(p),), eps).double(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("norm", NORMS)
def test_project_of_large_half_precision_does_not_overflow(norm):
    """The squares and sums of these exceed float16, whose largest number is 65504."""
    p = torch.full((2, 3, 16, 16), 60000.0, dtype=torch.float16)
    torch.testing.assert_close(project(p, 0.05, norm), torch.full(p.shape, 0.05))


@given(SEEDS, st.sampled_from(NORMS), st.floats(1e-3, 1e3))
def test_project_keeps_the_direction_and_forgets_the_length(seed, norm, factor):
    p = normal((3, 2, 5), seed)
    projected = project(p, 0.1, norm)
    torch.testing.assert_close(projected, project(factor * p, 0.1, norm), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(F.cosine_similarity(projected.flatten(1), p.flatten(1)), torch.ones(3))


def test_project_gives_each_example_its_own_scale():
    p = normal((4, 3, 5, 5), 0) * torch.tensor([1e-20, 1.0, 1e5, 1e20])[:, None, None, None]
    together = project(p, 0.05)
    for i in range(4):
        torch.testing.assert_close(together[i : i + 1], project(p[i : i + 1], 0.05))


@pytest.mark.parametrize("norm", NORMS)
def test_project_leaves_an_all_zero_example_zero_without_nan(norm):
    p = normal((3, 2, 4), 0)
    p[1] = 0
    p.requires_grad_()
    projected = project(p, 0.05, norm)
    assert (projected[1] == 0).all()
    torch.testing.assert_close(size(projected[::2], norm), torch.full((2,), 0.05).double(), rtol=1e-5, atol=0)
    (projected * normal((3, 2, 4), 1)).sum().backward()
    assert p.grad.isfinite().all()


@pytest.mark.parametrize("norm", NORMS)
def test_gradient_of_project(norm):
    p = normal((3, 2, 4), 3).double()
    p = (p + 0.1 * p.sign()).requires_grad_()  # away from the kink of |p| at zero
    assert torch.autograd.gradcheck(lambda p: project(p, 0.3, norm), p)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("exponent", [-25, 0, 25])
def test_gradient_of_project_is_orthogonal_to_p(norm, exponent):
    """The length of p does not matter, so moving along p changes nothing, whatever the magnitude of p."""
    p = (normal((2, 6), 0) * 10.0**exponent).requires_grad_()
    (project(p, 0.05, norm) * normal((2, 6), 1)).sum().backward()
    assert (p.grad * 10.0**exponent).abs().amax() > 1e-3
    assert F.cosine_similarity(p.grad * 10.0**exponent, p.detach() / 10.0**exponent).abs().max() < 1e-5


@pytest.mark.parametrize("eps", [0, -0.1, math.nan, math.inf, "0.05", True, None])
def test_refused_budgets(eps):
    with pytest.raises(ValueError, match="eps must be a positive number"):
        project(torch.ones(1, 2), eps)
    with pytest.raises(ValueError, match="eps must be a positive number"):
        Viewmaker(eps=eps)


@pytest.mark.parametrize("norm", [3, 0, -1, "2", math.nan])
def test_refused_norms(norm):
    with pytest.raises(ValueError, match="norm must be one of 1, 2, inf"):
        project(torch.ones(1, 2), 0.05, norm)
    with pytest.raises(ValueError, match="norm must be one of 1, 2, inf"):
        Viewmaker(norm=norm)


def test_perturb_adds_then_clamps():
    x, p = torch.tensor([[0.0, 0.5, 1.0]]), torch.tensor([[-1.0, 1.0, 1.0]])
    torch.testing.assert_close(perturb(x, p, 0.2), torch.tensor([[-0.2, 0.7, 1.2]]))
    torch.testing.assert_close(perturb(x, p, 0.2, clamp=(0, 1)), torch.tensor([[0.0, 0.7, 1.0]]))
    torch.testing.assert_close(perturb(x, p, 0.2, clamp=(-0.1, 1.1)), torch.tensor([[-0.1, 0.7, 1.1]]))


@given(SEEDS, st.sampled_from(NORMS), EPS, st.integers(5, 14), st.integers(5, 14))
def test_views_keep_the_budget_before_the_clamp_and_the_range_after_it(seed, norm, eps, height, width):
    torch.manual_seed(seed)
    x = torch.rand(2, 3, height, width, dtype=torch.double)
    viewmaker = Viewmaker(3, eps, norm, width=2).double()
    torch.testing.assert_close(size(viewmaker(x) - x, norm), torch.full((2,), eps).double(), rtol=1e-5, atol=0)
    viewmaker.clamp = (0.0, 1.0)
    view = viewmaker(x)
    assert view.min() >= 0
    assert view.max() <= 1
    assert (size(view - x, norm) <= eps * (1 + 1e-6)).all()


@pytest.mark.parametrize("sides", [(5, 5), (9, 20), (20, 31), (7, 100)])
@pytest.mark.parametrize("channels", [1, 3, 52])
def test_any_sides_and_channels(sides, channels):
    x = torch.rand(2, channels, *sides)
    view = Viewmaker(channels, width=4)(x)
    assert view.shape == x.shape
    torch.testing.assert_close(size(view - x, 1), torch.full((2,), 0.05).double(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (2, 3, 4, 8), (2, 3, 8, 4), (3, 8, 8), (2, 3, 8)])
def test_refused_inputs(shape):
    with pytest.raises(ValueError, match=r"takes \(N, 3, H, W\) with sides of at least 5, got"):
        Viewmaker(3, width=2)(torch.rand(shape))


def test_fresh_noise_differs_and_passed_noise_repeats():
    viewmaker, x = Viewmaker(width=4), torch.rand(2, 3, 12, 12)
    noise = viewmaker.draw_noise(x)
    assert not torch.equal(viewmaker(x), viewmaker(x))
    assert torch.equal(viewmaker(x, noise), viewmaker(x, noise=noise))
    assert not torch.equal(viewmaker(x, noise), viewmaker(x))


def test_two_copies_of_an_image_in_one_batch_get_different_views():
    view = Viewmaker(width=4)(torch.rand(1, 3, 12, 12).expand(2, -1, -1, -1))
    assert (view[0] - view[1]).abs().max() > 1e-3


def test_draw_noise_is_reproducible_uniform_and_of_the_right_shapes():
    viewmaker, x = Viewmaker(width=4, blocks=2), torch.rand(64, 3, 9, 20)
    first, again, other = (viewmaker.draw_noise(x, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert [n.shape for n in first] == [(64, 1, 9, 20), (64, 1, 3, 5), (64, 1, 3, 5)]
    for a, b, c in zip(first, again, other, strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
        assert a.min() >= 0
        assert a.max() < 1
        assert a.mean() == pytest.approx(0.5, abs=0.05)


def test_each_noise_map_matters():
    viewmaker, x = Viewmaker(width=4), torch.rand(2, 3, 12, 12)
    noise = viewmaker.draw_noise(x)
    view = viewmaker(x, noise)
    for i in range(4):
        changed = [1 - n if i == j else n for j, n in enumerate(noise)]
        assert (viewmaker(x, changed) - view).abs().max() > 1e-4


@pytest.mark.parametrize("options", [{}, {"frequency_domain": True}, {"downsample_to": (9, 10)}, {"clamp": (0.0, 1.0)}])
def test_several_views_at_once_are_those_of_as_many_calls(options):
    viewmaker, x = Viewmaker(width=4, **options).double(), torch.rand(2, 3, 12, 14).double()
    noises = [[n.double() for n in viewmaker.draw_noise(x)] for _ in range(3)]
    expected = torch.cat([viewmaker(x, noise) for noise in noises])
    together = viewmaker(x, [torch.cat(maps) for maps in zip(*noises, strict=True)], count=3)
    torch.testing.assert_close(together, expected)
    with seeded("views"):
        fresh = viewmaker.float()(x.float(), count=3)
    with seeded("views"):
        torch.testing.assert_close(fresh, torch.cat([viewmaker(x.float()) for _ in range(3)]))
    assert (fresh[:2] - fresh[2:4]).abs().max() > 1e-3


def test_the_gradient_of_several_views_is_the_sum_of_each_ones():
    viewmaker, x = Viewmaker(width=4).double(), torch.rand(2, 3, 12, 12, requires_grad=True, dtype=torch.double)
    noises = [[n.double() for n in viewmaker.draw_noise(x)] for _ in range(2)]
    weights = torch.randn(4, 3, 12, 12).double()
    inputs = [x, *viewmaker.parameters()]
    apart = torch.cat([viewmaker(x, noise) for noise in noises])
    together = viewmaker(x, [torch.cat(maps) for maps in zip(*noises, strict=True)], count=2)
    expected, found = (torch.autograd.grad((views * weights).sum(), inputs) for views in (apart, together))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("count", "rows"), [(1, 4), (2, 2), (2, 3)])
def test_noise_for_another_number_of_views_is_refused(count, rows):
    viewmaker, x = Viewmaker(width=4), torch.rand(2, 3, 12, 12)
    noise = viewmaker.draw_noise(torch.rand(rows, 3, 12, 12))
    with pytest.raises(ValueError, match=f"{count} views of 2 examples need noise for {2 * count}, got {rows}"):
        viewmaker(x, noise, count)


def test_the_first_convolution_sees_input_and_noise_joined():
    viewmaker, x = Viewmaker(5, width=4).double(), torch.rand(2, 5, 9, 11).double()
    noise = torch.rand(2, 1, 9, 11).double()
    torch.testing.assert_close(viewmaker._first(x, noise), viewmaker.down[0](torch.cat([x, noise], 1)))


def test_noise_scale():
    x = torch.rand(2, 3, 12, 12)
    still = Viewmaker(width=4, noise_scale=0.0)
    assert torch.equal(still(x), still(x))
    assert 2.5 < Viewmaker(width=4, noise_scale=3.0).draw_noise(x)[0].max() < 3


def test_examples_do_not_influence_each_other_and_mode_does_not_matter():
    viewmaker, x = Viewmaker(width=4).double(), torch.rand(3, 3, 12, 12).double()
    noise = viewmaker.draw_noise(x)
    together = viewmaker(x, noise)
    for i in range(3):
        alone = viewmaker(x[i : i + 1], [n[i : i + 1] for n in noise])
        torch.testing.assert_close(alone, together[i : i + 1])
    assert torch.equal(viewmaker.eval()(x, noise), together)


def test_gradient_reaches_every_convolution_and_the_input():
    viewmaker, x = Viewmaker(width=4), torch.rand(2, 3, 12, 12, requires_grad=True)
    (viewmaker(x) * torch.randn(2, 3, 12, 12)).sum().backward()
    weights = [p for p in viewmaker.parameters() if p.ndim == 4]
    assert len(weights) == 3 + 2 * 3 + 2 + 1
    assert all(w.grad.abs().max() > 0 for w in weights)
    assert x.grad.abs().min() > 0


def parameters_by_hand(c, width, blocks):
    """FACTS, section 1: convolutions with bias, each but the last with an affine norm."""
    wide = 4 * width

    def conv(a, b, k):
        return a * b * k * k + b

    def normed(a, b, k):
        return conv(a, b, k) + 2 * b

    down = normed(c + 1, width, 9) + normed(width, 2 * width, 3) + normed(2 * width, wide, 3)
    residual = sum(2 * normed(wide + 1 + i, wide + 1 + i, 3) for i in range(blocks))
    return down + residual + normed(wide + blocks, 2 * width, 3) + normed(2 * width, width, 3) + conv(width, c, 9)


def test_the_released_networks_parameter_count():
    """The paper's size, 1.12 M trainable parameters: 1,120,131 exactly."""
    count = sum(p.numel() for p in Viewmaker(3, width=32, blocks=3).parameters() if p.requires_grad)
    assert count == parameters_by_hand(3, 32, 3) == 1_120_131
    assert count == pytest.approx(1.12e6, rel=0.01)


@pytest.mark.parametrize("blocks", range(6))
def test_number_of_blocks(blocks):
    viewmaker, x = Viewmaker(2, width=4, blocks=blocks), torch.rand(2, 2, 10, 11)
    assert viewmaker(x).shape == x.shape
    assert len(viewmaker.draw_noise(x)) == 1 + blocks
    assert sum(p.numel() for p in viewmaker.parameters()) == parameters_by_hand(2, 4, blocks)


@pytest.mark.parametrize("blocks", [-1, 6])
def test_refused_numbers_of_blocks(blocks):
    with pytest.raises(ValueError, match="blocks must be 0 to 5"):
        Viewmaker(blocks=blocks)


def test_leaky_relu():
    with pytest.raises(ValueError, match="'relu' or 'leaky_relu', got 'gelu'"):
        Viewmaker(activation="gelu")
    x = torch.rand(2, 3, 12, 12)
    plain, leaky = Viewmaker(width=4), Viewmaker(width=4, activation="leaky_relu")
    leaky.load_state_dict(plain.state_dict())
    assert not any(isinstance(m, nn.ReLU) for m in leaky.modules())
    noise = plain.draw_noise(x)
    assert not torch.allclose(plain(x, noise), leaky(x, noise))
    for module in leaky.modules():
        if isinstance(module, nn.LeakyReLU):
            module.negative_slope = 0.0
    torch.testing.assert_close(plain(x, noise), leaky(x, noise))


def twins(**option):
    torch.manual_seed(0)
    special, plain = Viewmaker(width=4, **option).double(), Viewmaker(width=4).double()
    plain.load_state_dict(special.state_dict())
    return special, plain, torch.rand(2, 3, 12, 15, dtype=torch.double)


def test_frequency_domain_sees_and_perturbs_the_cosine_transform():
    special, plain, x = twins(frequency_domain=True)
    noise = special.draw_noise(x)
    spectrum = torch.from_numpy(scipy.fft.dctn(x.numpy(), axes=(2, 3), norm="ortho"))
    expected = scipy.fft.idctn(plain.generate(spectrum, noise).detach().numpy(), axes=(2, 3), norm="ortho")
    np.testing.assert_allclose(special.generate(x, noise).detach().numpy(), expected, atol=1e-9)


def test_downsample_to_works_at_the_lower_resolution():
    special, plain, x = twins(downsample_to=(6, 7))
    noise = special.draw_noise(x)
    assert [n.shape[2:] for n in noise] == [(6, 7), (2, 2), (2, 2), (2, 2)]
    small = plain.generate(F.interpolate(x, (6, 7), mode="bilinear"), noise)
    expected = F.interpolate(small, (12, 15), mode="bilinear")
    torch.testing.assert_close(special.generate(x, noise), expected)
    torch.testing.assert_close(size(special(x, noise) - x, 1), torch.full((2,), 0.05).double())


@given(SEEDS, st.integers(1, 12), st.integers(1, 12))
def test_dct2_is_scipys_orthonormal_transform(seed, height, width):
    x = normal((2, 3, height, width), seed).double()
    spectrum = dct2(x)
    np.testing.assert_allclose(spectrum.numpy(), scipy.fft.dctn(x.numpy(), axes=(2, 3), norm="ortho"), atol=1e-10)
    torch.testing.assert_close(dct2(spectrum, inverse=True), x)
    torch.testing.assert_close(spectrum.square().sum(), x.square().sum())
