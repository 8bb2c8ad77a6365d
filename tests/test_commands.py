"""The command emlc: its help, its parameters, what it refuses, and runs by it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from papermill.cli import _resolve_type

from emlc_lib import find_runs, make_config
from emlc_lib.commands import COMMANDS, main
from emlc_lib.commands.parameters import value_of
from emlc_lib.experiments.runs import command, state
from emlc_lib.methods import METHODS
from emlc_lib.networks.pretrain_config import PretrainConfig
from emlc_lib.training.config import Config, config_class

ROOT = Path(__file__).resolve().parents[1]
FAST = "{dataset: digits, device: cpu, noise: 0.5, options: {epochs: 1}}"


def process(arguments, **options):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # Jobs in a shell's background, and all that they start, ignore Ctrl-C.
    heeds = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    return subprocess.Popen([sys.executable, *arguments], env=environment, **streams, **heeds, **options)


class TestHelp:
    def test_it_names_every_command_and_imports_none_of_them(self):
        code = (
            "import sys; from emlc_lib.commands import main; main(['--help']); "
            "print({'torch', 'pandas', 'pydantic'} & {*sys.modules})"
        )
        shown, _ = process(["-c", code]).communicate()
        assert set(re.findall(r"^  (\w+)  ", shown, re.M)) == set(COMMANDS)
        assert shown.endswith("set()\n")

    def test_of_a_run_it_names_every_parameter_with_range_and_default(self, capsys):
        assert main(["run", "--help"]) == 0
        text = capsys.readouterr().out
        listed = re.findall(r"^  (\w+)  +\S", text, re.M)
        fields = {name for method in METHODS for name in config_class(Config, method).model_fields}
        assert sorted(listed) == sorted({*fields, "processes"})  # each once
        words = " ".join(text.split())
        for line in (
            "noise number, >= 0, <= 1; default 0.9. noise rate of Appendix E",
            "epochs integer, > 0, <= 10000; default 25 (smoke); 2 (quick); 4 (small); 15 (paper)",
            "dataset digits, fashion_mnist, cifar10, cifar100, clothing1m; default cifar10",
            "mlnt_sets integer, >= 1, <= 100; default 10; 2 (quick). M, sets",
            "Parameters of emlc, emlc_consistent, mlc: k integer",
        ):
            assert line in words

    def test_of_a_pretraining(self, capsys):
        main(["pretrain", "--help"])
        text = capsys.readouterr().out
        assert {f"  {name} " for name in PretrainConfig.model_fields} <= set(re.findall(r"^  \w+ ", text, re.M))

    @pytest.mark.parametrize("name", COMMANDS)
    def test_every_command_has_one(self, name, capsys):
        try:
            assert main([name, "--help"]) == 0
        except SystemExit as ended:  # argparse's, of gpu
            assert ended.code == 0  # noqa: PT017
        assert capsys.readouterr().out.lower().startswith(f"usage: emlc {name}")


class TestParameters:
    @pytest.mark.parametrize(
        "text", ["True", "None", "1", "-1", "0.5", "1e-3", "1_0", "nan", "emlc", "true", "", "1:2"]
    )
    def test_their_values_are_papermills(self, text):
        assert repr(value_of(text)) == repr(_resolve_type(text))

    def test_lists_are_yaml(self):
        assert value_of("[0.5, asymmetric:0.4, emlc]") == [0.5, "asymmetric:0.4", "emlc"]

    def test_later_ones_win_and_text_stays_text(self, tmp_path, capsys):
        (tmp_path / "p.yml").write_text("{dataset: digits, noise: 0.1, seed: 7, epochs: 1}")
        more = ["-y", "{noise: 0.2, seed: 8}", "-p", "seed", "9", "-r", "human_key", "9", "-p", "device", "cpu"]
        main(["sweep", "--list", "-f", str(tmp_path / "p.yml"), *more, "-p", "method", "emlc"])
        config = make_config(dataset="digits", device="cpu", noise=0.2, seed=9, epochs=1, human_key="9")
        assert config.name in capsys.readouterr().out

    def test_the_command_that_a_run_stores_makes_the_same_run(self, tmp_path, capsys):
        config = make_config(dataset="digits", noise=0.5, epochs=1, lr=0.1, n_noisy=200, device="cpu")
        line = re.sub(r"^papermill \S+ \S+ ", "", command(config))
        given = re.findall(r"-p (\S+) (\S+)|-y \'(.*)\'", line)
        arguments = [word for name, value, y in given for word in (["-y", y] if y else ["-p", name, value])]
        main(["run", *arguments, "-p", "device", "cpu", "--runs", str(tmp_path)])
        (finished,) = find_runs(tmp_path)
        assert finished.config == config
        assert capsys.readouterr().out.startswith(f"{config.name}: test accuracy ")


def test_a_table_that_cannot_be_written_says_where_the_runs_are(tmp_path, capsys, monkeypatch):
    write = pd.DataFrame.to_csv

    def full(table, path, **options):
        if Path(path).name.startswith("t.csv"):
            raise OSError(28, "No space left on device", str(path))
        return write(table, path, **options)

    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    words = "sweep -p dataset digits -p noise 0.5 -p method cross_entropy -p epochs 1 -p n_noisy 200 -p device cpu"
    with pytest.raises(SystemExit, match="2"):
        main([*words.split(), "--jobs", "1", "--runs", str(tmp_path / "runs"), "--csv", str(tmp_path / "t.csv")])
    (last,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert "No space left on device" in last
    assert last.endswith(f"; the 1 runs are kept in {tmp_path / 'runs'}")
    assert len(find_runs(tmp_path / "runs")) == 1


MISTAKES = [
    ("", "emlc: error: Missing command."),
    ("rnu", "emlc: error: No such command 'rnu'"),
    ("run -p nosie 0.9", "emlc run: error: nosie: unknown parameter; did you mean 'noise'?"),
    ("run -p noise", "emlc run: error: Option '-p' requires 2 arguments"),
    ("run -p noise 2", "emlc run: error: noise: Input should be less than or equal to 1"),
    ("run -p noise [0.5", "emlc run: error: -p: '[0.5' is not YAML"),
    ("run -y 3", "emlc run: error: -y: must be a dictionary"),
    ("run -y {1:2}", "emlc run: error: -y: must be a dictionary"),
    ("run -f nowhere.yml", "emlc run: error: nowhere.yml: No such file or directory"),
    ("run -p mlc_lr 0.1", "emlc run: error: mlc_lr: is a parameter of method mlc, not of emlc"),
    ("run -p processes two", "emlc run: error: processes: must be a positive integer"),
    ("run -p dataset digits -p device cuda", "emlc run: error: device: CUDA is not available"),
    ("run -p dataset digits -p n_noisy 10 -p batch_size 11", "emlc run: error: batch_size: 11 is more than"),
    ("run -p dataset clothing1m -p preset smoke", "emlc run: error: dataset: "),
    ("sweep --jobs 0 -p dataset digits", "emlc sweep: error: jobs: must be None or a positive integer"),
    ("sweep -p seed []", "emlc sweep: error: seeds: must be a list of one or more values"),
    ("sweep -p options 1", "emlc sweep: error: options: must be a dictionary"),
    ("table1 -p method emlc", "emlc table1: error: method: is said by the table"),
    ("pretrain -p view_size 3", "emlc pretrain: error: view_size: Input should be greater than 3"),
    ("pretrain -p dataset digits -p epochs 1", "emlc pretrain: error: --out: "),
    ("correct nowhere --verified v.csv", "emlc correct: error: FOLDER: nowhere is not a folder"),
    ("clothing1m copy nowhere", "emlc clothing1m: error: "),
    ("reproduce", "emlc reproduce: error: there is no "),
]


@pytest.mark.parametrize(("line", "message"), MISTAKES, ids=[line for line, _ in MISTAKES])
def test_a_mistake_is_one_line_and_status_2(line, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMLC_DATA", str(tmp_path))
    monkeypatch.delenv("EMLC_RUNS", raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("emlc_lib.commands.reproduce.REPOSITORY", tmp_path)
    with pytest.raises(SystemExit, match="2"):
        main(line.split())
    printed = capsys.readouterr()
    assert printed.out == ""
    (error,) = printed.err.splitlines()
    assert error.startswith(message)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bug", [ZeroDivisionError, ValueError, KeyError])
def test_what_is_not_expected_keeps_its_traceback(bug, monkeypatch):
    def broken(*_, **__):
        raise bug

    monkeypatch.setattr("emlc_lib.commands.run.run", broken)
    with pytest.raises(bug):
        main(["run", "-y", FAST])


@pytest.mark.slow
def test_ctrl_c_is_one_line_and_the_same_command_goes_on(tmp_path):
    line = [
        "-m",
        "emlc_lib.commands",
        "run",
        "-y",
        "{dataset: digits, device: cpu, epochs: 15}",
        "--runs",
        str(tmp_path),
    ]
    begun = process(line)
    while not list(tmp_path.glob("*/checkpoint*")):
        assert begun.poll() is None
        time.sleep(0.05)
    begun.send_signal(signal.SIGINT)
    out, err = begun.communicate(timeout=60)
    assert (begun.returncode, out) == (130, "")
    assert "Traceback" not in err
    assert err.splitlines()[-1] == "emlc run: interrupted; the same command goes on from there"
    config = make_config(dataset="digits", device="cpu", epochs=15)
    assert state(config, tmp_path) == "begun"
    assert main(line[2:]) == 0
    assert state(config, tmp_path) == "finished"


@pytest.mark.slow
def test_torchrun_starts_a_run(tmp_path):
    """Two processes make a run together; a mistake is reported by the first alone."""
    torchrun = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "emlc_lib.commands",
        "run",
    ]
    done = process([*torchrun, "-y", FAST, "--runs", str(tmp_path / "a")])
    out, err = done.communicate(timeout=300)
    assert done.returncode == 0, err
    (finished,) = find_runs(tmp_path / "a")
    assert finished.result["provenance"]["processes"] == 2
    assert out.count("test accuracy") == 1
    _, err = process([*torchrun, "-y", FAST, "-p", "batch_size", "33"]).communicate(timeout=300)
    assert err.count("emlc run: error: batch_size: 33 cannot be shared equally") == 1


def test_weights_are_pretrained_and_started_from(tmp_path, capsys):
    main(["pretrain", "-y", "{dataset: digits, device: cpu, epochs: 1}", "--out", str(tmp_path / "w")])
    file = Path(capsys.readouterr().out.strip())
    assert json.loads(file.with_suffix(".json").read_text())["config"]["epochs"] == 1
    start = ["-p", "start", "simclr", "-p", "start_weights", str(file)]
    main(["run", "-y", FAST, *start, "--runs", str(tmp_path / "runs")])
    assert len(find_runs(tmp_path / "runs", start="simclr")) == 1


def test_the_notebooks_script_is_started_and_its_status_kept(tmp_path, monkeypatch, capfd):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "reproduce.py").write_text("import sys; print('all of them'); sys.exit(1)")
    monkeypatch.setattr("emlc_lib.commands.reproduce.REPOSITORY", tmp_path)
    assert main(["reproduce"]) == 1
    assert capfd.readouterr().out == "all of them\n"
