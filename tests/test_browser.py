"""Widgets in JupyterLab in a real browser. Latencies are compared with a widget that only hands over ready pictures."""

from pathlib import Path

import nbformat
import numpy as np
import pytest

pytestmark = pytest.mark.browser

REFERENCE = """
import io
import ipywidgets as widgets
from PIL import Image

def png(colour):
    file = io.BytesIO()
    Image.new("RGB", (96, 96), colour).save(file, "png")
    return file.getvalue()

pictures = [png("steelblue"), png("orange")]
slider = widgets.FloatLogSlider(value=10**-1.3, min=-3, max=0.3, step=0.05, description="eps").add_class("reference-slider")
image = widgets.Image(value=pictures[0], layout=widgets.Layout(width="96px")).add_class("reference-picture")
moves = 0

def show(change):
    global moves
    moves += 1
    image.value = pictures[moves % 2]

slider.observe(show, "value")
widgets.VBox([slider, image])
"""


@pytest.fixture
def reference(open_notebook):
    """The reference widget: slider, handler, one of two ready pictures."""
    return open_notebook([REFERENCE])


def test_the_reference_widget_answers_every_key(reference):
    before = reference.png(".reference-picture")
    found = reference.latencies(".reference-slider", ".reference-picture", moves=21)
    assert len(found) == 21
    assert reference.execute("moves") == "21"
    assert before != reference.png(".reference-picture")
    reference.screenshot("reference", ".widget-vbox")
    print(f"\nreference: median {np.median(found):.0f} ms, 95 % {np.percentile(found, 95):.0f} ms")


BROKEN = """
import threading
import ipywidgets as widgets

def in_thread(button):
    thread = threading.Thread(target=lambda: [][0])
    thread.start()
    thread.join()

handler, thread = widgets.Button(description="Handler"), widgets.Button(description="Thread")
handler.on_click(lambda button: 1 / 0)
thread.on_click(in_thread)
widgets.HBox([handler, thread])
"""


def test_errors_in_cells_handlers_and_threads_and_on_the_page_are_found(open_notebook):
    notebook = open_notebook([BROKEN, "int('a cell')", "2"], run=False)
    with pytest.raises(AssertionError, match="a cell"):
        notebook.run_all()
    for button, error in (("Handler", "ZeroDivisionError"), ("Thread", "IndexError")):
        notebook.press(button)
        notebook.execute("0")
        with pytest.raises(AssertionError, match=error):
            notebook.assert_quiet()
    notebook.page.evaluate("setTimeout(() => { throw Error('on the page') })")
    notebook.page.wait_for_timeout(100)
    with pytest.raises(AssertionError, match="on the page"):
        notebook.assert_quiet()


NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
EXPLORER = """
from vmlite.datasets import load
from vmlite.show import explore

data = load({data})
explorer = explore.of_shipped({name!r}, data, count=9{more})
explorer
"""
IMAGES = EXPLORER.format(name="spirograph", data="'spirograph', input_size=32, train_size=1000, test_size=100", more="")
SENSORS = EXPLORER.format(
    name="motions", data="'motions', input_size=16, window_seconds=4.9, train_size=5000, test_size=1500", more=""
)
PANEL = """
from vmlite.pretrain import load_data, start
from vmlite.recipes import preset
from vmlite.show import live

recipe = preset("quick", device="cpu", epochs=50)
panel = live.Panel(start(recipe, load_data(recipe).train), data.test)
panel
"""


@pytest.fixture
def shortened(tmp_path):
    """A notebook of the project with other parameters, its results in a temporary folder."""

    def written(name, **parameters):
        notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
        cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
        changes = {"out_dir": str(tmp_path / "out"), **parameters}
        cell.source += "".join(f"\n{key} = {value!r}" for key, value in changes.items())
        nbformat.write(notebook, tmp_path / name)
        return tmp_path / name

    return written


RESTED = """
before => {
    const text = document.querySelector('.vmlite-numbers').innerText;
    return text !== before && !text.includes('–');
}
"""


