"""Pictures: what is on each figure, not how it looks."""

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import same_color, to_rgba
from matplotlib.figure import Figure

from vmlite.show import pictures
from vmlite.show.pictures import COLOURS, PINK, bars, image_grid, loss_curves, view_grid


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def random_images(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def drawn(axes):
    """The axes that hold an image, and the image's numbers."""
    return [(axis, np.asarray(axis.images[0].get_array())) for axis in axes if axis.images]


def overlap(figure, texts):
    """Pairs of texts whose boxes overlap once drawn."""
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in texts]
    return [
        (texts[i].get_text(), texts[j].get_text())
        for i in range(len(boxes))
        for j in range(i)
        if boxes[i].overlaps(boxes[j])
    ]


# image_grid


@pytest.mark.parametrize(("count", "axes"), [(1, 1), (3, 3), (8, 8), (9, 16)])
def test_image_grid_has_whole_rows_and_no_empty_columns(count, axes):
    images = random_images(count, 3, 6, 7)
    figure = image_grid(images)
    assert isinstance(figure, Figure)
    assert len(figure.axes) == axes
    shown = drawn(figure.axes)
    assert len(shown) == count
    for (_, array), image in zip(shown, images, strict=True):
        np.testing.assert_array_equal(array, image.permute(1, 2, 0))
    assert not any(axis.axison for axis in figure.axes)


def test_image_grid_titles_are_broken_rather_than_overlap():
    names = ["m large, b middle", "a rather long name of a class", "cat", "m middle, b middle"]
    figure = image_grid(random_images(4, 3, 6, 6), titles=names)
    titles = [axis.title for axis in figure.axes]
    assert [title.get_text().replace("\n", " ") for title in titles] == names
    assert overlap(figure, titles) == []
    assert figure.get_figheight() > image_grid(random_images(4, 3, 6, 6)).get_figheight()


@pytest.mark.parametrize("count", [1, 2])
def test_image_grid_of_grey_images_is_grey_from_black_to_white(count):
    for axis, array in drawn(image_grid(0.25 + 0.5 * random_images(count, 1, 6, 6)).axes):
        assert array.shape[:2] == (6, 6)
        assert axis.images[0].get_cmap().name == "gray"
        assert axis.images[0].get_clim() == (0, 1)


# view_grid


@pytest.fixture(params=[3, 1], ids=["colour", "grey"])
def viewed(request):
    """Two images, four views of each, and the grid's axes as an array (rows, columns)."""
    x = random_images(2, request.param, 6, 5)
    change = 0.1 + 0.1 * torch.randn(4, *x.shape, generator=torch.Generator().manual_seed(1))  # mostly brighter
    views = (x + change).requires_grad_()
    figure = view_grid(x, views, "title")
    return x, views.detach(), figure, np.array(figure.axes[:-1]).reshape(4, 5)


def as_pixels(image):
    return image.clamp(0, 1).permute(1, 2, 0).squeeze(-1).numpy()


def test_view_grid_shows_originals_views_and_perturbations(viewed):
    x, views, figure, axes = viewed
    assert isinstance(figure, Figure)
    assert figure.get_suptitle() == "title"
    for i in range(2):
        np.testing.assert_array_equal(np.squeeze(axes[2 * i, 0].images[0].get_array()), as_pixels(x[i]))
        assert not axes[2 * i + 1, 0].images
        for v in range(4):
            image, heat = (axes[2 * i + row, v + 1].images[0].get_array() for row in (0, 1))
            np.testing.assert_array_equal(np.squeeze(image), as_pixels(views[v, i]))
            np.testing.assert_allclose(heat, (views[v, i] - x[i]).mean(0), atol=1e-7)


def test_view_grid_has_one_symmetric_scale_and_its_colour_bar(viewed):
    x, views, figure, axes = viewed
    largest = (views - x).mean(2).abs().max().item()
    heats = [axis.images[0] for axis in axes[1::2, 1:].flat]
    assert len(heats) == 8
    for heat in heats:
        assert heat.get_clim() == pytest.approx((-largest, largest))
    bar = figure.axes[-1]
    assert bar.get_ylabel() == "perturbation"
    assert bar.get_ylim() == pytest.approx((-largest, largest))


def test_colours_of_the_scale_are_as_the_docstring_says():
    """Orange darkens, purple brightens, and nothing is white."""
    red, _, blue = mpl.colormaps[pictures.DIVERGING](0.1)[:3]
    assert red > blue
    red, green, blue = mpl.colormaps[pictures.DIVERGING](0.9)[:3]
    assert min(red, blue) > green
    assert min(mpl.colormaps[pictures.DIVERGING](0.5)) > 0.95


