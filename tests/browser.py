"""A notebook in JupyterLab in a real browser: open it, run it, use its widgets, time their answers.

The page is driven by Playwright with an installed Chromium. JupyterLab shows its application to the page
(`--expose-app-in-browser`), so that the state of cells and kernel is asked of JupyterLab and not read from the DOM.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Locator, Page, WebSocket

SCREENSHOTS = Path(__file__).parents[1] / "runs" / "browser"
TIMEOUT = 120_000  # ms. It ends a wait that has no hope and decides nothing else.

OUTPUT = ".jp-OutputArea-output"
CONFIGURATION: dict[str, Any] = {
    # Cells out of sight stay in the DOM.
    "settings/@jupyterlab/notebook-extension/tracker.jupyterlab-settings": {"windowingMode": "none"},
    # The one would ask for news in a pop-up, the other would ask PyPI for extensions.
    "config/labconfig/page_config.json": {
        "disabledExtensions": {
            "@jupyterlab/apputils-extension:announcements": True,
            "@jupyterlab/extensionmanager-extension": True,
        }
    },
}

WATCH = """
() => {
    const panel = jupyterapp.shell.currentWidget;
    window.watched = {errors: [], panel};
    panel.sessionContext.iopubMessage.connect((_, message) => {
        const {header, content} = message;
        if (header.msg_type === 'error')
            watched.errors.push(content.traceback.join('\\n') || `${content.ename}: ${content.evalue}`);
        else if (header.msg_type === 'stream' && content.name === 'stderr' && content.text.includes('Traceback'))
            watched.errors.push(content.text);
    });
    document.addEventListener('keydown', event => { watched.pressed = event.timeStamp; }, true);
    document.addEventListener('load', event => watched.loaded?.(event), true);  // `load` is captured, it does not bubble
    watched.await = image => {
        watched.pressed = null;
        watched.answer = new Promise(resolve => {
            watched.loaded = event => {
                if (event.target === image) resolve(performance.now() - watched.pressed);
            };
            setTimeout(() => resolve(null), TIMEOUT);
        });
    };
}
""".replace("TIMEOUT", str(TIMEOUT))

AWAIT = "image => watched.await(image)"

READY = "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"

FINISHED = """
() => {
    const cells = watched.panel.content.widgets.filter(cell => cell.model.type === 'code');
    const done = cell => cell.model.executionCount !== null || !cell.model.sharedModel.source.trim();
    return watched.errors.length || cells.every(done);
}
"""

EXECUTE = """
async code => {
    const future = watched.panel.sessionContext.session.kernel.requestExecute({code});
    let text = '';
    future.onIOPub = message => {
        if (message.header.msg_type === 'stream') text += message.content.text;
        if (message.header.msg_type === 'execute_result') text += message.content.data['text/plain'];
    };
    await future.done;
    return text;
}
"""

FETCH = """
async img => {
    const bytes = new Uint8Array(await (await fetch(img.src)).arrayBuffer());
    return btoa(Array.from(bytes, byte => String.fromCharCode(byte)).join(''));
}
"""


def chromium_path() -> str | None:
    """The Chromium named by VMLITE_CHROMIUM, or the first one on the path."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return os.environ.get("VMLITE_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