def check_explorer(notebook):
    """Keys move the budget and the example, a button draws noise; pictures, texts and numbers follow."""
    first = notebook.image_text(".vmlite-views")
    assert "with their perturbations" in first
    numbers = notebook.widget(".vmlite-numbers").inner_text()
    notebook.focus(".vmlite-eps")
    with notebook.new_picture(".vmlite-views"):
        notebook.key("PageUp")
    assert notebook.image_text(".vmlite-views") != first
    notebook.page.wait_for_function(RESTED, arg=numbers)
    assert "nearest training examples" in notebook.image_text(".vmlite-neighbours")
    notebook.focus(".vmlite-example")
    with notebook.new_picture(".vmlite-views"):
        notebook.key("ArrowRight")
    before = notebook.png(".vmlite-views")
    with notebook.new_picture(".vmlite-views"):
        notebook.press("New noise", ".vmlite-explorer")
    assert notebook.png(".vmlite-views") != before


def test_notebook_01_explores_and_trains(open_notebook):
    notebook = open_notebook(NOTEBOOKS / "01_viewmaker.ipynb")
    check_explorer(notebook)
    notebook.screenshot("explorer-images", ".vmlite-explorer")
    status = notebook.widget(".vmlite-live-status")
    for button, state in (("Start", "training"), ("Pause", "paused"), ("Go on", "training")):
        notebook.press(button, ".vmlite-live")
        status.get_by_text(state).wait_for()
    with notebook.new_picture(".vmlite-live-views"):
        pass
    notebook.focus(".vmlite-live-eps")
    notebook.key("PageUp")
    notebook.page.locator(".vmlite-live-views[title*='of 0.063']").wait_for()
    notebook.wait_for_picture(".vmlite-live-curves")
    notebook.screenshot("live", ".vmlite-live")
    assert "Realised budget" in notebook.image_text(".vmlite-live-views")
    notebook.press("Stop", ".vmlite-live")
    assert (
        notebook.execute("print(panel.wait(60), panel.run.step > 0, panel.run.recipe.eps > eps)") == "True True True\n"
    )


def test_notebook_03_lets_its_views_be_heard(open_notebook, shortened):
    notebook = open_notebook(
        shortened("03_speech.ipynb", epochs=1, train_size=800, test_size=400, views="viewmaker", floors=False)
    )
    sounds = "() => [...document.querySelectorAll('audio.vmlite-sound')].map(sound => [sound.src, sound.duration])"
    before = notebook.page.evaluate(sounds)
    check_explorer(notebook)
    notebook.screenshot("explorer-speech", ".vmlite-explorer")
    after = notebook.page.evaluate(sounds)
    assert len(after) == 4
    assert all(duration == pytest.approx(1, abs=0.05) for _, duration in after)
    assert not {source for source, _ in before} & {source for source, _ in after}


def test_notebook_04_shows_channels_activities_and_budgets(open_notebook, shortened):
    notebook = open_notebook(shortened("04_sensors.ipynb", epochs=1, views="viewmaker", floors=False))
    check_explorer(notebook)
    for css, choice in ((".vmlite-channel", "ankle gyroscope y"), (".vmlite-class", "rope jumping")):
        with notebook.new_picture(".vmlite-views"):
            notebook.widget(f"{css} select").select_option(label=choice)
    assert "rope jumping" in notebook.image_text(".vmlite-views")
    notebook.screenshot("explorer-sensors", ".vmlite-explorer")
    before = notebook.png(".vmlite-budgets .vmlite-views")
    notebook.focus(".vmlite-budget")
    with notebook.new_picture(".vmlite-curve"):
        notebook.key("ArrowRight")
    assert "chosen: 0.05" in notebook.image_text(".vmlite-curve")
    assert notebook.png(".vmlite-budgets .vmlite-views") != before
    notebook.screenshot("budgets", ".vmlite-budgets")
