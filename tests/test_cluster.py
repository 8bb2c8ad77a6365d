"""The job list of Table 1, its dry run, and jobs through submitit where that is installed."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

from emlc_lib import ConfigError, find_runs, make_config, run
from emlc_lib.commands import main
from emlc_lib.experiments.cluster import ClusterError, Resources, Training, submit
from emlc_lib.experiments.job_list import job_table, report, table_1
from emlc_lib.experiments.runs import state
from emlc_lib.experiments.sweep import grid
from emlc_lib.experiments.tables import paper_accuracy
from emlc_lib.training.config import from_values
from emlc_lib.training.trainer import CHECKPOINT

ELSEWHERE = {"device": "cuda", "device_here": False}
TINY = {"dataset": "digits", "preset": "smoke", "epochs": 1, "device": "cpu"}
LIST = ["table1", "-p", "dataset", "cifar100", "--seeds", "1"]
needs_submitit = pytest.mark.skipif(
    importlib.util.find_spec("submitit") is None, reason="the extra cluster is not installed"
)


@pytest.fixture
def no_cuda(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


def test_table_1_has_every_run_once(no_cuda):
    configs = table_1(5, preset="paper", **ELSEWHERE)
    # CIFAR-10: five columns (symmetric 20, 50, 80, 90 %, asymmetric 40 %), each with EMLC at two k and seven other
    # methods, and three that do not see the noise, of which one run per seed serves: 5 * 9 + 3 = 48.
    # CIFAR-100: the four symmetric columns: 4 * 9 + 3 = 39. Five seeds.
    assert len(configs) == 5 * (48 + 39) == 435
    assert len({config.name for config in configs}) == 435  # the run's folder
    # 66 of Table 1's 72 cells have a number: six are dashes (MW-Net four, MLC one, FasTEN one).
    assert sum(paper_accuracy(config) is not None for config in configs) == 5 * 66
    assert {getattr(config, "k", 1) for config in configs if config.method != "emlc"} == {1}
    assert {(c.dataset, c.model) for c in configs} == {("cifar10", "resnet34"), ("cifar100", "resnet50")}
    # All of seed 0 comes first, so that every cell has a number early.
    assert [config.seed for config in configs] == [seed for seed in range(5) for _ in range(87)]


def test_every_job_is_a_valid_configuration_for_a_gpu(no_cuda, monkeypatch):
    configs = table_1(1, preset="paper", **ELSEWHERE)
    again = [from_values(config.model_dump()) for config in configs]
    assert again == configs
    # The machine with the GPU gives the run the same folder.
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    there = make_config(dataset="cifar10", preset="paper", device="auto", noise=0.2, method="emlc", k=1, seed=0)
    assert there.device == "cuda"
    assert there.name == configs[0].name


def test_a_device_that_is_elsewhere_is_checked_all_the_same(no_cuda):
    config = make_config(dataset="cifar10", preset="auto", precision="tf32", **ELSEWHERE)
    assert (config.preset, config.device) == ("paper", "cuda")
    with pytest.raises(ConfigError, match=r"^device: must be auto, cpu, cuda"):
        make_config(dataset="digits", device="tpu", device_here=False)
    # The job itself does not start without it.
    with pytest.raises(ValueError, match="CUDA is not available on this machine"):
        Training(None)(config)


def test_runs_of_a_gpu_can_be_read_back_without_one(no_cuda, tmp_path):
    done = run(make_config(**TINY), root=tmp_path, show=False)
    result = json.loads((done.folder / "result.json").read_text())
    result["config"]["device"] = "cuda"
    (done.folder / "result.json").write_text(json.dumps(result))
    (read,) = find_runs(tmp_path)
    assert read.config == done.config.model_copy(update={"device": "cuda"})
    assert read.result["test_accuracy"] == done.result["test_accuracy"]


def put(root, config, file):
    (root / config.name).mkdir()
    (root / config.name / file).touch()


def test_the_dry_run_prints_and_writes_the_list_and_starts_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)  # cannot be imported
    runs = tmp_path / "runs"
    runs.mkdir()
    configs = table_1(1, ["cifar100"], preset="paper", **ELSEWHERE)
    put(runs, configs[0], "result.json")
    put(runs, configs[2], CHECKPOINT)
    before = sorted(tmp_path.rglob("*"))
    asked = {"gpus": "2", "cpus": "6", "hours": "1.5", "array": "8"}
    resources = [word for item in asked.items() for word in ("--resource", *item)] + ["--estimate", "3"]
    main([*LIST, "--runs", str(runs), *resources])
    assert sorted(tmp_path.rglob("*")) == before
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines[:39]] == [config.name for config in configs]
    asked = "2 GPU 6 CPU 1.5 h"
    assert lines[0].split(maxsplit=2) == ["-", "finished", f"{asked}  {configs[0].name}"]
    assert lines[1].split(maxsplit=2) == ["0", "missing", f"{asked}  {configs[1].name}"]
    assert lines[2].split(maxsplit=2) == ["1", "begun", f"{asked}  {configs[2].name}"]
    assert lines[38].split()[:2] == ["37", "missing"]  # 39 runs, one of them finished
    assert "39 runs: 1 finished, 1 begun, 37 missing" in lines
    assert "38 jobs, 8 at a time, each with a limit of 1.5 h" in lines
    # 38 jobs of 3 hours on 2 GPUs; five rounds of eight.
    assert lines[-1] == "at 3 h a run: 228 GPU hours, 0.6 days if none has to wait"

    main([*LIST, "--runs", str(runs), "--csv", str(tmp_path / "out" / "jobs.csv")])
    table = pd.read_csv(tmp_path / "out" / "jobs.csv")
    assert table["run"].tolist() == [config.name for config in configs]
    assert table["state"].tolist()[:4] == ["finished", "missing", "begun", "missing"]
    assert table["job"].tolist()[1:] == list(range(38))
    assert pd.isna(table["job"][0])
    assert set(table["gpus"]) == {1}


def test_the_summary_counts_the_jobs_of_every_cell(tmp_path):
    configs = table_1(2, preset="paper", **ELSEWHERE)
    resources = Resources()
    text = report(job_table(configs, resources, tmp_path), resources)
    # Symmetric 20, 50, 80, 90 %, asymmetric 40 %, and any noise, two seeds each.
    (first,) = [line for line in text.splitlines() if line.startswith("cifar10  emlc k=1")]
    assert first.split()[3:] == ["2", "2", "2", "2", "2", "0"]
    clean = [line.split()[1:] for line in text.splitlines() if line.strip().startswith("clean_only")]
    assert clean == [["0", "0", "0", "0", "0", "2"]] * 2
    assert "symmetric 0.2  symmetric 0.5  symmetric 0.8  symmetric 0.9  asymmetric 0.4  any" in text
    assert "174 runs: 0 finished, 0 begun, 174 missing" in text.splitlines()
    assert "GPU hours" not in text


WRONG = [
    (["--resource", "hours", "0"], "hours: "),
    (["--resource", "gpus", "-1"], "gpus: "),
    (["--resource", "cpus", "many"], "cpus: "),
    (["--resource", "array", "0"], "array: "),
    (["--resource", "memory", "inf"], "memory: "),
    (["--resource", "requeues", "0.5"], "requeues: "),
    (["--resource", "slurm", "[1]"], "slurm: "),
    (["--resource", "gpu", "1"], "gpu: "),
    (["--seeds", "0"], "seeds: must be at least 1 (got 0)"),
    (["-p", "preset", "large"], "preset: 'large' is not one of"),
    (["--estimate", "-1"], "Invalid value for '--estimate'"),
    (["-p", "device", "auto"], "device: of jobs must be cuda or cpu"),
    (["-p", "dataset", "digits"], "dataset: 'digits' is not one of Table 1's: cifar10, cifar100"),
    (["-p", "k", "2"], "k: is said by the table"),
    (["-y", "{options: {lrr: 2}}"], "did you mean 'lr'"),
    (["-y", "{options: 2}"], "options: must be a dictionary"),
    (["--submit", "--csv", "jobs.csv"], "--csv and --estimate: are for lists"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=[" ".join(a) for a, _ in WRONG])
def test_wrong_arguments_are_one_clear_error(arguments, message, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([*LIST, "--runs", str(tmp_path), *arguments])
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith("emlc table1: error: ")
    assert message in line
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_as_jobs(tmp_path, capsys):
    parameters = ["-y", "{dataset: digits, device: cpu, noise: [0.2, 0.5], method: [emlc, clean_only], epochs: 1}"]
    main(["sweep", *parameters, "--list", "--runs", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0:6] for line in lines[:3]] == [
        [str(i), "missing", "0", "GPU", "4", "CPU"] for i in range(3)
    ]
    for more, message in (
        (["--list", "--submit"], "--list, --submit and --jobs: are alternatives"),
        (["--resource", "gpus", "1"], "--resource and --estimate: are for jobs of a cluster"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main(["sweep", *parameters, *more])
        assert f"emlc sweep: error: {message}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_jobs_need_submitit_and_their_data(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "submitit", None)
    tiny = grid(["symmetric:0.5"], ["emlc"], [1], [0], **TINY)
    with pytest.raises(ClusterError, match=r"the extra cluster: pip install -e '\.\[cluster\]'"):
        submit(tiny, Resources(), tmp_path / "runs")
    with pytest.raises(SystemExit, match="2"):
        main(["sweep", "-y", "{dataset: digits, device: cpu}", "--runs", str(tmp_path / "runs"), "--submit"])
    assert capsys.readouterr().err.startswith("emlc sweep: error: submitit is not installed")
    monkeypatch.setenv("EMLC_DATA", str(tmp_path))
    with pytest.raises(ConfigError, match="dataset: cifar10 is not in"):
        submit(table_1(1, preset="paper", **ELSEWHERE), Resources(), tmp_path / "runs")
    assert list(tmp_path.iterdir()) == []


def test_a_job_trains_one_run_and_finished_ones_make_no_job(tmp_path):
    configs = grid(["symmetric:0.5"], ["cross_entropy"], [1], [0, 1], **TINY)
    assert Training(tmp_path)(configs[0]) == configs[0].name
    assert [state(config, tmp_path) for config in configs] == ["finished", "missing"]
    table = job_table(configs, Resources(), tmp_path)
    assert table["job"].isna().tolist() == [True, False]
    # With nothing left to do there is no need of a cluster.
    assert submit(configs[:1], Resources(), tmp_path) == []


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Stands in for SLURM's commands: sbatch takes everything, scontrol writes down what it is told."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in {
        "srun": "exit 1",
        "sbatch": 'grep -q "partition=none" "$1" && { echo "invalid partition" >&2; exit 1; }\n'
        "echo Submitted batch job 77",
        "scontrol": f'echo "$@" >> {tmp_path}/scontrol.txt',
    }.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def array_task(index, folder):
    """Starts what an array's job would on its machine."""
    job = {"SLURM_JOB_ID": "78", "SLURM_ARRAY_JOB_ID": "77", "SLURM_ARRAY_TASK_ID": str(index)}
    return subprocess.Popen(
        [sys.executable, "-m", "submitit.core._submit", folder],
        env=os.environ | job | {"SUBMITIT_EXECUTOR": "slurm"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@needs_submitit
def test_an_array_of_jobs_is_submitted_interrupted_and_resumed(slurm, tmp_path):
    root = tmp_path / "runs"
    configs = grid(["symmetric:0.5"], ["emlc", "cross_entropy"], [1], [0, 1], **TINY | {"epochs": 15})
    root.mkdir()
    put(root, configs[1], "result.json")
    resources = Resources(
        hours=2.5, gpus=1, cpus=3, memory=20, partition="gpu", array=2, slurm={"account": "me", "qos": "low"}
    )
    jobs = submit(configs, resources, root)
    assert [job.job_id for job in jobs] == ["77_0", "77_1", "77_2"]
    script = (root / "submitit" / "77_submission.sh").read_text()
    for line in ("array=0-2%2", "time=150", "gpus-per-node=1", "cpus-per-task=3", "mem=20GB", "partition=gpu"):
        assert f"#SBATCH --{line}\n" in script
    assert "#SBATCH --account=me\n" in script
    assert "#SBATCH --qos=low\n" in script
    # The tasks are the unfinished runs in their order; the first is preempted after an epoch or so.
    folder = root / configs[0].name
    task = array_task(0, root / "submitit")
    deadline = time.monotonic() + 120
    while not (folder / CHECKPOINT).is_file():
        assert task.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    task.send_signal(signal.SIGUSR2)
    task.wait(60)
    assert state(configs[0], root) == "begun"
    assert (tmp_path / "scontrol.txt").read_text() == "requeue 77_0\n"
    # What SLURM starts then is the same task.
    assert array_task(0, root / "submitit").wait(120) == 0
    assert state(configs[0], root) == "finished"
    assert [state(config, root) for config in configs[2:]] == ["missing", "missing"]


@needs_submitit
def test_what_slurm_or_submitit_refuse_is_one_error(slurm, tmp_path):
    configs = grid(["symmetric:0.5"], ["emlc"], [1], [0, 1], **TINY)
    with pytest.raises(ClusterError, match=r"SLURM refused the jobs: .*invalid partition"):
        submit(configs, Resources(partition="none"), tmp_path / "runs")
    with pytest.raises(ConfigError, match=r"slurm: .*'acount'"):
        submit(configs, Resources(slurm={"acount": "me"}), tmp_path / "runs")
    assert find_runs(tmp_path / "runs") == []
