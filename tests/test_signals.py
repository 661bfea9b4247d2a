"""Pictures of sensors: the shares are right, and each figure holds what it should."""

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import same_color

from vmlite.show.pictures import COLOURS, PINK
from vmlite.show.signals import KINDS, LIMBS, channel_grid, curves, shares, where_it_changes

SENSORS = [k for k in KINDS if k not in ("temperature", "orientation")]
PER_LIMB = ["temperature", *(f"{s} {a}" for s in SENSORS for a in "xyz"), *(f"orientation {i}" for i in "1234")]
CHANNELS = ("heart rate", *(f"{limb} {name}" for limb in ("hand", "chest", "ankle") for name in PER_LIMB))
C, S = 52, 32
SHOWN = ("ankle magnetometer x", "heart rate", "chest acceleration 16g z")
ROWS = [CHANNELS.index(name) for name in SHOWN]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def texts(figure):
    """All that is written on the figure once drawn, with its box."""
    FigureCanvasAgg(figure).draw()
    found = [figure._suptitle] if figure._suptitle else []
    for axes in figure.axes:
        found += [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            places = axis.get_majorticklocs()
            found += [t for t, x in zip(axis.get_majorticklabels(), places, strict=False) if low <= x <= high]
    for legend in figure.legends:
        found += legend.get_texts()
    return [(t.get_text(), t.get_window_extent()) for t in found if t.get_text() and t.get_visible()]


def assert_readable(figure):
    """No text overlaps another or leaves the figure."""
    boxes = texts(figure)
    assert not [(a, b) for i, (a, box) in enumerate(boxes) for b, other in boxes[:i] if box.overlaps(other)]
    for text, box in boxes:
        assert -1 <= box.x0 <= box.x1 <= figure.bbox.width + 1, text
        assert -1 <= box.y0 <= box.y1 <= figure.bbox.height + 1, text
    assert figure.get_figwidth() < 10.6


# curves


def windows(*names, length=1000):
    return {name: 10 * torch.randn(C, length) for name in names}


SIX = ("lying", "Nordic walking", "descending stairs", "vacuum cleaning", "ironing", "rope jumping")


def test_curves_are_the_samples_over_seconds():
    six = windows(*SIX)
    figure = curves(six, CHANNELS, SHOWN)
    assert not plt.get_fignums()
    axes = np.array(figure.axes).reshape(3, 6)
    for axis_row, row in zip(axes, ROWS, strict=True):
        for axis, window in zip(axis_row, six.values(), strict=True):
            [line] = axis.lines
            np.testing.assert_array_equal(line.get_ydata(), window[row])
            np.testing.assert_allclose(line.get_xdata(), np.arange(1000) / 100)
            assert axis.get_xlim() == (0, 10)
            assert axis.get_ylim() == axis_row[0].get_ylim()
    assert axes[0, 0].get_ylim() != axes[1, 0].get_ylim()
    assert [axis.get_title().replace("\n", " ") for axis in axes[0]] == list(SIX)


def test_curves_have_units_and_colours_by_limb():
    figure = curves(windows("walking"), CHANNELS, (*SHOWN, "hand gyroscope x", "hand orientation 1"))
    assert [axis.get_ylabel() for axis in figure.axes] == ["µT", "bpm", "m/s²", "rad/s", ""]
    names = [axis.texts[0].get_text().replace("\n", " ") for axis in figure.axes]
    assert names == [*SHOWN, "hand gyroscope x", "hand orientation 1"]
    colours = [axis.lines[0].get_color() for axis in figure.axes]
    assert colours == [COLOURS[2], COLOURS[3], COLOURS[1], COLOURS[0], COLOURS[0]]
    assert [axis.get_xlabel() for axis in figure.axes] == ["", "", "", "", "time (s)"]


def test_curves_at_another_rate():
    [axis] = curves(windows("walking", length=100), CHANNELS, ["heart rate"], rate=20).axes
    assert axis.get_xlim() == (0, 5)


@pytest.mark.parametrize(("activities", "shown"), [(SIX, SHOWN), (SIX[:4], (*SHOWN, "chest temperature"))])
def test_curves_are_readable(activities, shown):
    assert_readable(curves(windows(*activities), CHANNELS, shown))


def test_curves_of_wrong_shapes():
    with pytest.raises(ValueError, match=r"window 'lying' must be \(52, T\), got \(51, 9\)"):
        curves({"lying": torch.zeros(51, 9)}, CHANNELS, SHOWN)
    with pytest.raises(ValueError, match=r"got \(1, 52, 9\)"):
        curves({"lying": torch.zeros(1, 52, 9)}, CHANNELS, SHOWN)


@pytest.mark.parametrize("draw", [lambda shown: curves(windows("a"), CHANNELS, shown), lambda shown: grid(shown=shown)])
def test_channels_that_are_not_there(draw):
    with pytest.raises(ValueError, match=r"no channel head temperature; there are heart rate, hand temperature"):
        draw(["heart rate", "head temperature"])
    with pytest.raises(ValueError, match="no channel is shown"):
        draw([])


# channel_grid


def grid(count=3, shown=SHOWN, size=(S, S), **arguments):
    x = torch.randn(C, *size)
    views = x + 0.5 * torch.randn(count, C, *size)
    return x, views, channel_grid(x, views, CHANNELS, shown, **arguments)


def test_grid_shows_original_views_and_perturbations():
    x, views, figure = grid(2, title="walking")
    axes = np.array(figure.axes[:-2]).reshape(3, 5)
    for axis_row, row in zip(axes, ROWS, strict=True):
        images = [np.asarray(axis.images[0].get_array()) for axis in axis_row]
        np.testing.assert_array_equal(images[0], x[row])
        for v in range(2):
            np.testing.assert_array_equal(images[1 + v], views[v, row])
            np.testing.assert_array_equal(images[3 + v], views[v, row] - x[row])
        assert [same_color(axis.spines["left"].get_edgecolor(), PINK) for axis in axis_row] == [True] + 4 * [False]
    titles = ["original", *(f"view {v}" for v in "12"), *(f"perturbation {v}" for v in "12")]
    assert [axis.get_title() for axis in axes[0]] == titles
    assert figure.get_suptitle() == "walking"


def test_grid_has_one_scale_for_levels_and_one_symmetric_scale_for_perturbations():
    x, views, figure = grid(2)
    axes = np.array(figure.axes[:-2]).reshape(3, 5)
    levels = torch.cat([x[None], views])[:, ROWS]
    limit = (views - x)[:, ROWS].abs().max().item()
    for axis in axes[:, :3].flat:
        assert axis.images[0].get_clim() == pytest.approx((levels.min().item(), levels.max().item()))
    for axis in axes[:, 3:].flat:
        assert axis.images[0].get_clim() == pytest.approx((-limit, limit))
    assert [bar.get_xlabel() for bar in figure.axes[-2:]] == ["level (normalised)", "perturbation (normalised)"]


def test_grid_is_labelled_in_hertz_and_seconds_on_its_outer_edges():
    _, _, figure = grid(1)
    FigureCanvasAgg(figure).draw()
    axes = np.array(figure.axes[:-2]).reshape(3, 3)
    for (row, column), axis in np.ndenumerate(axes):
        assert axis.get_ylabel() == ("Hz" if column == 0 else "")
        assert axis.get_xlabel() == ("time (s)" if row == 2 else "")
        assert any(label.get_visible() for label in axis.get_yticklabels()) == (column == 0)
        assert any(label.get_visible() for label in axis.get_xticklabels()) == (row == 2)
        assert axis.images[0].origin == "lower"
    left, right, bottom, top = axes[0, 0].images[0].get_extent()
    assert (left, right) == pytest.approx((-0.16, 9.92 + 0.16))
    assert (bottom, top) == pytest.approx((-50 / 63, 50))


def test_grid_of_other_sizes_has_its_own_hertz_and_seconds():
    _, _, figure = grid(1, size=(9, 20), seconds=4, rate=50)
    assert figure.axes[0].images[0].get_extent() == pytest.approx((-0.1, 3.9, -25 / 17, 25))


@pytest.mark.parametrize("count", [1, 4])
def test_grid_is_readable(count):
    _, _, figure = grid(count, SHOWN[:2], title="walking: what the viewmaker changes")
    assert_readable(figure)


def test_grid_of_views_that_change_nothing():
    x = torch.randn(C, S, S).requires_grad_()
    assert channel_grid(x, x[None], CHANNELS, SHOWN).axes[2].images[0].get_clim() == (-1, 1)


@pytest.mark.parametrize(
    ("x", "views"),
    [
        (torch.zeros(51, 4, 4), torch.zeros(1, 51, 4, 4)),
        (torch.zeros(1, 52, 4, 4), torch.zeros(1, 1, 52, 4, 4)),
        (torch.zeros(52, 4, 4), torch.zeros(52, 4, 4)),
        (torch.zeros(52, 4, 4), torch.zeros(0, 52, 4, 4)),
        (torch.zeros(52, 4, 4), torch.zeros(1, 52, 4, 5)),
    ],
)
def test_grid_of_wrong_shapes(x, views):
    with pytest.raises(ValueError, match=r"x must be \(52, S, S\).* views \(V, 52, S, S\)"):
        channel_grid(x, views, CHANNELS, SHOWN)


# shares


def test_an_even_change_has_share_one_everywhere():
    signs = torch.randint(2, (3, C, 8, 8)) * 2.0 - 1
    for name, values in shares(0.3 * signs, CHANNELS).items():
        torch.testing.assert_close(values, torch.ones_like(values), msg=name)


def test_all_change_in_one_channel():
    change = torch.zeros(2, C, 8, 8)
    where = CHANNELS.index("chest gyroscope y")
    change[:, where] = 0.1
    found = shares(change, CHANNELS)
    torch.testing.assert_close(found["channel"], torch.zeros(C).index_fill(0, torch.tensor(where), C))
    expected = torch.zeros(4, 6)
    expected[list(LIMBS).index("chest"), list(KINDS).index("gyroscope")] = C / 3
    torch.testing.assert_close(found["sensor"], expected)
    torch.testing.assert_close(found["frequency"], torch.ones(8))
    expected = torch.zeros(4, 8)
    expected[1] = C / 17
    torch.testing.assert_close(found["limb frequency"], expected)
    torch.testing.assert_close(found["limb moment"], expected)


def test_all_change_in_the_heart_rate_fills_its_row():
    change = torch.zeros(1, C, 4, 4)
    change[:, 0] = -1
    expected = torch.zeros(4, 6)
    expected[3] = C
    torch.testing.assert_close(shares(change, CHANNELS)["sensor"], expected)


def test_rows_are_frequencies_and_columns_moments():
    change = torch.zeros(1, C, 4, 5)
    change[:, :, 1] = 1
    found = shares(change, CHANNELS)
    torch.testing.assert_close(found["frequency"], torch.tensor([0.0, 4, 0, 0]))
    torch.testing.assert_close(found["moment"], torch.ones(5))
    torch.testing.assert_close(found["limb frequency"], torch.tensor([0.0, 4, 0, 0]).expand(4, 4))
    torch.testing.assert_close(found["limb moment"], torch.ones(4, 5))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**16), st.floats(1e-3, 1e3))
