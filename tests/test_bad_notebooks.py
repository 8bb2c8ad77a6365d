"""What notebooks refuse, in a ConfigError that begins with the parameter's name, before any training; and what
they must not refuse.

The table of refusals is generated: every parameter of every notebook, with values of each wrong type and just
outside its range. For it the cells up to the one that calls ``check_parameters`` run here, without a kernel.
"""

import contextlib
import functools
import io
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import nbformat
import pytest
from refusals import refused

from emlc_lib.experiments import notebook
from emlc_lib.experiments.notebook import _parameters
from emlc_lib.runtime.parameters import ConfigError

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


class Bad(NamedTuple):
    """A value that a notebook's parameter must not have; ``culprit`` is the name that the message begins with."""

    notebook: str
    name: str
    value: object
    culprit: str

    @property
    def id(self):
        return f"{self.notebook[:2]}-{self.name}={self.value!r}"[:60]


@functools.cache
def first_cells(stem):
    """The sources up to the parameters, theirs, and those from there up to the check."""
    cells = nbformat.read(ROOT / "notebooks" / f"{stem}.ipynb", as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    parameters = next(i for i, cell in enumerate(code) if "parameters" in cell.metadata.get("tags", []))
    check = next(i for i, cell in enumerate(code) if "check_parameters(" in cell.source)
    sources = [cell.source for cell in code]
    return sources[:parameters], sources[parameters], sources[parameters + 1 : check + 1]


def begin(stem, monkeypatch, **values):
    """Runs them with these values injected, as papermill does it."""
    before, parameters, after = first_cells(stem)
    injected = "# Parameters\n" + "\n".join(f"{name} = {value!r}" for name, value in values.items())
    variables = {"In": [], "display": print}
    monkeypatch.setattr(notebook, "get_ipython", lambda: SimpleNamespace(user_ns=variables))
    for source in (*before, parameters, injected, *after):
        variables["In"].append(source)
        with contextlib.redirect_stdout(io.StringIO()):
            exec(source, variables)


WORD = "nonesuch"
WRONG = {
    bool: [WORD, 2, None, [1]], int: [WORD, 0.5, True, [1], {"a": 1}], float: [WORD, True, [1], {"a": 1}],
    str: [5, 0.5, True, [1], {"a": 1}], list: [5, WORD, True, [], {"a": 1}, [[1]], [True], [None]],
    dict: [WORD, 5, True, [1], {3: 1}, {WORD: 1}],
    type(None): [5.5, True, [1], {"a": 1}],
}  # fmt: skip

# Just outside the range, or what no file, folder or name is, by parameter; each one in a list where lists belong.
OUTSIDE = {
    "seed": [-1, 2**31], "seeds": [-1, 2**31, 0.5, WORD], "k": [0, -1, 1001], "ks": [0, 1001, 0.5, WORD],
    "noise": [-0.01, 1.01], "noises": [-0.01, 1.01, WORD, "symmetric:", "symmetric:2", ":0.5", "nonesuch:0.5"],
    "lrs": [0, -1, 11, WORD], "momenta": [-0.1, 1, 1.5, WORD], "n": [0, 5, 9, 10**10], "suspicious": [0, -1],
    "processes": [0, -1], "epochs": [0, -1, WORD], "jobs": [0, -1, WORD], "patience": [0, 10_001, WORD],
    "image_size": [3, 0, WORD], "dataset": [WORD, ""], "preset": [WORD, ""], "model": [WORD, ""],
    "method": [WORD, ""], "methods": [WORD, 5], "weights": [WORD, 5], "equal": [WORD, ""], "start": [WORD, ""],
    "device": [WORD, "", "cuda:x"], "noise_type": [WORD, ""], "human_key": [""], "human_labels": [5, "no.npz"],
}  # fmt: skip
PLACES = ["v.csv", "v.csv/x", "~nobody-here/x", "x" * 300, "\0", 5]
OUTSIDE |= dict.fromkeys(("figures", "runs", "save"), PLACES)
OUTSIDE |= dict.fromkeys(("out", "sheet", "images", "clean", "labels"), PLACES[1:])
TABLES = ["csv", "ablation", "human_csv", "steps", "methods", "narrow", "growth", "data", "record"]
NO_TABLES = ["nowhere.csv", "x" * 300, "\0", "v.csv", "other.csv", "empty.csv", "."]
# What makes a value of these be looked at: alone, human labels need their noise, and digits need no data.
BESIDE = {"human_labels": {"noise_type": "human"}, "dataset": {}}


def generated():
    for path in NOTEBOOKS:
        defaults = _parameters(first_cells(path.stem)[1])
        yield Bad(path.stem, WORD, 1, WORD)
        for name, default in defaults.items():
            outside = OUTSIDE.get(name, [])
            if name in TABLES and isinstance(default, str):
                outside = NO_TABLES
            values = [[value] for value in outside] if isinstance(default, list) else outside
            wrong = [
                v
                for v in WRONG[type(default)]
                if type(v) is not type(default) or v in ([], {3: 1}, {WORD: 1}, [[1]], [True], [None])
            ]
            for value in [*wrong, *(v for v in values if v not in wrong)]:
                culprit = WORD if value == {WORD: 1} else name
                yield Bad(path.stem, name, value, culprit)
            if isinstance(default, dict):
                yield Bad(path.stem, name, {"seed": 1}, name)


BAD = list(generated())


@pytest.fixture
def files(here):
    """Tables that are none of a notebook's, and how the files there begin."""
    Path("v.csv").write_text("path,label\na.png,a\n")
    Path("other.csv").write_text("name,seed,digest\na,0,b\n")
    Path("empty.csv").write_text("dataset,preset,method,k,noise,seed\n")
    return here


def test_how_many_there_are():
    print(f"{len(BAD)} values of notebooks' parameters that must be refused, {len(NOTEBOOKS)} notebooks")
    assert len(BAD) > 300


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.id)
def test_refused_by_name_before_any_work(case, files, monkeypatch):
    data = {"dataset": "digits"} if "dataset" in first_cells(case.notebook)[1] else {}
    values = data | BESIDE.get(case.name, {}) | {case.name: case.value}
    if case.name == "human_labels":
        values["dataset"] = "cifar10"
    refusal = refused(lambda: begin(case.notebook, monkeypatch, **values), files)
    assert type(refusal.error) is ConfigError, refusal.error
    assert str(refusal.error).startswith(f"{case.culprit}: "), refusal.error
    assert len(str(refusal.error).splitlines()) == 1
    assert not refusal.changed
