"""Notebooks as a person meets them in JupyterLab; ``make browser-test``. Screenshots: build/jupyterlab/*.png.

What must appear is read off the stored notebook: as many figures, tables and widgets in each cell.
"""

import shutil
from collections import namedtuple
from pathlib import Path

import nbformat
import pytest

pytest.importorskip("selenium")
from jupyterlab_page import CHROMEDRIVER, CHROMIUM, NotebookPage, chromium, jupyterlab

# With the arrow key that moves the first control of the first widget, some of which begin at their end.
NOTEBOOKS = {
    "01_meta_gradient": "UP", "02_teacher": "UP", "08_tables": "UP", "10_your_data": "UP", "13_explore": "DOWN",
}  # fmt: skip
ROOT = Path(__file__).resolve().parents[2]
SECONDS = 600  # for all cells of a notebook
WIDGET = "application/vnd.jupyter.widget-view+json"

pytestmark = pytest.mark.browser
# `stored` is the file; `opened` and `ran` are what is seen of its cells before and after running them all.
Visit = namedtuple("Visit", "name stored opened ran page")


def visit(path, folder, photographs):
    """Opens a copy of the notebook, runs it, photographs it, and yields the Visit while the page is open."""
    if not (CHROMIUM and CHROMEDRIVER):
        pytest.skip("no chromium or chromedriver: apt-get install chromium chromium-driver")
    stored = nbformat.read(path, as_version=4)
    (folder / "notebooks").mkdir()
    shutil.copy(path, folder / "notebooks")
    with (
        pytest.MonkeyPatch.context() as patch,
        jupyterlab(folder, folder / "notebooks") as address,
    ):
        patch.setenv("no_proxy", "localhost,127.0.0.1")  # selenium speaks to the driver over HTTP
        with chromium(folder / "profile") as browser:
            page = NotebookPage(browser, address.format(path.name), len(stored.cells))
            opened = page.cells()
            try:
                page.run_all(SECONDS)
            finally:
                page.photograph(photographs, path.stem)
            yield Visit(path.stem, stored, opened, page.cells(), page)


@pytest.fixture(scope="module", params=NOTEBOOKS)
def visited(request, tmp_path_factory):
    path = ROOT / "notebooks" / f"{request.param}.ipynb"
    yield from visit(path, tmp_path_factory.mktemp("lab"), ROOT / "build" / "jupyterlab")


def stored_counts(notebook, *mime_types):
    """Of each cell: how many stored outputs have one of these types."""
    return [
        sum(any(mime in output.get("data", {}) for mime in mime_types) for output in cell.get("outputs", []))
        for cell in notebook.cells
    ]


def stored_tables(notebook):
    html = [[o.get("data", {}).get("text/html", "") for o in cell.get("outputs", [])] for cell in notebook.cells]
    return [sum(text.count("<table") for text in texts) for texts in html]


def seen(cells, what):
    return [len(cell[what]) if isinstance(cell[what], list) else cell[what] for cell in cells]


def prompts(cells):
    return [cell["prompt"] for cell in cells if cell["code"]]


def complaints(notebook, cells):
    """What is shown as an error or a warning; stored stderr (a progress bar) says that a cell may have some."""
    expected = [any(o.get("name") == "stderr" for o in cell.get("outputs", [])) for cell in notebook.cells]
    shown = [cell["stderr"] for cell in cells]
    return [text for text, ok in zip(shown, expected, strict=True) if text and (not ok or "Traceback" in text)]


def test_all_cells_run_and_none_shows_an_error(visited):
    n_code = sum(cell.cell_type == "code" for cell in visited.stored.cells)
    assert complaints(visited.stored, visited.ran) == []
    assert prompts(visited.ran) == [f"[{i}]:" for i in range(1, n_code + 1)]


def test_figures_and_tables_appear_when_opened_and_when_run(visited):
    figures = stored_counts(visited.stored, "image/png", "image/svg+xml")
    assert sum(figures) >= 1
    for cells in (visited.opened, visited.ran):
        assert seen(cells, "images") == figures
        assert all(width > 100 for cell in cells for width in cell["images"])
        assert seen(cells, "tables") == stored_tables(visited.stored)


def test_widgets_appear_and_follow_their_control(visited):
    assert seen(visited.ran, "widgets") == stored_counts(visited.stored, WIDGET)
    before = visited.page.widget_image()
    assert bool(before) == (sum(seen(visited.ran, "widgets")) > 0)
    if before:
        visited.page.press(NOTEBOOKS[visited.name])
        assert visited.page.wait(30, "another picture", lambda: visited.page.widget_image() not in ("", before))


def test_text_is_rendered_and_fits_the_page(visited):
    for stored, cell in zip(visited.stored.cells, visited.ran, strict=True):
        assert cell["bad_formulas"] == 0
        assert cell["too_wide"] == 0
        # A figure wider than the page is shrunk, and its text with it.
        assert all(share > 0.75 for share in cell["shrunk"])
        if stored.cell_type == "markdown":
            assert cell["text"].strip()
            assert "$" not in cell["text"]
            assert bool(cell["formulas"]) == ("$" in stored.source)


def test_a_broken_notebook_is_seen_to_be_broken(tmp_path):
    """The checks above can fail: an error, a picture that is none, a wrong formula, a table that is too wide."""
    code, text = nbformat.v4.new_code_cell, nbformat.v4.new_markdown_cell
    wide = "from IPython.display import HTML; HTML('<table><tr>' + '<td>unbreakable</td>' * 99 + '</tr></table>')"
    picture = "from IPython.display import Image; Image(b'none', format='png')"
    warning = "import sys; print('warning', file=sys.stderr)"
    cells = [text("A formula: $\\undefined$"), *map(code, (wide, warning, picture, "1 / 0", "print('never')"))]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    broken = nbformat.v4.new_notebook(cells=cells, metadata=kernel)
    nbformat.write(broken, tmp_path / "broken.ipynb")
    for result in visit(tmp_path / "broken.ipynb", tmp_path, tmp_path):
        assert prompts(result.ran) == ["[1]:", "[2]:", "[3]:", "[4]:", "[ ]:"]
        warning, error = complaints(broken, result.ran)
        assert warning.strip() == "warning"
        assert "ZeroDivisionError" in error
        assert seen(result.ran, "too_wide") == [0, 1, 0, 0, 0, 0]
        assert result.ran[3]["images"] == [0]
        assert result.ran[0]["bad_formulas"] == 1
