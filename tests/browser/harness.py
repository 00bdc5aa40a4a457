"""A JupyterLab of its own on this machine, and a browser that reaches nothing but what it tests."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from nbformat import NotebookNode
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Route, sync_playwright

from nbsupport.base import settings
from nbsupport.notebooks import document

#: Seconds for whatever starts a process or runs a notebook, on a slow and loaded machine.
LONG = 240.0
#: A server ends with the process that started it, even if that is killed.
_CONFIG = """
import os, signal, threading, time
def watch(parent=os.getppid()):
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=watch, daemon=True).start()
"""


@dataclass(frozen=True)
class Server:
    """A JupyterLab server on loopback, and the folder that it serves."""

    url: str
    token: str
    folder: Path


@contextlib.contextmanager
def server(notebooks: Path, home: Path) -> Iterator[Server]:
    """Serve a copy of the notebooks, with the configuration that `make lab` takes.

    All that it writes is below `home`. It and its kernels are ended at the end, whatever happens.
    """
    folder = home / "notebooks"
    shutil.copytree(notebooks, folder, ignore=shutil.ignore_patterns(".*"))
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    env = {**os.environ, **{name: str(home / name.lower()) for name in names}}
    env["JUPYTER_CONFIG_PATH"] = str(settings.data_dir() / "jupyter")
    trust = [Path(sys.executable).with_name("jupyter-trust"), *sorted(folder.glob("*.ipynb"))]
    subprocess.run(trust, env=env, check=True, capture_output=True)
    config = Path(env["JUPYTER_CONFIG_DIR"], "jupyter_server_config.py")
    config.parent.mkdir()
    config.write_text(_CONFIG)
    argv = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", "--port=0"]
    argv += [f"--notebook-dir={folder}", "--LabApp.expose_app_in_browser=True", "--allow-root"]
    with (home / "log").open("w") as log:
        started = subprocess.Popen(
            argv, cwd=home, env=env, stdout=log, stderr=log, start_new_session=True
        )
    try:
        said = home / "jupyter_runtime_dir" / f"jpserver-{started.pid}.json"

        def listens() -> bool:
            assert started.poll() is None, (home / "log").read_text()
            return said.is_file() and said.read_text().rstrip().endswith("}")

        until(listens)
        known = json.loads(said.read_text())
        yield Server(known["url"], known["token"], folder)
    finally:
        _end(started)


def _end(started: subprocess.Popen[bytes]) -> None:
    """End a server and its kernels, which have process groups of their own."""
    with contextlib.suppress(psutil.NoSuchProcess):
        kernels = psutil.Process(started.pid).children(recursive=True)
        os.killpg(started.pid, signal.SIGTERM)
        _, left = psutil.wait_procs([psutil.Process(started.pid), *kernels], timeout=15)
        for one in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
    started.wait()


def until(true: Callable[[], bool], seconds: float = LONG) -> None:
    """Wait for a condition outside the browser."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not so within {seconds:.0f} s"
        time.sleep(0.05)


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Start the system's Chromium; skips the test where there is none."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Window:
    """A page of the browser, and what it should not do: say errors, ask for what is elsewhere."""

    page: Page
    errors: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)


@contextlib.contextmanager
def window(browser: Browser, allowed: str, **options: Any) -> Iterator[Window]:
    """Open a page that may load what begins with `allowed`; other requests are refused, and noted."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    context.set_default_timeout(60_000)
    opened = Window(context.new_page())

    def route(asked: Route) -> None:
        if asked.request.url.startswith((allowed, "data:", "blob:")):
            asked.continue_()
        else:
            opened.outside.append(asked.request.url)
            asked.abort()

    def said(message: ConsoleMessage) -> None:
        if message.type == "error":
            opened.errors.append(f"{message.text} ({message.location.get('url', '')})")

    context.route("**/*", route)
    opened.page.on("console", said)
    opened.page.on("pageerror", lambda error: opened.errors.append(str(error)))
    yield opened
    context.close()


class Book:
    """A notebook that is open in JupyterLab, alone in its window."""

    def __init__(self, opened: Window, served: Server, name: str) -> None:
        self.window, self.page, self.path = opened, opened.page, served.folder / f"{name}.ipynb"
        self.page.goto(f"{served.url}lab/tree/{name}.ipynb?token={served.token}&reset")
        self.page.get_by_text("| Idle").wait_for(
            timeout=1000 * LONG
        )  # before that a command may be dropped

    def command(self, name: str) -> None:
        """Run a command of JupyterLab's, as its menu does, and wait for its end."""
        self.page.evaluate("name => jupyterapp.commands.execute(name).then(() => null)", name)

    def save(self) -> NotebookNode:
        """Save the notebook and return what is in its file."""
        self.command("docmanager:save")
        return document.read(self.path)

    def shut_down(self) -> None:
        """End the notebook's kernel."""
        self.page.evaluate("jupyterapp.serviceManager.sessions.shutdownAll()")

    def select(self, source: str) -> Locator:
        """Select the first code cell with this text in its source, in view, and return it."""
        number = self.page.evaluate(_SELECT, source)
        assert number >= 0, f"no cell has {source!r}"
        return self.page.locator(".jp-Notebook-cell").nth(number)

    def widget(self, source: str) -> Locator:
        """Return the widget that such a cell shows."""
        return self.select(source).locator(".jp-OutputArea-output > .jupyter-widgets")


_SELECT = """async source => {
  const book = jupyterapp.shell.currentWidget.content;
  const isIt = cell => cell.model.type === "code" && cell.model.sharedModel.getSource().includes(source);
  book.activeCellIndex = book.widgets.findIndex(isIt);
  await book.scrollToItem(book.activeCellIndex, "start");
  return isIt(book.activeCell) ? book.activeCellIndex : -1;
}"""
