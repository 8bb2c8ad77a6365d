"""The README's map names every module, and nothing that is not there."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROWS = re.findall(r"^\| (`[^|]+) \|", (ROOT / "README.md").read_text(), flags=re.M)


def named():
    """Paths of the map; a name without a folder is in that of the one before it."""
    for row in ROWS:
        folder = ""
        for name in re.findall("`([^`]+)`", row):
            path = name if "/" in name else f"{folder}/{name}"
            folder = path.rstrip("/").rpartition("/")[0]
            yield path


def test_every_module_is_on_the_map():
    modules = {path.name for path in (ROOT / "emlc_lib").glob("*.py")} - {"__init__.py"}
    packages = {f"emlc_lib/{path.parent.name}/" for path in (ROOT / "emlc_lib").glob("*/__init__.py")}
    assert len(modules) > 50
    assert modules <= {Path(path).name for path in named()}
    assert packages <= set(named())


def test_every_notebook_is_on_the_map():
    notebooks = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert notebooks <= {Path(path).stem for path in named()}


def test_nothing_else_is_on_the_map():
    paths = [
        path for path in named() if path.startswith(("emlc_lib", "notebooks", "tests", "figures", "benchmarks"))
    ]
    assert len(paths) > 70
    for path in paths:
        assert any((ROOT / f"{path}{end}").exists() for end in ("", ".ipynb")), path
