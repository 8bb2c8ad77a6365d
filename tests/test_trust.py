"""Files from elsewhere are data: nothing in them is run. And the command line writes only where it is told to."""

import ast
import importlib
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from emlc_lib.commands import main

ROOT = Path(__file__).resolve().parent.parent
# What can run code that a file holds, as it is written after the last dot but one.
RUNS_CODE = (
    r"(^|\.)(torch\.load|jit\.load|hub\.load|load_state_dict_from_url|get_state_dict|joblib\.load|read_pickle)$"
    r"|^(eval|exec|compile|__import__)$"
)
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "yaml", "runpy", "code"}
# Each with what makes it safe: no pickled objects, and the checksum in the file's published name.
PERMITTED = {
    ("parameters.py", "import yaml"): "import YAMLError, safe_load",  # which makes no objects
    ("weights.py", "import pickle"): "",  # for the name of its error
    ("weights.py", "torch.load"): "weights_only=True",
    ("weights.py", "weights.get_state_dict"): "check_hash=True, map_location='cpu', weights_only=True",
}


def dangers(source):
    """What in the source can run code from a file: names of calls and imports, and their text."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            yield from ((f"import {n}", ast.unparse(node)) for n in names if n.split(".")[0] in MODULES)
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            allows = [k for k in node.keywords if k.arg == "allow_pickle" and ast.unparse(k.value) != "False"]
            if allows or re.search(RUNS_CODE, name):
                yield name, ast.unparse(node)


@pytest.mark.parametrize(
    "line",
    [
        "import pickle", "from pickle import load", "import os, yaml", "torch.load(path)",
        "torch.load(path, weights_only=False)", "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=trusted)", "pd.read_pickle(path)", "joblib.load(path)",
        "x = [eval(text) for text in lines]", "exec(compile(text, 'f', 'exec'))",
        "torch.hub.load(name, 'model')",
    ],
)  # fmt: skip
def test_the_search_finds(line):
    assert list(dangers(line))


@pytest.mark.parametrize(
    "line", ["model.eval()", "np.load(path, allow_pickle=False)", "torch.compile(f)", "load_file(p)"]
)
def test_the_search_passes_over(line):
    assert not list(dangers(line))


def test_nothing_in_the_package_runs_code_from_files():
    found = {}
    for path in [*(ROOT / "emlc_lib").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]:
        found |= {(path.name, name): text for name, text in dangers(path.read_text())}
    assert set(found) <= set(PERMITTED)
    assert ("weights.py", "torch.load") in found
    for key, text in found.items():
        assert PERMITTED[key] in text


@pytest.mark.parametrize("cls", [datasets.CIFAR10, datasets.CIFAR100])
def test_every_pickle_of_cifar_has_a_checksum(cls):
    """torchvision compares it before it opens the file; tests/test_bad_files.py has a file of another one."""
    sums = dict(cls.train_list + cls.test_list) | {cls.meta["filename"]: cls.meta["md5"]}
    assert len(sums) >= 3
    assert all(re.fullmatch("[0-9a-f]{32}", md5) for md5 in sums.values())


WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod"}
recorded: list[str] | None = None


def record(event, arguments):
    if recorded is None:
        return
    if event == "open":
        path, _, flags = arguments
        paths = [path] if flags & WRITES else []
    else:
        paths = arguments if event in CHANGES else []
    recorded.extend(os.path.abspath(os.fsdecode(p)) for p in paths if isinstance(p, str | bytes | os.PathLike))


@pytest.fixture
def writes():
    """Paths that Python writes to, makes, moves or removes while the test runs; hooks cannot be taken off."""
    global recorded
    recorded = []
    sys.addaudithook(record)
    yield recorded
    recorded = None


@pytest.mark.filterwarnings("ignore:the gate stayed", "ignore:no label was changed")  # in so few steps
def test_the_command_line_writes_only_where_it_is_told_to(tmp_path, monkeypatch, writes):
    # Whoever imports it first makes matplotlib write its list of fonts into the user's folder, once.
    importlib.import_module("matplotlib.pyplot")
    rng = np.random.default_rng(0)
    rows = ["path,label"]
    for i in range(16):
        name = f"{'ab'[i % 2]}/{i}.png"
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(tmp_path / "images" / name)
        rows += [f"{name},{name[0]}"] * (i < 6)
    (tmp_path / "verified.csv").write_text("\n".join(rows))
    told, elsewhere = tmp_path / "told", tmp_path / "elsewhere"
    told.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("HOME", str(elsewhere))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    writes.clear()
    arguments = {"--verified": tmp_path / "verified.csv", "--out": told / "c.csv", "--sheet": told / "s.png",
                 "--save": told / "e.safetensors", "-y": "{epochs: 1, image_size: 8}"}  # fmt: skip
    main(["correct", str(tmp_path / "images"), "--quiet", *(str(x) for pair in arguments.items() for x in pair)])
    assert {path.name for path in told.iterdir()} == {"c.csv", "s.png", "e.safetensors"}
    assert any(path.startswith(f"{told / 'c.csv'}.") for path in writes)
    outside = [path for path in writes if not Path(path).is_relative_to(told) and path != os.devnull]
    assert not outside
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert {path: time for path, time in after.items() if not path.is_relative_to(told)} == before
