"""Shared fixtures; the networks and trainings that tests share are in ``problems``."""

import pytest
import torch
from jaxtyping import install_import_hook

# The shapes in these modules' signatures are checked at every call. (teacher is traced by torch.fx, which calls it
# with stand-ins for tensors.)
CORE = [f"emlc_lib.core.{name}" for name in ("losses", "meta_gradient", "metrics")]
install_import_hook(CORE, "beartype.beartype")

from problems import Problem  # noqa: E402
from torch import nn  # noqa: E402

from emlc_lib.data.clothing1m.example import write_tree  # noqa: E402
from emlc_lib.data.datasets import is_available  # noqa: E402

# The tests' tensors are small: more threads only wait for each other.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def one_thread():
    """No test may leave more threads to those after it: beside another worker they are up to ten times slower."""
    yield
    found = torch.get_num_threads()
    torch.set_num_threads(1)
    assert found == 1


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device on this machine"))
        for name in ("cifar10", "cifar100"):
            if item.get_closest_marker(name) and not is_available(name):
                item.add_marker(pytest.mark.skip(reason=f"the files of {name} are not under the data root"))


@pytest.fixture
def make_problem():
    return Problem


@pytest.fixture(scope="session")
def clothing1m(tmp_path_factory):
    """A data root with a tree of Clothing1M's layout without faults, and its keys; no test may change it."""
    root = tmp_path_factory.mktemp("data")
    return root, write_tree(root / "clothing1m").keys


@pytest.fixture
def small_images(monkeypatch):
    """Images of Clothing1M have 16 pixels, so that a training takes a second."""
    for module in ("prepare", "folder"):
        monkeypatch.setattr(f"emlc_lib.data.clothing1m.{module}.RESIZE", 20)
        monkeypatch.setattr(f"emlc_lib.data.clothing1m.{module}.CROP", 16)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory, where data and runs are looked for, too; and no network may be used."""

    def fail(*_, **__):
        pytest.fail("work has begun: a network was called")

    monkeypatch.setattr(nn.Module, "__call__", fail)
    monkeypatch.setenv("EMLC_DATA", str(tmp_path))
    monkeypatch.delenv("EMLC_RUNS", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path
