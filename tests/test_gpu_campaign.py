"""``make gpu`` on the CPU (``--trial``): the queue of a GPU machine on digits, killed, resumed and collected."""

import argparse
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from benchmarks.campaign import CAMPAIGN, Campaign
from benchmarks.carry import collect, merge, read
from benchmarks.deadline import OutOfTime
from benchmarks.gpu import IMPORTS, main
from benchmarks.variants import repeated

ROOT = Path(__file__).resolve().parents[1]
# A lent machine has none of these.
ABSENT = (
    "matplotlib", "seaborn", "IPython", "ipywidgets", "ipykernel", "jupyterlab", "papermill", "nbval",
    "click", "yaml",
)  # fmt: skip
# Runs the command without the absent packages; says what modules of others this project's files imported.
RUNNER = """
import builtins, sys
absent, seen, plain = set(sys.argv.pop(1).split(",")), set(), builtins.__import__
def watched(name, scope=None, *rest):
    top = name.partition(".")[0]
    if top in absent:
        raise ModuleNotFoundError(name)
    level = rest[2] if len(rest) > 2 else 0
    if scope and str(scope.get("__name__")).startswith(("emlc_lib", "benchmarks", "__main__")) and not level:
        seen.add(top)
    return plain(name, scope, *rest)
builtins.__import__ = watched
from benchmarks.gpu import main
try:
    code = main(sys.argv[1:])
finally:
    print("IMPORTED", *sorted(seen - set(sys.stdlib_module_names) - {"emlc_lib", "benchmarks"}), flush=True)
sys.exit(code)
"""


