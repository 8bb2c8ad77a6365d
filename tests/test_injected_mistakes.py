"""Mistakes that are easily made, put into a copy of the library: a test or a notebook must fail there.

``make mutation-test`` does the same by machine, with every small change that mutmut thinks of.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
META, NOISE = ["test_meta_gradient.py"], ["test_noise.py"]
LOSSES, METRICS = ["test_losses.py"], ["test_metrics.py"]
RUNS = ["test_reference_runs.py"]

# What is wrong: the file, the line's text before and after, and the tests that look there.
MISTAKES = {
    "wrong sign": ("core/meta_gradient.py", "lr * weight * product", "-lr * weight * product", META),
    "wrong sign, exact": ("core/meta_gradient.py", "vectors.append(-v)", "vectors.append(v)", META),
    "steps reversed": ("core/meta_gradient.py",
        "zip(weights, steps, strict", "zip(weights, steps[::-1], strict", META),
    "weights reversed": ("core/meta_gradient.py", "return weights[::-1]", "return weights", META),
    "sum for mean": ("core/meta_gradient.py", "(v * q).sum(1).mean()", "(v * q).sum(1).sum()", META),
    "gradient at the parameters after the step": ("methods/emlc.py",
        "InnerStep(before, images,", "InnerStep(parameters_of(self.student), images,", RUNS),
    "released order for matched": ("methods/emlc.py",
        'step_order == "reversed"', 'step_order != "reversed"', RUNS),
    "noise on the wrong axis": ("core/noise.py",
        "(np.arange(n_classes), successor)", "(successor, np.arange(n_classes))", NOISE),
    "matrix transposed": ("core/noise.py",
        "n_classes * true[known] + noisy[known]", "n_classes * noisy[known] + true[known]", NOISE),
    "label off by one": ("core/noise.py",
        "= successor[true[chosen]]", "= (successor[true[chosen]] + 1) % n_classes", NOISE),
    "class 0 never drawn": ("core/noise.py",
        "rng.integers(n_classes, size", "rng.integers(1, n_classes, size", NOISE),
    "softmax over the batch": ("core/losses.py",
        "F.log_softmax(logits, dim=1)", "F.log_softmax(logits, dim=0)", LOSSES),
    "gate learns the opposite": ("core/losses.py", "is_clean.to(", "(~is_clean).to(", LOSSES),
    "other half corrupted": ("core/losses.py",
        "torch.cat([drawn, labels[half:]])", "torch.cat([labels[half:], drawn])", LOSSES),
    "recovery of the given label": ("core/metrics.py",
        "for labels in (true, given)", "for labels in (given, given)", METRICS),
}  # fmt: skip
QUICK = ("wrong sign", "label off by one")


def copied(folder, name=None, before="", after=""):
    """A copy of the package, and of the benchmarks that tests use, with one text in the package replaced."""
    for package in ("emlc_lib", "benchmarks"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    if name:
        path = folder / "emlc_lib" / name
        text = path.read_text()
        assert text.count(before) == 1, f"{before!r} is {text.count(before)} times in {name}"
        path.write_text(text.replace(before, after))


def outcome(folder, *arguments):
    """Exit status and output of pytest, with the package of that folder."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *map(str, arguments)]
    places = f"{folder}{os.pathsep}{ROOT}"  # the copy comes first; the benchmarks have none
    environment = os.environ | {"PYTHONPATH": places, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT / "tests", env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout


@pytest.mark.slow
def test_without_a_mistake_they_pass(tmp_path):
    copied(tmp_path)
    status, output = outcome(tmp_path, *META, *NOISE, *LOSSES, *METRICS, *RUNS)
    assert status == 0, output


@pytest.mark.parametrize(
    "mistake", [m if m in QUICK else pytest.param(m, marks=pytest.mark.slow) for m in MISTAKES]
)
def test_a_mistake_is_found(tmp_path, mistake):
    *replacement, files = MISTAKES[mistake]
    copied(tmp_path, *replacement)
    status, output = outcome(tmp_path, *files)
    assert status == 1, output  # tests failed; 2 and more are pytest's own troubles
    assert "AssertionError" in output or "assert " in output


@pytest.mark.slow
def test_a_wrong_sign_fails_in_the_notebook(tmp_path):
    copied(tmp_path, *MISTAKES["wrong sign"][:3])
    notebook = ROOT / "notebooks" / "01_meta_gradient.ipynb"
    status, output = outcome(tmp_path, "--nbval-lax", "--nbval-current-env", notebook)
    assert status == 1, output
    assert "AssertionError" in output
