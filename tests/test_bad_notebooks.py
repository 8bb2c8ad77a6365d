"""What notebooks refuse, in an error that begins with the parameter's name, before any training; what they do not.

The table of refusals is generated: every parameter of every notebook, with values of each wrong type and just
outside its range. For it the cells up to the one that checks the last of them run here, without a kernel.
"""

import contextlib
import functools
import io
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import nbformat
import numpy as np
import papermill
import pytest
from refusals import refused

from emlc_lib.data.images import InputError
from emlc_lib.experiments import notebook
from emlc_lib.experiments.notebook import _parameters
from emlc_lib.runtime.parameters import ConfigError

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

# Where the last parameter is checked, if that is after the cell with ``check_parameters``: before any training.
LAST = {"03_cifar": "prepare(config)", "10_your_data": "classifier.fit("}


class Bad(NamedTuple):
    """A value that a notebook's parameter must not have; the message begins with ``culprit``."""

    notebook: str
    name: str
    value: object
    culprit: str

    @property
    def id(self):
        return f"{self.notebook[:2]}-{self.name}={self.value!r}"[:60]


@functools.cache
def first_cells(stem):
    """The sources before the parameters, theirs, and those from there up to the last check."""
    cells = nbformat.read(ROOT / "notebooks" / f"{stem}.ipynb", as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    parameters = next(i for i, cell in enumerate(code) if "parameters" in cell.metadata.get("tags", []))
    sources = [cell.source for cell in code]
    last = next(i for i, source in enumerate(sources) if LAST.get(stem, "check_parameters(") in source)
    return sources[:parameters], sources[parameters], sources[parameters + 1 : last + 1]


def begin(stem, monkeypatch, **values):
    """Runs them with these values injected, as papermill does it."""
    before, parameters, after = first_cells(stem)
    injected = "# Parameters\n" + "\n".join(f"{name} = {value!r}" for name, value in values.items())
    variables = {"In": []}
    monkeypatch.setattr(notebook, "get_ipython", lambda: SimpleNamespace(user_ns=variables))
    for source in (*before, parameters, injected, *after):
        variables["In"].append(source)
        with contextlib.redirect_stdout(io.StringIO()):
            exec(source, variables)


WORD = "nonesuch"
WRONG = {
    bool: [WORD, 2, None, [1]], int: [WORD, 0.5, True, [1], {"a": 1}], float: [WORD, True, [1], {"a": 1}],
    str: [5, 0.5, True, [1], {"a": 1}], list: [5, WORD, True, [], {"a": 1}, [[1]], [True], [None]],
    dict: [WORD, 5, True, [1], {3: 1}, {WORD: 1}, {"seed": 1}], type(None): [5.5, True, [1], {"a": 1}],
}  # fmt: skip

# Just outside the range, or what no file, folder or name is, by parameter; each one in a list where lists belong.
OUTSIDE = {
    "seed": [-1, 2**31], "seeds": [-1, 2**31, 0.5, WORD], "k": [0, -1, 1001], "ks": [0, 1001, 0.5, WORD],
    "noise": [-0.01, 1.01], "noises": [-0.01, 1.01, WORD, "symmetric:", "symmetric:2", ":0.5", f"{WORD}:0.5"],
    "lrs": [0, -1, 11, WORD], "momenta": [-0.1, 1, 1.5, WORD], "n": [0, 5, 49, 10**10], "suspicious": [0, -1],
    "processes": [0, -1], "epochs": [0, -1, WORD], "jobs": [0, -1, WORD], "patience": [0, 10_001, WORD],
    "image_size": [3, 0, WORD], "dataset": [WORD, ""], "preset": [WORD, ""], "model": [WORD, ""],
    "method": [WORD, ""], "methods": [WORD, 5], "weights": [WORD, 5], "equal": [WORD, ""], "start": [WORD, ""],
    "device": [WORD, "", "cuda:x"], "noise_type": [WORD, ""], "human_key": [""], "human_labels": [5, "no.npz"],
    "noise_file": [5, "no.npz"],
}  # fmt: skip
PLACES = ["v.csv/x", "~nobody-here/x", "x" * 300, "\0"]
OUTSIDE |= dict.fromkeys(("out", "sheet", "images", "clean", "labels"), PLACES)
OUTSIDE |= {name: ["v.csv", 5, *PLACES] for name in ("figures", "runs", "save")}
TABLES = ["csv", "ablation", "human_csv", "steps", "methods", "narrow", "growth", "data", "gpu", "small", "record"]
NO_TABLES = ["nowhere.csv", "v.csv", "other.csv", "empty.csv", ".", "x" * 300, "\0"]

# What else is needed for such a value to be looked at.
HUMAN = {"noise_type": "human", "dataset": "cifar10", "human_labels": "human.npz"}
BESIDE = {
    "human_labels": HUMAN, "human_key": HUMAN, "images": {"clean": "v.csv"}, "clean": {"images": "shirts"},
    "labels": {"images": "shirts", "clean": "v.csv"}, "noise_file": {"noise_type": "file"},
}  # fmt: skip


def generated():
    for path in NOTEBOOKS:
        yield Bad(path.stem, WORD, 1, WORD)
        for name, default in _parameters(first_cells(path.stem)[1]).items():
            outside = NO_TABLES if name in TABLES and isinstance(default, str) else OUTSIDE.get(name, [])
            if name == "save" and isinstance(default, str):
                outside = PLACES  # a file
            if isinstance(default, list):
                outside = [[value] for value in outside]
            for value in [*WRONG[type(default)], *outside]:
                yield Bad(path.stem, name, value, WORD if value == {WORD: 1} else name)


BAD = [
    *generated(),
    Bad("09_fidelity", "k", 1, "k"),
    Bad("11_clothing1m", "options", {"resized_copy": True}, "options"),
]


@pytest.fixture
def files(here):
    """Tables that are none of a notebook's, and a folder of images."""
    Path("v.csv").write_text("path,label\na/a.png,a\n")
    Path("other.csv").write_text("name,seed,digest\na,0,b\n")
    np.savez("human.npz", worse_label=np.zeros(50_000, int))
    Path("empty.csv").write_text("dataset,preset,method,k,noise,seed\n")
    for name in "ab":
        (here / "shirts" / name).mkdir(parents=True)
        (here / "shirts" / name / f"{name}.png").touch()
    return here


def test_how_many_there_are():
    print(
        f"{len(BAD)} values of parameters that {len(NOTEBOOKS)} notebooks must refuse, {len(GOOD)} that they take"
    )
    assert len(BAD) > 1000


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.id)
def test_refused_by_name_before_any_work(case, files, monkeypatch):
    values = {"dataset": "digits"} if "dataset = " in first_cells(case.notebook)[1] else {}
    values |= BESIDE.get(case.name, {}) | {case.name: case.value}
    refusal = refused(lambda: begin(case.notebook, monkeypatch, **values), files)
    assert type(refusal.error) in (ConfigError, InputError, FileNotFoundError), refusal.error
    (line,) = str(refusal.error).splitlines()
    assert line.startswith(f"{case.culprit}: "), line
    assert not refusal.changed


