"""A data set and a recipe so small that a training step takes milliseconds."""

import pytest
import torch
from hypothesis import settings

from vmlite import datasets
from vmlite.recipes import Recipe

torch.set_num_threads(1)
settings.register_profile("vmlite", deadline=None, max_examples=30)
settings.load_profile("vmlite")


@pytest.fixture(scope="session")
def splits():
    """64 training and 32 test Spirographs of 3x12x12; treat them as read-only."""
    return datasets.load("spirograph", input_size=12, train_size=64, test_size=32)


@pytest.fixture
def recipe():
    """Thin networks, four steps an epoch, two epochs."""
    return Recipe(
        dataset="spirograph",
        train_size=64,
        test_size=32,
        input_size=12,
        encoder_width=4,
        viewmaker_width=4,
        embedding_dim=8,
        epochs=2,
        batch_size=16,
        device="cpu",
    )


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)