def test_shares_average_to_one_and_know_neither_scale_sign_nor_order(seed, scale):
    generator = torch.Generator().manual_seed(seed)
    change = torch.randn(2, C, 4, 6, generator=generator) ** 3
    found = shares(change, CHANNELS)
    for name in ("channel", "frequency", "moment"):
        assert found[name].mean().item() == pytest.approx(1, abs=1e-4)
    counts = torch.tensor([[1, 3, 3, 3, 3, 4]] * 3 + [[1 / 6] * 6])
    assert (found["sensor"] * counts).sum().item() == pytest.approx(C, abs=1e-2)
    order = torch.randperm(C, generator=generator)
    again = shares(-scale * change[:, order], [CHANNELS[i] for i in order])
    torch.testing.assert_close(again.pop("channel"), found.pop("channel")[order], rtol=1e-3, atol=1e-4)
    for name, values in again.items():
        torch.testing.assert_close(values, found[name], rtol=1e-3, atol=1e-4)


def test_groups_without_a_channel_are_nan():
    found = shares(torch.ones(1, 2, 4, 4), ["hand gyroscope x", "heart rate"])["sensor"]
    expected = torch.full((4, 6), torch.nan)
    expected[3], expected[0, list(KINDS).index("gyroscope")] = 1, 1
    torch.testing.assert_close(found, expected, equal_nan=True)


