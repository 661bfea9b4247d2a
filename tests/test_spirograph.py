"""Generated Spirographs: the formula, its gradients, and the labels. Ranges and classes are read from the module."""

import itertools
import math

import pytest
import torch

from vmlite import datasets
from vmlite.datasets.synthetic import spirograph
from vmlite.datasets.synthetic.spirograph import CLASSES, RANGES, generate, render


def parameters_at(*shares: float) -> dict[str, torch.Tensor]:
    """One curve for each share, at that share of every range; colours go the other way, to tell the layers apart."""
    share = torch.tensor(shares, dtype=torch.float64)
    return {
        name: low + (high - low) * (1 - share if name.startswith("back") else share)
        for name, (low, high) in RANGES.items()
    }


def reference(p: dict[str, float], size: int, angle: float = 0.0, shift: tuple[float, float] = (0.0, 0.0)):
    """One image [channel][row][column] by plain loops: the formula of FACTS, section 3, turned and then moved."""
    points = []
    for i in range(40):
        t = 2 * math.pi * i / 39
        x = (p["m"] - p["h"]) * math.cos(t) + p["h"] * math.cos(t * (p["m"] - p["h"]) / p["b"])
        y = (p["m"] - p["h"]) * math.sin(t) - p["h"] * math.sin(t * (p["m"] - p["h"]) / p["b"])
        turned = (x * math.cos(angle) - y * math.sin(angle), x * math.sin(angle) + y * math.cos(angle))
        points.append((turned[0] + shift[0], turned[1] + shift[1]))
    ink = [[0.0] * size for _ in range(size)]
    for row, column in itertools.product(range(size), repeat=2):
        gx, gy = -6 + 12 * column / (size - 1), -6 + 12 * row / (size - 1)
        distances = [(gx - x) ** 2 + (gy - y) ** 2 for x, y in points]
        ink[row][column] = sum(math.exp(-d / p["sigma"]) for d in distances) / len(points)
    peak = max(max(line) for line in ink)
    return torch.tensor(
        [[[v / peak * p[f"fore_{c}"] + (1 - v / peak) * p[f"back_{c}"] for v in line] for line in ink] for c in "rgb"],
        dtype=torch.float64,
    )


def references(parameters, size, angle=None, shift=None):
    each = [{name: value[i].item() for name, value in parameters.items()} for i in range(len(parameters["m"]))]
    angles = [0.0] * len(each) if angle is None else angle.tolist()
    shifts = [(0.0, 0.0)] * len(each) if shift is None else shift.tolist()
    return torch.stack([reference(p, size, a, s) for p, a, s in zip(each, angles, shifts, strict=True)])


@pytest.mark.parametrize("size", [12, 32])
def test_render_is_the_formula(size):
    parameters = parameters_at(0.35, 0.6, 0.9)
    torch.testing.assert_close(render(parameters, size).double(), references(parameters, size), rtol=0, atol=1e-5)


def test_render_turns_and_then_moves():
    parameters = parameters_at(0.4, 0.7)
    angle = torch.tensor([0.7, -2.0], dtype=torch.float64)
    shift = torch.tensor([[1.0, -0.5], [-2.0, 1.5]], dtype=torch.float64)
    expected = references(parameters, 16, angle, shift)
    torch.testing.assert_close(render(parameters, 16, angle, shift).double(), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        render(parameters, 16, shift=shift).double(), references(parameters, 16, shift=shift), rtol=0, atol=1e-5
    )


def test_extreme_curves_are_finite_and_in_the_unit_interval():
    """Both ends of every range, in single precision."""
    corners = torch.tensor(list(itertools.product((0.0, 1.0), repeat=4)))
    parameters = {name: torch.full((16,), high) for name, (_, high) in RANGES.items()}
    for name, corner in zip(("m", "b", "h", "sigma"), corners.T, strict=True):
        low, high = RANGES[name]
        parameters[name] = low + (high - low) * corner
    images = render(parameters, 24)
    assert images.isfinite().all()
    assert images.min() >= 0
    assert images.max() <= 1 + 1e-6