# Allowed values at the ends of ranges, and tables of other settings: what holds of the defaults may not here.
DIGITS = {"csv": "", "dataset": "digits", "preset": "smoke", "seeds": [0]}
GOOD = [
    ("01_meta_gradient", {"seed": 5, "seeds": [7], "ks": [1], "lrs": [0.5], "momenta": [0.5]}),
    ("02_teacher", {"noise": 0}),
    ("02_teacher", {"noise": 0.01}),
    ("04_pretrain_simclr", {"dataset": "digits", "epochs": 1}),
    ("05_label_recovery", {**DIGITS, "noises": [0, 1]}),
    ("06_tsne", {**DIGITS, "n": 100}),
    ("07_look_ahead", {**DIGITS, "ks": [1], "noises": [0]}),
    ("07_look_ahead", {**DIGITS, "ks": [2], "weights": ["momentum"], "noises": [0.9]}),
    ("07_look_ahead", {"csv": "look_ahead_equal_updates_smoke_digits.csv"}),
    ("08_tables", {**DIGITS, "methods": ["cross_entropy", "clean_only"], "noises": [0.9]}),
    ("08_tables", {**DIGITS, "methods": ["emlc"], "ks": [1], "noises": [0, "symmetric:0.5"]}),
    ("08_tables", {**DIGITS, "methods": ["clean_only"], "noises": ["symmetric:0"]}),
    ("08_tables", {"csv": "smoke_digits.csv", "ablation": "ablation_smoke_digits.csv"}),
    ("13_explore", {"noise": 0}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("stem", "parameters"), GOOD, ids=lambda value: str(value)[:60])
def test_allowed_values_work(stem, parameters, tmp_path, monkeypatch):
    monkeypatch.setenv("EMLC_RUNS", str(tmp_path / "runs"))
    path = ROOT / "notebooks" / f"{stem}.ipynb"
    done = papermill.execute_notebook(path, tmp_path / "out.ipynb", parameters, cwd=tmp_path, progress_bar=False)
    warned = [o.text for c in done.cells for o in c.get("outputs", []) if o.get("name") == "stderr"]
    assert not [text for text in warned if "Warning" in text]
