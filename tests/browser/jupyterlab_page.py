"""JupyterLab on loopback and a headless Chromium in it, driven through its menus as a person would."""

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

CHROMIUM, CHROMEDRIVER = shutil.which("chromium"), shutil.which("chromedriver")  # Debian's names
# Root needs --no-sandbox; with the host rules no name but loopback's is looked up.
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--window-size=1500,1000",
]  # fmt: skip
# What a reader sees of each cell. JupyterLab shows an error as stderr. Images of a widget are not the cell's.
READ_CELLS = """
const wide = (element, page) =>
  element.scrollWidth > element.clientWidth + 1 || element.getBoundingClientRect().right > page + 1;
return [...document.querySelectorAll('.jp-Notebook .jp-Cell')].map(cell => {
  const all = (selector) => [...cell.querySelectorAll(selector)];
  const outside = (selector) => all(selector).filter(e => !e.parentElement.closest('.jupyter-widgets'));
  const page = cell.getBoundingClientRect().right;
  return {
    code: cell.classList.contains('jp-CodeCell'),
    prompt: cell.querySelector('.jp-InputPrompt').textContent.trim(),
    stderr: all('.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.stderr"]')
      .map(e => e.textContent).join(''),
    images: outside('.jp-OutputArea-output img').map(e => e.complete ? e.naturalWidth : 0),
    shrunk: all('.jp-OutputArea-output img').map(e => e.clientWidth / (e.naturalWidth || 1)),
    widgets: outside('.jupyter-widgets').length,
    tables: outside('.jp-OutputArea-output table').length,
    formulas: all('.jp-RenderedMarkdown mjx-container').length,
    bad_formulas: all('mjx-merror, mjx-mtext[style*="red"]').length,  // the latter: an undefined macro
    text: all('.jp-RenderedMarkdown').map(e => e.textContent).join(''),
    too_wide: all('.jp-OutputArea-output table, .jp-RenderedMarkdown table, mjx-container[display]')
      .filter(e => wide(e, page)).length,
  };
});
"""


@contextmanager
def jupyterlab(folder: Path, notebooks: Path) -> Iterator[str]:
    """Runs JupyterLab on a free port of loopback; gives the address of a notebook, with ``{}`` for its name.

    Settings, workspaces, run-time files and training runs go to ``folder``; it asks for no news and no updates.

    Raises:
        RuntimeError: the server does not start; with its log.
    """
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR",
             "JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR", "EMLC_RUNS")  # fmt: skip
    places = {name: folder / name for name in names}
    notification = (
        places["JUPYTERLAB_SETTINGS_DIR"] / "@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    )
    notification.parent.mkdir(parents=True)
    notification.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))
    token, log = secrets.token_hex(16), folder / "server.log"
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1",
               "--ServerApp.port=0", f"--ServerApp.root_dir={notebooks}", f"--IdentityProvider.token={token}",
               "--LabApp.extension_manager=readonly"]  # fmt: skip
    with log.open("w") as stream:
        server = subprocess.Popen(
            command, env=os.environ | {k: str(v) for k, v in places.items()}, stdout=stream, stderr=stream
        )
    try:
        record = places["JUPYTER_RUNTIME_DIR"] / f"jpserver-{server.pid}.json"  # written when it listens
        deadline = time.monotonic() + 60
        while not record.is_file():
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"JupyterLab does not start:\n{log.read_text()}")
            time.sleep(0.1)
        yield f"http://127.0.0.1:{json.loads(record.read_text())['port']}/lab/tree/{{}}?token={token}"
    finally:
        server.terminate()  # it ends its kernels itself
        server.wait(30)


