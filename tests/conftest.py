"""A data set and a recipe so small that a training step takes milliseconds."""

import contextlib
import importlib.util
import os
import shutil

import pytest
import torch
from browser import SCREENSHOTS, Lab, Notebook, chromium_path
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


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def chromium():
    """Path of the browser. Without one the tests are skipped, or fail where VMLITE_BROWSER=required."""
    path = chromium_path()
    missing = [] if path else ["no Chromium: `apt-get install chromium`, or name one in VMLITE_CHROMIUM"]
    if not importlib.util.find_spec("playwright"):
        missing.append("no Playwright: `pip install playwright`")
    if missing:
        end = pytest.fail if os.environ.get("VMLITE_BROWSER") == "required" else pytest.skip
        end("; ".join(missing))
    return path


@pytest.fixture(scope="module")
def browser(chromium):
    """Chromium without windows. Playwright's event loop must not outlive the module: nbval runs its own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=chromium) as chrome:
        yield chrome.new_context(viewport={"width": 1280, "height": 2000})


@pytest.fixture(scope="module")
def lab(chromium, tmp_path_factory):
    shutil.rmtree(SCREENSHOTS, ignore_errors=True)
    SCREENSHOTS.mkdir(parents=True)
    server = Lab(tmp_path_factory.mktemp("lab"))
    try:
        server.wait()
        yield server
    finally:
        server.stop()


@pytest.fixture
def open_notebook(lab, browser):
    """Opens a notebook file, or the notebook of a list of code cells, and runs it. At the end no error may be left."""
    with contextlib.ExitStack() as stack:

        def start(notebook, run=True):
            page = Notebook(lab, browser, lab.write(notebook))
            stack.callback(page.close)
            stack.callback(page.assert_quiet)
            if run:
                page.run_all()
            return page

        yield start