def test_view_grid_marks_only_the_originals(viewed):
    _, _, figure, axes = viewed
    marked = [
        axis for axis in figure.axes[:-1] if axis.axison and same_color(axis.spines["left"].get_edgecolor(), PINK)
    ]
    assert marked == [axes[0, 0], axes[2, 0]]
    for axis in marked:
        assert all(spine.get_visible() and spine.get_linewidth() >= 2 for spine in axis.spines.values())
        assert all(spine.get_edgecolor() == to_rgba(PINK) for spine in axis.spines.values())
        assert (axis.get_xticks().size, axis.get_yticks().size) == (0, 0)


def test_view_grid_of_one_view_of_one_example():
    x = random_images(1, 1, 6, 6)
    figure = view_grid(x, (x + 0.1)[None])
    assert len(figure.axes) == 5
    figure.canvas.draw()


def test_view_grid_of_views_that_change_nothing():
    x = random_images(1, 3, 6, 6)
    figure = view_grid(x, x[None])
    heat = figure.axes[3].images[0]
    assert heat.get_clim() == (-1, 1)
    assert (heat.get_array() == 0).all()


def test_view_grid_keeps_a_long_title_on_the_picture():
    x = random_images(1, 3, 6, 6)
    figure = view_grid(x, x[None], "A rather long title above a single view of a single image")
    figure.canvas.draw()
    box = figure._suptitle.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width


# loss_curves


def test_loss_curves_show_a_running_mean_of_both_players():
    history = torch.stack([torch.arange(6.0), -10 * torch.arange(6.0)], 1)
    figure = loss_curves({"noise": history, "viewmaker": history + 1}, smooth=3)
    assert isinstance(figure, Figure)
    assert [axis.get_title() for axis in figure.axes] == ["loss of the encoder", "loss of the viewmaker"]
    for axis, factor in zip(figure.axes, (1, -10), strict=True):
        first, second = axis.lines
        np.testing.assert_array_equal(first.get_xdata(), [3, 4, 5, 6])
        np.testing.assert_allclose(first.get_ydata(), factor * np.array([1, 2, 3, 4]))
        np.testing.assert_allclose(second.get_ydata(), factor * np.array([1, 2, 3, 4]) + 1)
        assert [line.get_label() for line in axis.lines] == ["noise", "viewmaker"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["noise", "viewmaker"]


def test_loss_curves_of_a_run_shorter_than_the_mean():
    [line] = loss_curves({"noise": torch.tensor([[1.0, 2.0], [3.0, 6.0]])}).axes[1].lines
    assert (line.get_xdata().tolist(), line.get_ydata().tolist()) == ([2], [4])


def test_loss_curves_of_a_run_that_was_stopped():
    history = torch.full((20, 2), torch.nan)
    history[:12] = 1.0
    [line] = loss_curves({"noise": history}, smooth=4).axes[0].lines
    assert np.isfinite(line.get_ydata()).sum() == 9


def test_loss_curves_leave_no_run_out():
    count = len(COLOURS) + 2
    figure = loss_curves({f"run {i}": torch.rand(20, 2) for i in range(count)})
    assert [len(axis.lines) for axis in figure.axes] == [count, count]


# bars


def test_bars_are_in_order_with_their_values():
    values = {"raw-input": 31.26, "noise": 44.5, "viewmaker": 63.7}
    figure = bars(values, "accuracy (%)", chance=11.1)
    [axis] = figure.axes
    assert [bar.get_width() for bar in axis.patches] == list(values.values())
    assert [label.get_text() for label in axis.get_yticklabels()] == list(values)
    assert axis.yaxis_inverted()
    assert axis.get_xlabel() == "accuracy (%)"
    texts = [text.get_text() for text in axis.texts]
    assert texts == ["31.3", "44.5", "63.7", "chance"]
    assert axis.lines[0].get_xdata() == [11.1, 11.1]
    assert same_color(axis.patches[2].get_facecolor(), COLOURS[1])
    assert not same_color(axis.patches[1].get_facecolor(), COLOURS[1])
    assert overlap(figure, [*axis.texts, axis.xaxis.label]) == []


def test_bars_without_chance():
    [axis] = bars({"noise": 3.0}, "accuracy (%)").axes
    assert not axis.lines
    assert [text.get_text() for text in axis.texts] == ["3.0"]
