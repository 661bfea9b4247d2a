import base64

import pytest
import torch

from vmlite.show.budgets import BudgetExplorer
from vmlite.show.pictures import PINK, budget_curves
from vmlite.viewmaker import Viewmaker

CURVES = {"participant 5": {0.02: 53.4, 0.1: 59.1, 2.0: 28.1}, "participant 6": {0.02: 49.7, 0.1: 58.8}}


@pytest.fixture
def explorer(splits):
    torch.manual_seed(0)
    makers = {eps: Viewmaker(3, eps, clamp=(0, 1), width=4) for eps in (0.02, 0.1)}
    made = BudgetExplorer(CURVES, makers, splits.test, count=3)
    yield made
    made.close()


def test_the_slider_goes_over_all_budgets_of_all_curves(explorer):
    assert [eps for _, eps in explorer.eps.options] == [0.02, 0.1, 2.0]


def test_another_point_shows_its_values_and_its_own_views(explorer):
    curve, views = explorer.curve.value, explorer.views.value
    explorer.eps.value = 0.1
    assert explorer.curve.value != curve
    assert explorer.views.value != views
    assert "participant 5 59.1, participant 6 58.8" in explorer.text.value
    assert "0.1" in explorer.curve.tooltip
    assert "eps 0.1" in explorer.views.tooltip
    explorer.eps.value = 0.02
    assert (explorer.curve.value, explorer.views.value) == (curve, views)


def test_a_budget_without_a_viewmaker_says_so_and_shows_none(explorer):
    explorer.eps.value = 2.0
    assert explorer.views.value == b""
    assert "no viewmaker is kept for it" in explorer.text.value
    assert "participant 6" not in explorer.text.value


def test_the_static_picture_is_the_curve(explorer):
    bundle = explorer._repr_mimebundle_()
    assert base64.b64decode(bundle["image/png"]) == explorer.curve.value


def test_curves_go_through_their_points_and_the_chosen_ones_are_ringed():
    axis = budget_curves(CURVES, "accuracy", 0.1).axes[0]
    curves = [line for line in axis.lines if not line.get_label().startswith("_")]
    assert [line.get_ydata().tolist() for line in curves] == [list(curve.values()) for curve in CURVES.values()]
    rings = [line for line in axis.lines if line.get_markeredgecolor() == PINK]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in rings] == [(0.1, 59.1), (0.1, 58.8)]
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["0.02", "0.1", "2"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"curves": {}}, "no point on any curve"),
        ({"example": 99}, "example 99 is not there"),
        ({"makers": {0.1: Viewmaker(52, width=4)}}, "'eps 0.1' takes 52 channels"),
    ],
)
def test_what_cannot_be_shown_is_refused(splits, change, message):
    settings = {"curves": CURVES, "makers": {0.1: Viewmaker(3, width=4)}, "data": splits.test} | change
    with pytest.raises(ValueError, match=message):
        BudgetExplorer(**settings)
