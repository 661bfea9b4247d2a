"""What nbval does not compare: pictures, and the progress bars that go to stderr."""

import pytest


def pytest_collectstart(collector: pytest.Collector) -> None:
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("stderr", "image/png")