def start(folder, minutes):
    environment = os.environ | {"EMLC_DATA": str(folder / "data"), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    environment.pop("EMLC_RUNS", None)
    arguments = [
        "work",
        "--trial",
        "--seeds",
        "1",
        "--minutes",
        str(minutes),
        "--figures",
        str(folder / "figures"),
    ]
    command = [sys.executable, "-c", RUNNER, ",".join(ABSENT), *arguments, "--out", str(folder / "out")]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The folder, and what four calls printed: killed, too short, to the end, with nothing to do."""
    folder = tmp_path_factory.mktemp("gpu")
    killed = start(folder, 5)
    texts = [""]
    for line in killed.stdout:
        texts[0] += line
        if texts[0].count("NT-Xent") == 2:  # in the middle of the pretraining, with a checkpoint on disk
            killed.send_signal(signal.SIGKILL)
            break
    killed.stdout.close()
    assert killed.wait() == -signal.SIGKILL
    texts.append(start(folder, 0.02).communicate()[0])
    texts.append(start(folder, 5).communicate()[0])
    texts.append(start(folder, 5).communicate()[0])
    return folder, texts


@pytest.mark.slow
def test_what_was_begun_goes_on_until_all_is_finished(done):
    _, texts = done
    assert "digits: SimCLR start of small_cnn begun" in texts[1]
    assert "the time is up" in texts[1]
    assert "pieces are left, next: " in texts[1]
    assert "everything is finished" in texts[2]
    epochs = [line for text in texts for line in text.splitlines() if "NT-Xent" in line]
    assert len(epochs) <= 41  # of 40: what was killed in the middle of an epoch repeats that one
    assert "Traceback" not in "".join(texts)


@pytest.mark.slow
def test_it_stops_after_an_epoch_if_the_next_would_not_fit(tmp_path, monkeypatch):
    monkeypatch.setenv("EMLC_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("EMLC_RUNS", raising=False)
    (tmp_path / "out").mkdir()
    asked = dict(trial=True, minutes=5, seeds=1, out=tmp_path / "out", figures=tmp_path, given=[])
    campaign = Campaign(argparse.Namespace(**asked))
    (start,) = [piece for piece in campaign.pieces if "SimCLR" in piece.name]
    assert start.state() == "missing"
    campaign.ends = time.monotonic()
    with pytest.raises(OutOfTime):
        start.do()
    assert start.state() == "begun"
    campaign.ends = math.inf
    start.do()
    assert start.state() == "finished"
    epochs = re.findall(r"epoch (\d+): NT-Xent", (tmp_path / "out" / "log.txt").read_text())
    assert epochs == [str(i + 1) for i in range(len(epochs))]  # none twice
    assert len(epochs) > 2


@pytest.mark.slow
def test_a_call_with_everything_done_does_nothing(done):
    assert "nothing to do" in done[1][-1]
    assert "epoch" not in done[1][-1]


@pytest.mark.slow
def test_only_the_listed_packages_are_imported(done):
    imported = {
        name
        for text in done[1]
        for line in text.splitlines()
        if line.startswith("IMPORTED")
        for name in line.split()[1:]
    }
    assert imported == set(IMPORTS)


@pytest.mark.slow
def test_every_run_and_every_cost_is_there_with_its_provenance(done):
    folder, _ = done
    runs, costs = pd.read_csv(folder / "out" / "runs.csv"), pd.read_csv(folder / "out" / "step_cost_gpu.csv")
    assert set(zip(runs["method"], runs["k"], strict=True)) == set(CAMPAIGN)
    assert runs["hardware"].notna().all()
    assert runs["command"].str.startswith("papermill ").all()
    good = costs[costs["error"].isna()]
    assert set(good["execution"]) == {"float32", "bfloat16"}
    assert (good["seconds"] > 0).all()
    # What this machine cannot do is said, and stops nothing.
    failed = costs[costs["error"].notna()]
    assert set(failed["execution"]) == {"TF32", "CUDA graph, TF32"}
    assert failed["error"].str.contains("CUDA").all()
    report = json.loads((folder / "out" / "report.json").read_text())
    assert report["tests"]["failures"] == report["tests"]["errors"] == 0
    assert set(report["pieces"].values()) == {"finished"}


@pytest.mark.slow
def test_a_fresh_machine_knows_what_was_collected(done, tmp_path):
    """Runs and steps are rows of tables then; the weights have come along as gpu.py says, and tests run again."""
    folder, _ = done
    fresh = tmp_path / "fresh"
    (fresh / "figures").mkdir(parents=True)
    collect(folder / "out", fresh / "figures")
    (fresh / "data").mkdir()
    carry = f"tar c -C {folder}/data weights | split -b 15MB - {fresh}/carried. && cat {fresh}/carried.*"
    subprocess.run(f"{carry} | tar x -C {fresh}/data", shell=True, check=True)
    text = start(fresh, 0.0001).communicate()[0]
    assert "SimCLR start of small_cnn finished" in text
    assert "step cost: float32 finished, TF32 missing, bfloat16 finished" in text
    (runs,) = [line for line in text.splitlines() if line.startswith("digits, symmetric 0.9, seed 0:")]
    assert runs.count("finished") == len(CAMPAIGN)


@pytest.mark.slow
def test_what_came_back_is_collected_once(done, tmp_path):
    folder, _ = done
    table = pd.read_csv(folder / "out" / "runs.csv", dtype=str)
    old = table.iloc[:2].assign(test_accuracy="0.5")
    old.to_csv(tmp_path / "smoke_digits.csv", index=False)
    assert collect(folder / "out", tmp_path)["smoke_digits.csv"] == len(table) - 2
    assert set(collect(folder / "out", tmp_path).values()) == {0}
    merged = read(tmp_path / "smoke_digits.csv")
    assert merged["digest"].is_unique
    assert (merged["test_accuracy"][:2] == "0.5").all()  # rows that were there stay as they are


@pytest.mark.parametrize(("precision", "products"), [("float32", "ieee"), ("tf32", "tf32"), ("bfloat16", "tf32")])
def test_steps_are_timed_in_their_own_precision(precision, products):
    """torch's own default would round float32 convolutions to TF32, and nothing else."""
    seen = []
    backends = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    method = SimpleNamespace(
        config=SimpleNamespace(precision=precision),
        step=lambda t: seen.append([t, *(backend.fp32_precision for backend in backends)]),
    )
    before = [backend.fp32_precision for backend in backends]
    repeated(method, 2)()
    assert seen == [[0, products, products], [1, products, products]]
    assert [backend.fp32_precision for backend in backends] == before


def test_merge_replaces_if_asked(tmp_path):
    path = tmp_path / "t.csv"
    assert merge(path, pd.DataFrame({"k": ["a"], "v": [1]}), ["k"]) == 1
    assert merge(path, pd.DataFrame({"k": ["a", "b"], "v": [2, 3]}), ["k"], replace=True) == 1
    assert read(path).to_dict("list") == {"k": ["a", "b"], "v": ["2", "3"]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["work", "--minutes", "0"], "--minutes"),
        (["work", "--minutes", "long"], "--minutes"),
        (["work", "--seeds", "0"], "--seeds"),
        (["collect", "nowhere"], "DIR: nowhere has no readable report.json"),
        (["work", "--out", "/dev/null/x"], "--out: /dev/null is a file, not a folder"),
    ],
)
def test_bad_input_is_refused_by_name(arguments, message, here, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"gpu: error: {message}")


def test_a_gpu_is_needed_or_a_trial_asked_for(here, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    began = time.monotonic()
    with pytest.raises(SystemExit, match="2"):
        main(["work", "--out", str(here / "out")])
    assert "device: CUDA is not available on this machine" in capsys.readouterr().err
    assert time.monotonic() - began < 5
