"""The notebooks as papermill and a reader meet them. nbval compares their outputs; see the Makefile."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest

from notebooks.reproduce import NOTEBOOKS

ROOT = Path(__file__).resolve().parent.parent
ALL = sorted((ROOT / "notebooks").glob("*.ipynb"))


def cells(path, kind="code"):
    return [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == kind and c.source.strip()]


def test_there_are_notebooks_and_reproduce_runs_each():
    assert len(ALL) >= 3
    assert set(NOTEBOOKS) == {path.stem for path in ALL}


@pytest.mark.parametrize("path", ALL, ids=lambda p: p.stem)
class TestEveryNotebook:
    def test_has_been_executed_in_order(self, path):
        """nbval passes vacuously over a notebook without execution counts or outputs."""
        code = cells(path)
        assert [c.execution_count for c in code] == list(range(1, len(code) + 1))
        assert sum(bool(c.outputs) for c in code) >= 3
        assert not [o for c in code for o in c.outputs if o.output_type == "error"]

    def test_has_one_parameters_cell_and_checks_injected_names(self, path):
        code = cells(path)
        (parameters,) = [c for c in code if "parameters" in c.metadata.get("tags", [])]
        assert "check_parameters(" in code[code.index(parameters) + 1].source
        assert all(re.match(r"\w+ = ", line) for line in parameters.source.splitlines())
        assert not [c for c in code if "injected-parameters" in c.metadata.get("tags", [])]

    def test_compares_some_output(self, path):
        compared = [c for c in cells(path) if c.outputs and "NBVAL_IGNORE_OUTPUT" not in c.source]
        assert len(compared) >= 2

    def test_asserts_its_claims(self, path):
        assert sum("assert " in c.source for c in cells(path)) >= 2

    def test_text_is_markdown_with_one_title(self, path):
        """Text whose every line starts with a comment sign is shown as headings throughout."""
        lines = [line for c in cells(path, "markdown") for line in c.source.splitlines()]
        assert sum(line.startswith("# ") for line in lines) == 1
        assert "#" not in lines

    def test_begins_with_what_it_takes_and_says_what_it_says_first_or_last(self, path):
        """Long tables are read after what they come to, derivations before."""
        texts = [c.source for c in cells(path, "markdown")]
        assert re.search(r"\*[Tt]akes\*", texts[0])
        assert re.search(r"\*[Nn]eeds\*", texts[0])
        (at,) = (i for i, text in enumerate(texts) if "**What this says.**" in text)
        assert at in (1, len(texts) - 1)
        assert "## References" in texts[-1]

    def test_what_is_read_is_not_shown_as_run(self, path):
        """A cell that reads committed results says so in what it prints, or one before it has."""
        reads = [c for c in cells(path) if re.search(r"= .*committed_table\(|show_claims\(", c.source)]
        said = [c for c in cells(path) if any("read, not run" in o.get("text", "") for o in c.outputs)]
        assert bool(reads) <= bool(said)
        assert not [c for c in cells(path) if "show_claims(" in c.source and c not in said]

    def test_names_no_path_of_a_machine(self, path):
        text = path.read_text()
        assert not re.search(r"/(home|root|work|tmp|Users)/", text)

    def test_fits_a_screen(self, path):
        assert max(len(c.source.splitlines()) for c in cells(path)) <= 45


def execute(tmp_path, name="03_cifar", **parameters):
    return papermill.execute_notebook(
        ROOT / "notebooks" / f"{name}.ipynb",
        tmp_path / "out.ipynb",
        {"runs": str(tmp_path / "runs")} | parameters,
        cwd=tmp_path,
        progress_bar=False,
    )


@pytest.mark.parametrize(
    "parameters",
    [
        {"k": 5, "epochs": 2},
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param({"method": "cross_entropy", "noise": 1, "epochs": 2}, marks=pytest.mark.slow),
        pytest.param({"processes": 2, "epochs": 2}, marks=pytest.mark.slow),
    ],
)
def test_the_experiment_runs_headless_and_records_its_result(tmp_path, parameters):
    execute(tmp_path, dataset="digits", preset="smoke", figures=str(tmp_path / "figures"), **parameters)
    (path,) = (tmp_path / "runs").glob("*/result.json")
    result = json.loads(path.read_text())
    assert result["config"]["epochs"] == parameters.get("epochs", 25)
    assert result["config"]["dataset"] == "digits"
    assert result["provenance"]["processes"] == parameters.get("processes", 1)
    assert 0 <= result["test_accuracy"] <= 1
    assert len(list((tmp_path / "figures").glob("*.png"))) == 1


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"nosie": 0.9}, "nosie: unknown parameter; did you mean 'noise'"),
        ({"processes": 3}, "batch_size: 64 cannot be shared equally by 3 processes"),
    ],
)
def test_a_wrong_parameter_is_an_error_before_any_work(tmp_path, parameters, message):
    with pytest.raises(papermill.PapermillExecutionError) as raised:
        execute(tmp_path, **({"dataset": "digits", "preset": "smoke"} | parameters))
    assert raised.value.ename == "ConfigError"
    assert message in raised.value.evalue
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_missing_data_say_where_they_must_go(tmp_path, monkeypatch):
    monkeypatch.setenv("EMLC_DATA", str(tmp_path / "nothing"))
    # Any attempt to download fails at once: nothing listens on this port.
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(papermill.PapermillExecutionError) as raised:
        execute(tmp_path, preset="quick")
    assert raised.value.ename == "DataUnavailable"
    assert "EMLC_DATA" in raised.value.evalue


@pytest.mark.slow
class TestClothing1M:
    """What nbval does not see: other parameters, real folders, folders that are not there."""

    def test_the_example_in_short(self, tmp_path):
        execute(tmp_path, "11_clothing1m", method="cross_entropy", epochs=1, figures=str(tmp_path / "figures"))
        assert not (tmp_path / "runs").exists()  # its runs are not to be taken for real ones
        drawn = {path.stem for path in (tmp_path / "figures").glob("*.png")}
        assert drawn == {"clothing1m_images", "clothing1m_learning_rates", "clothing1m_training"}

    def test_a_folder_below_the_data_root(self, tmp_path, clothing1m, monkeypatch):
        monkeypatch.setenv("EMLC_DATA", str(clothing1m[0]))
        options = {"n_noisy": 10, "batch_size": 5, "clean_batch_size": 4}
        done = execute(tmp_path, "11_clothing1m", preset="smoke", device="cpu", epochs=1, options=options)
        (path,) = (tmp_path / "runs").glob("*/result.json")
        result = json.loads(path.read_text())
        assert (result["n_noisy"], result["n_clean"]) == (10, 30)
        assert "-p method emlc -p k 1 -p seed 0 -p preset smoke -p epochs 1 -y" in result["command"]
        printed = "".join(o.get("text", "") for c in done.cells for o in c.get("outputs", []))
        assert result["command"] in printed
        assert "MADE-UP" not in printed

    def test_without_the_images_it_stops(self, tmp_path, monkeypatch):
        monkeypatch.setenv("EMLC_DATA", str(tmp_path / "nothing"))
        with pytest.raises(papermill.PapermillExecutionError) as raised:
            execute(tmp_path, "11_clothing1m", preset="paper", epochs=5, device="cpu")
        assert raised.value.ename == "DataUnavailable"
        assert "noisy_train_key_list.txt" in raised.value.evalue
        assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_the_command_line_of_the_readme(tmp_path):
    """papermill as a person calls it, from another folder, on digits."""
    command = [sys.executable, "-m", "papermill", str(ROOT / "notebooks" / "03_cifar.ipynb"), "out.ipynb",
               "-p", "noise", "0.9", "-p", "dataset", "digits", "-p", "epochs", "2",
               "-p", "runs", "runs"]  # fmt: skip
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "out.ipynb").is_file()
    assert list((tmp_path / "runs").glob("digits-smoke-*/result.json"))
