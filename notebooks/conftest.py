"""For nbval: a notebook whose data set is not on this machine is left out, and the report says so."""

from emlc_lib.data.datasets import is_available
from emlc_lib.runtime.places import data_root

NEEDS = {"00_pretrain_simclr.ipynb": "cifar10", "03_cifar.ipynb": "cifar10"}
MISSING = {name: dataset for name, dataset in NEEDS.items() if not is_available(dataset)}

collect_ignore = list(MISSING)


def pytest_report_header():
    return [
        f"left out: {name} needs {dataset}, which is not under {data_root()} (see data/README.md)"
        for name, dataset in MISSING.items()
    ]