class Lab:
    """JupyterLab of this Python on a free port; notebooks, settings and kernels live in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "notebooks"
        self.root.mkdir()
        for name, values in CONFIGURATION.items():
            file = folder / name
            file.parent.mkdir(parents=True)
            file.write_text(json.dumps(values))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url, self.token = f"http://127.0.0.1:{port}", secrets.token_hex(16)
        options = ["--no-browser", "--allow-root", "--expose-app-in-browser", "--LabApp.extension_manager=readonly"]
        options += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={self.root}"]
        options += [f"--IdentityProvider.token={self.token}"]
        folders = {f"JUPYTER_{name}_DIR": str(folder / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
        folders |= {f"JUPYTERLAB_{name}_DIR": str(folder / name.lower()) for name in ("SETTINGS", "WORKSPACES")}
        self._log = folder / "lab.log"
        with self._log.open("wb") as log:
            command = [sys.executable, "-m", "jupyterlab", *options]
            self._process = subprocess.Popen(command, env=os.environ | folders, stdout=log, stderr=log)

    def wait(self) -> None:
        """Until the server answers; RuntimeError with its log if it ends or is silent for two minutes."""
        deadline = time.monotonic() + TIMEOUT / 1000
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{self.url}/api?token={self.token}").close()
                return
            except OSError:
                time.sleep(0.05)
        raise RuntimeError(f"JupyterLab did not start:\n{self._log.read_text()}")

    def stop(self) -> None:
        """Ends the server, which ends its kernels; a kernel whose server was killed ends by itself."""
        self._process.terminate()
        try:
            self._process.wait(30)
        finally:
            self._process.kill()

    def write(self, notebook: Path | Sequence[str]) -> str:
        """Puts a notebook file, or the notebook of these code cells, before the server without outputs; its name."""
        if isinstance(notebook, Path):
            name, content = notebook.name, nbformat.read(notebook, as_version=4)
            content.metadata.pop("widgets", None)
            for cell in content.cells:
                if cell.cell_type == "code":
                    cell.outputs, cell.execution_count = [], None
        else:
            kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
            cells = [nbformat.v4.new_code_cell(source) for source in notebook]
            content = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
            name = f"{secrets.token_hex(4)}.ipynb"
        nbformat.write(content, self.root / name)
        return name


class Notebook:
    """One notebook open in JupyterLab, its kernel started, nothing run yet.

    `css` is always a CSS selector, such as the class `.vmlite-eps` that a widget got by `add_class("vmlite-eps")`.
    """

    def __init__(self, lab: Lab, context: BrowserContext, name: str) -> None:
        self.errors: list[str] = []
        self.page = context.new_page()
        self.page.set_default_timeout(TIMEOUT)
        self._listen(self.page)
        self.page.goto(f"{lab.url}/doc/tree/{name}?reset&token={lab.token}")
        self.page.wait_for_function(READY)
        self.page.evaluate(WATCH)

    def _listen(self, page: Page) -> None:
        def console(message: Any) -> None:
            if message.type == "error":
                self.errors.append(f"console: {message.text} ({message.location['url']})")

        def websocket(socket: WebSocket) -> None:
            socket.on("socketerror", lambda error: self.errors.append(f"websocket: {error}"))

        page.on("pageerror", lambda error: self.errors.append(f"page: {error.stack or error}"))
        page.on("console", console)
        page.on("websocket", websocket)

    def run_all(self) -> None:
        """Runs all cells by the menu; AssertionError with the traceback if one of them fails."""
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        self.page.wait_for_function(FINISHED, timeout=5 * TIMEOUT)  # a cell may train
        self.assert_quiet()

    def assert_quiet(self) -> None:
        """No error since the last call: on the page, in its console or sockets, in a cell, a handler or a thread."""
        errors = self.errors + [f"kernel: {error}" for error in self.page.evaluate("watched.errors.splice(0)")]
        self.errors = []
        assert not errors, "\n".join(errors)

    def execute(self, code: str) -> str:
        """Runs code in the kernel, outside the cells; what it printed and the repr of its last expression."""
        return self.page.evaluate(EXECUTE, code)

    def widget(self, css: str) -> Locator:
        """The elements of the outputs that match, or the first of them where a helper needs one."""
        return self.page.locator(f".jp-Notebook .jp-OutputArea {css}")

    def press(self, text: str, css: str = OUTPUT) -> None:
        """Clicks the button with this text within `css`, by default in any output."""
        self.widget(css).get_by_role("button", name=text, exact=True).click()

    def focus(self, css: str) -> None:
        """Gives the keyboard to the handle of the slider `css`, without moving it."""
        self.widget(f"{css} .noUi-handle").first.focus()

    def key(self, *keys: str) -> None:
        """Presses keys, named as in Playwright: ArrowRight, PageUp, Home, Enter."""
        for key in keys:
            self.page.keyboard.press(key)

    def _image(self, css: str) -> Locator:
        return self.widget(f":is(img:is({css}), :is({css}) img)").first

    def wait_for_picture(self, css: str) -> None:
        """Until the image `css` is on the page and its picture is loaded."""
        self._image(css).evaluate("img => img.decode()")

    @contextmanager
    def new_picture(self, css: str) -> Iterator[None]:
        """What is done inside must load a new picture into the image `css`, or into one within it."""
        self.wait_for_picture(css)
        self._image(css).evaluate(AWAIT)
        yield
        self._answer(css)

    def _answer(self, css: str) -> float:
        answer = self.page.evaluate("watched.answer")
        assert answer is not None, f"No new picture in {css}."
        return answer

    def png(self, css: str) -> bytes:
        """The bytes of the picture that the image `css` shows."""
        return base64.b64decode(self._image(css).evaluate(FETCH))

    def image_text(self, css: str) -> str:
        """Alternative text of the image `css`: its `alt`, or else its `title`."""
        return self._image(css).evaluate("img => img.alt || img.title")

    def screenshot(self, name: str, css: str = "body") -> Path:
        """Writes the first element of the page that matches to runs/browser/<name>.png."""
        file = SCREENSHOTS / f"{name}.png"
        self.page.locator(css).first.screenshot(path=file)
        return file

    def latencies(
        self,
        slider: str,
        image: str,
        moves: int,
        keys: tuple[str, str] = ("ArrowRight", "ArrowLeft"),
        rest: float = 0,
    ) -> list[float]:
        """Milliseconds from each key to the load of its new picture, measured in the page.

        The slider goes by `keys[0]` to its end, back by `keys[1]`, and so on, so that every key moves it. The clock
        starts at the time stamp of the key event and stops at the `load` event of the image.

        Args:
            slider: CSS of the slider.
            image: CSS of the image that answers, or of what it lies in.
            moves: Number of keys.
            keys: The key towards the slider's maximum and the key back.
            rest: Seconds between a picture and the next key.
        """
        self.focus(slider)
        handle = self.widget(f"{slider} .noUi-handle").first
        found, forth = [], True
        for _ in range(moves):
            low, now, high = handle.evaluate(
                "h => ['min', 'now', 'max'].map(part => +h.getAttribute('aria-value' + part))"
            )
            forth = now < high if forth else now <= low
            self._image(image).evaluate(AWAIT)
            self.key(keys[0] if forth else keys[1])
            found.append(self._answer(image))
            self.page.wait_for_timeout(1000 * rest)
        return found

    def close(self) -> None:
        """Ends the kernel and closes the page."""
        self.page.evaluate("watched.panel.sessionContext.shutdown()")
        self.page.close()