@pytest.mark.parametrize("value", [0, torch.nan, torch.inf])
def test_changes_without_shares(value):
    change = torch.zeros(1, C, 4, 4)
    change[0, 3, 1, 1] = value
    with pytest.raises(ValueError, match="finite and not zero everywhere"):
        shares(change, CHANNELS)


def test_shares_of_wrong_shapes_and_names():
    with pytest.raises(ValueError, match=r"must be \(N, 52, S, S\), got \(52, 4, 4\)"):
        shares(torch.ones(52, 4, 4), CHANNELS)
    with pytest.raises(ValueError, match="'head temperature' is not one of Pamap2's"):
        shares(torch.ones(1, 1, 4, 4), ["head temperature"])


# where_it_changes


def test_where_it_changes_shows_the_shares():
    change = torch.randn(4, C, S, S) * torch.linspace(0.5, 1.5, C)[:, None, None]
    figure = where_it_changes(change, CHANNELS, "walking")
    found = shares(change, CHANNELS)
    sensors, frequency, moment = figure.axes
    np.testing.assert_allclose(sensors.images[0].get_array(), found["sensor"])
    low, high = sensors.images[0].get_clim()
    assert low + high == pytest.approx(2)
    numbers = [text.get_text() for text in sensors.texts]
    assert numbers == [f"{value:.2f}" for value in [*found["sensor"][:3].flatten(), found["sensor"][3, 0]]]
    for axis, name, last in ((frequency, "frequency", 31 / 63 * 100), (moment, "moment", 31 * 0.32)):
        one, *limbs, every = axis.lines
        assert set(one.get_ydata()) == {1}
        np.testing.assert_allclose([line.get_ydata() for line in limbs], found[f"limb {name}"])
        np.testing.assert_allclose(every.get_ydata(), found[name])
        np.testing.assert_allclose(every.get_xdata(), np.linspace(0, last, S), rtol=1e-5)
        assert axis.get_ylim()[0] == 0
    assert (frequency.get_xlabel(), moment.get_xlabel()) == ("frequency (Hz)", "time (s)")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [*LIMBS, "all channels"]
    assert_readable(figure)


def test_small_differences_stay_pale():
    change = torch.ones(1, C, 4, 4)
    assert where_it_changes(change, CHANNELS).axes[0].images[0].get_clim() == (0.5, 1.5)


def test_where_it_changes_of_some_channels_leaves_the_others_blank():
    figure = where_it_changes(torch.ones(1, 1, 4, 4), ["hand gyroscope x"])
    FigureCanvasAgg(figure).draw()
    assert [text.get_text() for text in figure.axes[0].texts] == ["1.00"]
