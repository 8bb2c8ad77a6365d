"""pyproject.toml, the lock file and environment.yml agree, and the lock names no registry."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text()
# What the project was asked to be built from.
ASKED = {"torch", "torchvision", "jupyterlab", "matplotlib", "scikit-learn", "papermill", "nbval", "seaborn"}


def names(requirements):
    return {re.match(r"[\w-]+", r).group().lower() for r in requirements}


def locked():
    return dict(re.findall(r"^([\w.-]+)==([^ ;\\]+)", LOCK, re.M))


def test_the_project_declares_what_was_asked_for():
    assert names(PROJECT["dependencies"]) >= ASKED


def test_the_lock_covers_every_dependency_with_hashes():
    declared = names(PROJECT["dependencies"]) | names(PROJECT["optional-dependencies"]["test"])
    assert declared <= set(locked())
    entries = re.split(r"^(?=[\w.-]+==)", LOCK, flags=re.M)[1:]
    assert len(entries) > 100
    assert all("--hash=sha256:" in entry for entry in entries)


def test_the_lock_names_no_address():
    assert "://" not in LOCK
    # Hashes are the only options: none that says where packages come from.
    assert set(re.findall(r"--[\w-]+", LOCK)) == {"--hash"}


def test_torch_and_torchvision_are_a_pinned_pair():
    pins = {r.split("==")[0]: r.split("==")[1] for r in PROJECT["dependencies"] if "==" in r}
    assert pins["torch"] == locked()["torch"]
    assert pins["torchvision"] == locked()["torchvision"]
    # torchvision 0.N belongs to torch 2.(N - 15)
    assert int(pins["torchvision"].split(".")[1]) == int(pins["torch"].split(".")[1]) + 15
    assert pins["torch"] != "2.13.0"  # resolves to a build with which torchvision cannot be imported


def test_the_environment_file_installs_the_project_itself():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == "emlc"
    conda = [d for d in environment["dependencies"] if isinstance(d, str)]
    (pip,) = [d["pip"] for d in environment["dependencies"] if isinstance(d, dict)]
    assert f"python{PROJECT['requires-python']}" in conda
    assert "pip" in conda
    assert pip == ["-e .[test]"]


def test_the_running_environment_is_the_locked_one():
    versions = locked()
    for name in ASKED:
        assert metadata.version(name) == versions[name]
