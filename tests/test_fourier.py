"""Convolutions by Fourier transform against those of torch."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from vmlite import fourier
from vmlite.fourier import FEWEST, reflected_conv2d


def direct(x, weight, bias):
    return F.conv2d(F.pad(x, [weight.shape[-1] // 2] * 4, "reflect"), weight, bias)


def example(h, w, kernel=9, channels=FEWEST, outputs=FEWEST, dtype=torch.float64):
    generator = torch.Generator().manual_seed(h + 100 * w)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=dtype).requires_grad_()

    return draw(2, channels, h, w), draw(outputs, channels, kernel, kernel), draw(outputs)


@given(st.integers(5, 33), st.integers(5, 33), st.sampled_from([1, 3, 5, 9]), st.integers(0, 3))
def test_outputs_and_gradients_are_those_of_the_convolution(h, w, kernel, more):
    inputs = example(h, w, kernel, FEWEST + more, FEWEST + 2 * more)
    expected, found = direct(*inputs), reflected_conv2d(*inputs)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    gradient = torch.randn(expected.shape, dtype=expected.dtype)
    for ours, theirs in zip(*(torch.autograd.grad(y, inputs, gradient) for y in (found, expected)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


def test_in_float32_it_is_off_by_rounding_alone():
    inputs = example(16, 20, dtype=torch.float32)
    exact = direct(*(each.double() for each in inputs))
    off, usual = ((y - exact).abs().max() for y in (reflected_conv2d(*inputs), direct(*inputs)))
    assert 0 < off < 10 * usual


@pytest.mark.parametrize("why", ["few channels", "few outputs", "bf16", "compiled"])
def test_elsewhere_it_is_the_convolution_itself(why, monkeypatch):
    monkeypatch.setattr(fourier, "_spectrum", lambda *inputs: pytest.fail("transformed"))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: why == "compiled")
    channels, outputs = FEWEST - (why == "few channels"), FEWEST - (why == "few outputs")
    inputs = example(9, 7, channels=channels, outputs=outputs, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16, enabled=why == "bf16"):
        assert torch.equal(reflected_conv2d(*inputs), direct(*inputs))
