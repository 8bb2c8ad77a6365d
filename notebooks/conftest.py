"""For nbval: leaves out notebooks without their data set and, with --quick, slow ones; the report says so."""

from emlc_lib.data.datasets import is_available
from emlc_lib.runtime.places import data_root

NEEDS = {"04_pretrain_simclr.ipynb": "cifar10", "03_cifar.ipynb": "cifar10"}
SLOW = list(NEEDS)  # minutes of training


def pytest_addoption(parser):
    parser.addoption("--quick", action="store_true", help="leave out the notebooks that take longer than seconds")


def left_out(config):
    """The notebooks that are not run, each with the reason."""
    slow = dict.fromkeys(SLOW if config.getoption("--quick") else [], "takes longer; make test-all runs it")
    missing = {
        name: f"needs {dataset}, which is not under {data_root()} (see data/README.md)"
        for name, dataset in NEEDS.items()
        if not is_available(dataset)
    }
    return slow | missing


def pytest_ignore_collect(collection_path, config):
    return True if collection_path.name in left_out(config) else None


def pytest_report_header(config):
    return [f"left out: {name} {reason}" for name, reason in left_out(config).items()]
