import io

import numpy as np
import pytest
import torch
from PIL import Image

from vmlite.show import tiles


def opened(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def flat(colour, side=20):
    return np.full((side, side, 3), colour, np.uint8)


def count(picture, colour):
    return int((picture == colour).all(-1).sum())


@pytest.mark.parametrize("channels", [1, 3])
def test_photographs_keep_their_values(channels):
    x = torch.rand(2, channels, 5, 6)
    pixels = tiles.photographs(x)
    assert pixels.shape == (2, 5, 6, 3)
    expected = (x * 255).round().expand(2, 3, 5, 6).permute(0, 2, 3, 1)
    np.testing.assert_array_equal(pixels, expected.byte().numpy())


def test_colours_are_the_maps_at_both_ends_and_symmetric_about_zero():
    made = tiles.colours(torch.tensor([[-5.0, -1.0, 0.0, 1.0, 5.0]]), -1, 1)[0].astype(int)
    assert (made[0] == made[1]).all()
    assert (made[3] == made[4]).all()
    assert made[1][0] > made[1][2]  # orange
    assert made[3][2] > made[3][1]  # purple
    assert (made[2] > 240).all()


def test_a_constant_picture_has_a_colour():
    assert (tiles.colours(torch.zeros(3, 3), 0, 0) == tiles.colours(torch.zeros(3, 3), 0, 0)[0, 0]).all()


@pytest.mark.parametrize(("side", "factor"), [(12, 7), (32, 3), (64, 1), (200, 1)])
def test_tiles_are_enlarged_by_a_whole_factor(side, factor):
    picture = opened(tiles.sheet([tiles.Row("", [flat((1, 2, 3), side)] * 2)]))
    assert count(picture, (1, 2, 3)) == 2 * (factor * side) ** 2


def test_an_empty_place_stays_white_and_frames_are_pink():
    row = tiles.Row("", [None, flat((10, 20, 30)), flat((40, 50, 60))], framed=frozenset({2}))
    picture = opened(tiles.sheet([row]))
    assert count(picture, (10, 20, 30)) == count(picture, (40, 50, 60)) == 80 * 80
    pink = (picture == (0xE4, 0x00, 0x7C)).all(-1)
    rows, columns = pink.nonzero()
    there = (picture == (40, 50, 60)).all(-1).nonzero()
    assert (rows.min(), rows.max()) == (there[0].min() - 3, there[0].max() + 3)
    assert (columns.min(), columns.max()) == (there[1].min() - 3, there[1].max() + 3)


def test_the_scale_has_the_colours_of_the_map():
    row = tiles.Row("maker", [flat((1, 2, 3))], ["view 1"])
    plain, scaled = (opened(tiles.sheet([row], scale)) for scale in (None, tiles.Scale(0.3, "perturbation")))
    assert scaled.shape[0] > plain.shape[0]
    for colour in tiles.colours(torch.tensor([[-1.0, 1.0]]), -1, 1)[0]:
        assert count(scaled, colour) > 0


def test_captions_are_cut_to_their_tile():
    assert tiles._cut("view 1", 80) == "view 1"
    cut = tiles._cut("a very long name of a class", 80)
    assert cut.endswith("…")
    assert tiles._font().getlength(cut) <= 80
    assert tiles._cut("anything", 0) == "…"