@contextmanager
def chromium(profile: Path) -> Iterator[webdriver.Chrome]:
    """A headless Chromium with the empty ``profile``. Both paths are given, so that selenium looks for nothing."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS, f"--user-data-dir={profile}"]:
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(CHROMEDRIVER))
    try:
        yield browser
    finally:
        browser.quit()


class NotebookPage:
    """One notebook of ``n_cells`` cells, opened in JupyterLab, with a kernel."""

    def __init__(self, browser: webdriver.Chrome, address: str, n_cells: int):
        self.browser = browser
        browser.get(address)
        self.wait(60, "all cells", lambda: len(self.cells()) == n_cells and self.is_drawn())
        named = '//*[contains(@class, "jp-KernelName") and normalize-space()!="No Kernel"]'
        self.wait(60, "the kernel", lambda: self.browser.find_elements(By.XPATH, named))
        idle = ".jp-Notebook-ExecutionIndicator[data-status=idle]"
        self.wait(60, "an idle kernel", lambda: self.find(idle))

    def is_drawn(self) -> bool:
        """Whether each cell has its prompt or its text."""
        return all(cell["prompt"] if cell["code"] else cell["text"].strip() for cell in self.cells())

    def wait(self, seconds: float, what: str, condition: Callable[[], object]):
        """Waits until ``condition()`` is true and returns it; after ``seconds`` it raises a TimeoutException."""
        return WebDriverWait(self.browser, seconds).until(lambda _: condition(), f"{what}: not in {seconds} s")

    def find(self, selector: str) -> list[WebElement]:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def cells(self) -> list[dict]:
        """What a reader sees of each cell; see ``READ_CELLS``."""
        return self.browser.execute_script(READ_CELLS)

    def prompts(self) -> list[str]:
        """Of the code cells: ``[3]:`` when executed, ``[*]:`` when waiting, ``[ ]:`` before."""
        return [cell["prompt"] for cell in self.cells() if cell["code"]]

    def choose(self, menu: str, item: str) -> None:
        """Clicks an item of the menu bar."""
        for kind, label in (("MenuBar", menu), ("Menu", item)):
            path = f'//*[contains(@class, "lm-{kind}-itemLabel") and normalize-space()="{label}"]'
            self.wait(10, label, lambda path=path: self.browser.find_elements(By.XPATH, path))[0].click()

    def run_all(self, seconds: float) -> None:
        """Clears all outputs, runs all cells and waits until none is running or waiting."""
        self.choose("Edit", "Clear Outputs of All Cells")
        self.wait(10, "cleared outputs", lambda: set(self.prompts()) == {"[ ]:"})
        self.choose("Run", "Run All Cells")
        self.wait(30, "a cell that runs or has run", lambda: set(self.prompts()) != {"[ ]:"})
        self.wait(seconds, "the end of the last cell", lambda: "[*]:" not in self.prompts())

    def press(self, arrow: str) -> None:
        """Moves the first slider or number by one step with an arrow key, UP or DOWN; takes a menu's first."""
        kinds = (".noUi-handle", "input[type=number]", "select")
        control = self.find(", ".join(f".jupyter-widgets {kind}" for kind in kinds))[0]
        if control.tag_name == "select":  # whose keys open a list where there is no window manager
            Select(control).select_by_index(0)
        else:
            control.send_keys(getattr(Keys, f"ARROW_{arrow}"), Keys.TAB)

    def widget_image(self) -> str:
        """The address of the picture in the first widget that has one; empty without."""
        images = self.find(".jupyter-widgets img")
        return images[0].get_attribute("src") if images else ""

    def photograph(self, folder: Path, name: str) -> list[Path]:
        """Writes the window as ``name``-01.png, ..., scrolling from the notebook's top to its end."""
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(f"{name}-*.png"):
            old.unlink()
        (scroller,) = self.find(".jp-Notebook .jp-WindowedPanel-outer")
        step, paths, end = 0.9 * scroller.size["height"], [], False

        def scroll() -> bool:
            """Whether this is the end."""
            return self.browser.execute_script(
                "const [scroller, top] = arguments; scroller.scrollTop = top;"
                "const last = [...scroller.querySelectorAll('.jp-Cell')].at(-1);"
                "return last.getBoundingClientRect().bottom <= scroller.getBoundingClientRect().bottom",
                scroller, step * len(paths),
            )  # fmt: skip

        while not end:
            scroll()
            time.sleep(0.2)  # cells are drawn when they come into view, and may shift what is there
            end = scroll()
            paths.append(folder / f"{name}-{len(paths) + 1:02}.png")
            self.browser.save_screenshot(paths[-1])
        return paths
