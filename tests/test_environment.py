"""What is declared, locked and imported agree: the library needs no more than it imports, the lock has it all."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import yaml
from packaging.requirements import Requirement
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
LOCK = (ROOT / "requirements.lock").read_text()
# What the project was asked to be built from.
ASKED = {"torch", "torchvision", "jupyterlab", "matplotlib", "scikit-learn", "papermill", "nbval", "seaborn"}
# Where the extra `notebooks` may be imported, and what it has beside programs.
NOTEBOOKS_ONLY = (
    "experiments/figures/",
    "experiments/notebook.py",
    "experiments/explorers.py",
    "runtime/widgets.py",
    "estimator/paging.py",
)
IMPORTED_EXTRA = {"IPython", "ipywidgets", "seaborn", "papermill", "nbformat", "nbclient", "jupyterlab", "nbval"}
OWN = {"emlc_lib", "benchmarks"}
OTHER_NAMES = {"IPython": "ipython", "PIL": "pillow", "sklearn": "scikit-learn", "yaml": "pyyaml"}


def names(requirements):
    return {re.match(r"[\w-]+", r).group().lower() for r in requirements}


def locked():
    return dict(re.findall(r"^([\w.-]+)==([^ ;\\]+)", LOCK, re.M))


def modules(for_notebooks):
    files = {str(path.relative_to(ROOT / "emlc_lib")): path for path in (ROOT / "emlc_lib").rglob("*.py")}
    return {name: path for name, path in files.items() if name.startswith(NOTEBOOKS_ONLY) == for_notebooks}


def imported(files):
    """The distributions that these files import, at the top or within a function."""
    found = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(node.module.split(".")[0])
    return {OTHER_NAMES.get(name, name) for name in found - set(sys.stdlib_module_names) - OWN}


def test_the_library_needs_what_it_imports_and_no_more():
    needed = names(PROJECT["dependencies"])
    assert imported(modules(False).values()) - names(EXTRAS["cluster"]) == needed
    assert needed < imported(modules(True).values()) | needed <= needed | names(EXTRAS["notebooks"])
    assert needed | names(EXTRAS["notebooks"]) >= ASKED


WITHOUT = """
import importlib, sys
sys.modules |= dict.fromkeys({blocked!r})  # an import of None fails
for name in {modules!r}:
    importlib.import_module(name)
from emlc_lib.commands import main
main({arguments!r})
"""


def test_without_the_extra_all_but_notebooks_works(tmp_path):
    rows = ["path,label"]
    for i in range(16):
        path = tmp_path / "images" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 15 * i, np.uint8)).save(path)
        rows += [f"{'ab'[i % 2]}/{i}.png,{'ab'[i % 2]}"] * (i < 6)
    (tmp_path / "verified.csv").write_text("\n".join(rows))
    dotted = [".".join(("emlc_lib", *Path(name).with_suffix("").parts)) for name in modules(False)]
    dotted = [name.removesuffix(".__init__") for name in dotted]
    arguments = ["correct", "images", "--verified", "verified.csv", "-y", "{epochs: 1, image_size: 8}"]
    program = WITHOUT.format(blocked=sorted(IMPORTED_EXTRA), modules=sorted(dotted), arguments=arguments)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert {path.name for path in tmp_path.iterdir()} >= {"corrected.csv", "suspicious.png"}


def test_the_lock_covers_every_dependency_with_hashes():
    declared = names(PROJECT["dependencies"]) | names(EXTRAS["notebooks"]) | names(EXTRAS["test"])
    assert declared <= set(locked())
    entries = re.split(r"^(?=[\w.-]+==)", LOCK, flags=re.M)[1:]
    assert len(entries) > 100
    assert all("--hash=sha256:" in entry for entry in entries)
    # No option, and so none that says where packages come from.
    assert "://" not in LOCK
    assert set(re.findall(r"--[\w-]+", LOCK)) == {"--hash"}


def test_torch_and_torchvision_are_pairs_that_were_tested():
    allowed = {r.name: r.specifier for r in map(Requirement, PROJECT["dependencies"])}
    for torch, torchvision in ((locked()["torch"], locked()["torchvision"]), ("2.12.1", "0.27.1")):
        assert torch in allowed["torch"]
        assert torchvision in allowed["torchvision"]
        # torchvision 0.N belongs to torch 2.(N - 15)
        assert int(torchvision.split(".")[1]) == int(torch.split(".")[1]) + 15
    assert "2.13.0" not in allowed["torch"]  # has a build with which torchvision cannot be imported
    assert "0.28.0" not in allowed["torchvision"]


def test_the_environment_file_installs_the_project_itself():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == "emlc"
    conda = [d for d in environment["dependencies"] if isinstance(d, str)]
    (pip,) = [d["pip"] for d in environment["dependencies"] if isinstance(d, dict)]
    assert f"python{PROJECT['requires-python']}" in conda
    assert "pip" in conda
    assert pip == ["-e .[notebooks,test]"]


@pytest.mark.parametrize("name", sorted(ASKED))
def test_the_running_environment_is_the_locked_one(name):
    assert metadata.version(name) == locked()[name]
