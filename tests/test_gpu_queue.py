"""``make gpu`` on the CPU (``--trial``): the queue of a GPU machine on digits, killed, resumed and collected."""

import json
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

from benchmarks import gpu
from benchmarks.carry import collect, merge, read
from benchmarks.gpu import IMPORTS, main
from benchmarks.small_tables import PAPER, paper
from benchmarks.variants import repeated
from emlc_lib.networks.simclr import CHECKPOINT

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
    main(sys.argv[1:])
finally:
    print("IMPORTED", *sorted(seen - set(sys.stdlib_module_names) - {"emlc_lib", "benchmarks"}), flush=True)
"""


def start(folder, minutes):
    environment = os.environ | {"EMLC_DATA": str(folder / "data"), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    environment.pop("EMLC_RUNS", None)
    asked = {"seeds": 1, "minutes": minutes, "figures": folder / "figures", "out": folder / "out"}
    arguments = ["--trial", *(str(word) for name, value in asked.items() for word in (f"--{name}", value))]
    command = [sys.executable, "-c", RUNNER, ",".join(ABSENT), *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def steps_done(text):
    """Of the pretraining's 40 epochs of 5, by its progress bar."""
    return [int(n) for n in re.findall(r"SimCLR: .*?\| (\d+)/200 \[", text)]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The folder, and what four calls printed: killed, out of time, to the end, with nothing to do."""
    folder = tmp_path_factory.mktemp("gpu")
    killed = start(folder, 5)
    while killed.poll() is None and not list((folder / "data").glob(f"weights/*/{CHECKPOINT}")):
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    texts = [killed.communicate()[0]]
    assert killed.returncode == -signal.SIGKILL
    texts += [start(folder, minutes).communicate()[0] for minutes in (0.1, 5, 5)]
    return folder, texts


@pytest.mark.slow
def test_what_was_begun_goes_on_until_all_is_finished(done):
    folder, texts = done
    assert "the time is up: the next call goes on" in texts[1]
    assert min(steps_done(texts[1] + texts[2])) >= 5  # an epoch of the killed one
    (card,) = (folder / "data/weights").glob("*.json")
    assert json.loads(card.read_text())["log"]["epoch"] == list(range(1, 41))  # none twice
    assert "everything is finished" in texts[2]
    assert "everything is finished" in texts[3]
    assert not steps_done(texts[3])
    assert "Traceback" not in "".join(texts)


@pytest.mark.slow
def test_only_the_listed_packages_are_imported(done):
    lines = [line for text in done[1] for line in text.splitlines() if line.startswith("IMPORTED")]
    assert {name for line in lines for name in line.split()[1:]} == set(IMPORTS)


@pytest.mark.slow
def test_every_run_and_every_cost_is_there_with_its_provenance(done):
    folder, texts = done
    runs, costs = pd.read_csv(folder / "out/smoke_digits.csv"), pd.read_csv(folder / "out/step_cost_gpu.csv")
    assert set(zip(runs["method"], runs["k"], strict=True)) == set(PAPER)
    assert runs["hardware"].notna().all()
    assert runs["command"].str.startswith("papermill ").all()
    good = costs[costs["error"].isna()]
    assert set(good["execution"]) == {"float32", "bfloat16"}
    assert (good["seconds"] > 0).all()
    # What this machine cannot do is said, and stops nothing.
    failed = costs[costs["error"].notna()]
    assert set(failed["execution"]) == {"TF32", "CUDA graph, TF32"}
    assert failed["error"].str.contains("CUDA").all()
    assert re.search(r"TF32, EMLC k=1: .*CUDA", texts[0])
    assert "float32, plain SGD" not in texts[2]  # measured before


@pytest.mark.slow
def test_a_fresh_machine_knows_what_was_collected(done, tmp_path):
    """Runs and steps are rows of tables then, and nothing of them is done again."""
    folder, _ = done
    (tmp_path / "figures").mkdir()
    collect(folder / "out", tmp_path / "figures")
    carry = f"tar c -C {folder}/data weights | split -b 15MB - {tmp_path}/carried. && cat {tmp_path}/carried.*"
    (tmp_path / "data").mkdir()
    subprocess.run(f"{carry} | tar x -C {tmp_path}/data", shell=True, check=True)
    text = start(tmp_path, 5).communicate()[0]
    assert "everything is finished" in text
    assert "float32, " not in text
    assert not (tmp_path / "out/smoke_digits.csv").exists()


@pytest.mark.slow
def test_what_came_back_is_collected_once(done, tmp_path):
    folder, _ = done
    table = pd.read_csv(folder / "out" / "smoke_digits.csv", dtype=str)
    old = table.iloc[:2].assign(test_accuracy="0.5")
    old.to_csv(tmp_path / "smoke_digits.csv", index=False)
    assert collect(folder / "out", tmp_path)["smoke_digits.csv"] == len(table) - 2
    assert set(collect(folder / "out", tmp_path).values()) == {0}
    merged = read(tmp_path / "smoke_digits.csv")
    assert merged["digest"].is_unique
    assert (merged["test_accuracy"][:2] == "0.5").all()  # rows that were there stay as they are
    assert set(read(tmp_path / "step_cost_gpu.csv")["error"]) == {""}


def test_the_runs_of_the_paper_are_of_its_presets_columns_most_important_first():
    cifar10, cifar100 = ([config for _, config in paper(name, 2, preset="paper", device="cpu")]
                         for name in ("cifar10", "cifar100"))  # fmt: skip
    assert [(c.method, getattr(c, "k", 1)) for c in cifar10[:6]] == [*PAPER]
    assert {c.noise for c in cifar10[:6]} == {0.9}
    assert [c.seed for c in cifar10] == sorted(c.seed for c in cifar10)
    assert {(c.noise_type, c.noise) for c in cifar100} == {("symmetric", rate) for rate in (0.2, 0.5, 0.8, 0.9)}
    assert len([c for c in cifar10 if c.method == "clean_only"]) == 2  # one a seed: it sees no noise
    assert {c.model for c in cifar10} == {"resnet34"}
    assert {c.model for c in cifar100} == {"resnet50"}


@pytest.mark.parametrize("ends", ["finished", "the time is up"])
def test_what_fails_stops_nothing_and_is_said_at_the_end(ends, here, monkeypatch):
    def fail(*_):
        raise RuntimeError("no memory\nleft")

    def work(tables, folders, jobs, errors):
        errors.append(f"{next(iter(tables))}: failed")
        if ends == "the time is up":
            time.sleep(10)

    monkeypatch.setattr(gpu, "measure_costs", fail)
    monkeypatch.setattr(gpu, "work", work)
    with pytest.raises(SystemExit) as raised:
        main(["--trial", "--minutes", "0.01" if ends == "the time is up" else "1", "--out", str(here / "out")])
    assert raised.value.code == "costs: RuntimeError: no memory left\nsmoke_digits: failed"


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
        (["--minutes", "0"], "argument --minutes"),
        (["--minutes", "long"], "argument --minutes"),
        (["--seeds", "0"], "argument --seeds"),
        (["--trial", "--out", "/dev/null/x"], "--out: /dev/null is a file, not a folder"),
    ],
)
def test_bad_input_is_refused_by_name(arguments, message, here, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert f"error: {message}" in capsys.readouterr().err.splitlines()[-1]


def test_a_gpu_is_needed_or_a_trial_asked_for(here, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    began = time.monotonic()
    with pytest.raises(SystemExit, match="2"):
        main(["--out", str(here / "out")])
    assert "device: CUDA is not available on this machine" in capsys.readouterr().err
    assert time.monotonic() - began < 5