def test_render_is_differentiable_in_every_parameter():
    parameters = {name: value.requires_grad_() for name, value in parameters_at(0.3, 0.8).items()}
    angle = torch.tensor([0.3, 1.0], dtype=torch.float64, requires_grad=True)
    shift = torch.tensor([[0.4, 0.1], [-0.3, 0.2]], dtype=torch.float64, requires_grad=True)
    inputs = (*parameters.values(), angle, shift)

    def image(*values):
        return render(dict(zip(parameters, values[:-2], strict=True)), 7, values[-2], values[-1])

    assert torch.autograd.gradcheck(image, inputs, atol=1e-4)
    weights = torch.rand(2, 3, 7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for gradient in torch.autograd.grad((image(*inputs) * weights).sum(), inputs):
        assert (gradient != 0).all()


def test_drawn_parameters_fill_their_ranges(generator):
    drawn = spirograph.draw_parameters(3000, generator)
    assert set(drawn) == set(RANGES)
    for name, (low, high) in RANGES.items():
        share = (drawn[name] - low) / (high - low)
        assert ((share >= -1e-6) & (share <= 1 + 1e-6)).all()
        assert (torch.histc(share, 4, 0, 1) / 3000 - 0.25).abs().max() < 0.05


def test_seed_decides_the_images():
    images, labels = generate(30, size=9, seed=5)
    again, labels_again = generate(30, size=9, seed=5)
    other, _ = generate(30, size=9, seed=6)
    assert torch.equal(images, again)
    assert torch.equal(labels, labels_again)
    assert not torch.equal(images, other)
    assert (images.shape, images.dtype) == ((30, 3, 9, 9), torch.uint8)


def test_global_randomness_plays_no_part():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    images, _ = generate(4, size=9, seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert torch.equal(generate(4, size=9, seed=5)[0], images)


@pytest.fixture
def rendered(monkeypatch):
    """What `generate` has rendered, collected over its calls: parameters, angle, shift and the exact images."""
    seen = {}

    def spy(parameters, size, angle, shift):
        images = render(parameters, size, angle, shift)
        for name, value in (parameters | {"angle": angle, "shift": shift, "images": images}).items():
            seen[name] = torch.cat([seen[name], value]) if name in seen else value
        return images

    monkeypatch.setattr(spirograph, "render", spy)
    return seen


def test_generated_images_are_renderings(rendered):
    """More than one block of them: each image is the curve of its own parameters, in the nearest of 256 levels."""
    images, _ = generate(1203, size=6, seed=1)
    assert rendered["images"].shape == images.shape
    assert (images / 255 - rendered["images"]).abs().max() <= 0.5 / 255 + 1e-5


def test_labels_are_equal_bins_of_the_parameters_their_names_say(rendered):
    """A class is called "m small, b large": each part a parameter and a level, the levels equal shares of its range."""
    labels = generate(2000, size=5, seed=0)[1]
    named = [dict(part.rsplit(" ", 1) for part in name.split(", ")) for name in CLASSES]
    assert len(set(CLASSES)) == len(CLASSES)
    for parameter in named[0]:
        low, high = RANGES[parameter]
        levels = list(dict.fromkeys(names[parameter] for names in named))
        assert levels == [level for level in ("small", "middle", "large") if level in levels]
        position = (rendered[parameter] - low) / (high - low) * len(levels)
        inner = (position - position.round()).abs() > 1e-4  # away from the bins' borders
        found = torch.tensor([levels.index(named[label][parameter]) for label in labels.tolist()])
        assert torch.equal(found[inner], position.floor().long()[inner])


def test_generated_curves_stay_within_the_papers_ranges_and_their_turn_and_move(rendered):
    generate(800, size=5, seed=4, turn=0.5, move=0.8)
    for name, (low, high) in RANGES.items():
        assert (rendered[name] >= low - 1e-6).all()
        assert (rendered[name] <= high + 1e-6).all()
    for name, bound in (("angle", 0.5), ("shift", 0.8)):
        assert -bound <= rendered[name].min() < -0.9 * bound
        assert 0.9 * bound < rendered[name].max() <= bound


def test_classes_are_roughly_balanced():
    counts = generate(1800, size=5, seed=3)[1].bincount(minlength=len(CLASSES))
    assert len(counts) == len(CLASSES)
    expected = 1800 / len(CLASSES)
    assert (counts / expected - 1).abs().max() < 0.3


def test_training_and_test_images_are_disjoint():
    train, test = datasets.load("spirograph", input_size=8, train_size=300, test_size=300, device="cpu")
    seen = {image.numpy().tobytes() for image in train.images}
    assert len(seen) == 300
    assert not any(image.numpy().tobytes() in seen for image in test.images)
    assert train.classes == test.classes == {"class": CLASSES}


def test_curves_are_turned_and_moved():
    """With neither, a centred curve results; `turn` and `move` change the images, but not the labels."""
    plain, labels = generate(20, size=9, seed=2, turn=0.0, move=0.0)
    for changed in ({"turn": 1.0, "move": 0.0}, {"turn": 0.0, "move": 1.0}):
        images, same = generate(20, size=9, seed=2, **changed)
        assert torch.equal(labels, same)
        assert (images != plain).flatten(1).any(1).all()
