"""No number comes from a global generator: not in the source, and not in a run.

There are no loader workers: batches are indexed on the training device, and the threads that decode images from
disk draw nothing.
"""

import ast
import random
import re
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch

from emlc_lib import make_config, prepare, train
from emlc_lib.methods import METHODS

ROOT = Path(__file__).resolve().parent.parent
# Torch's and numpy's draws, and layers that draw when they are called.
DRAWS = re.compile(
    r"torch\.(rand|randn|randint|randperm|normal|bernoulli|multinomial|poisson)(_like)?$"
    r"|\.(normal_|uniform_|random_|bernoulli_|exponential_|geometric_|cauchy_|log_normal_|multinomial|trunc_normal_)$"
    r"|^(nn\.)?init\.(?!zeros_|ones_|constant_|eye_|dirac_)\w+_$"
)
GLOBAL = re.compile(
    r"^random\.\w+$|^(np|numpy)\.random\.(?!default_rng$|Generator$|SeedSequence$)\w+$"
    r"|torch\.(manual_seed|seed|set_rng_state)$|torch\.cuda\.manual_seed|(F|functional)\.(dropout|gumbel_softmax)"
    r"|^nn\.Dropout|DataLoader$|random_split$"
)
# scikit-learn's estimators and splits, whose default is numpy's global generator.
SEEDED_BY_ARGUMENT = re.compile(r"(^|\.)(train_test_split|KFold|StratifiedKFold|TSNE|PCA|shuffle)$")


def global_draws(source):
    """Calls in the source that draw from a global generator, or seed one."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name, given = ast.unparse(node.func), {keyword.arg for keyword in node.keywords}
        unseeded = DRAWS.search(name) and "generator" not in given
        from_system = name.endswith("default_rng") and not node.args
        by_default = SEEDED_BY_ARGUMENT.search(name) and not {"random_state", "generator"} & given
        if GLOBAL.search(name) or unseeded or from_system or by_default:
            yield ast.unparse(node)


@pytest.mark.parametrize(
    "line",
    [
        "torch.randn(3)", "x.uniform_(0, 1)", "nn.init.kaiming_normal_(w)", "np.random.shuffle(x)",
        "np.random.default_rng()", "random.choice(x)", "torch.manual_seed(0)", "F.dropout(x, 0.5)",
        "nn.Dropout(0.5)", "DataLoader(data, num_workers=2)", "train_test_split(x, test_size=0.25)",
        "torch.rand_like(x)",
    ],
)  # fmt: skip
def test_the_search_finds(line):
    assert list(global_draws(line)) == [line]


@pytest.mark.parametrize(
    "line",
    [
        "torch.randn(3, generator=g)", "torch.Generator().manual_seed(3)", "np.random.default_rng(seed)",
        "rng.permutation(3)", "train_test_split(x, random_state=0)",
    ],
)  # fmt: skip
def test_the_search_passes_over(line):
    assert not list(global_draws(line))


def test_nothing_in_the_package_draws_from_a_global_generator():
    files = [*(ROOT / "emlc_lib").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    found = {(path.name, call) for path in files for call in global_draws(path.read_text())}
    assert len(files) > 70
    assert not found


def global_states():
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002


@pytest.mark.parametrize("method", METHODS)
def test_a_run_does_not_see_them(method, monkeypatch):
    """The global generators are seeded in two ways, and left where they were."""
    # beartype draws the elements of a list that it checks.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    config = make_config(dataset="digits", device="cpu", epochs=2, n_noisy=64, batch_size=32, method=method)
    weights = []
    for seed in (1, 2):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            before = global_states()
            trained = train(config, prepare(config), show=False)
            assert global_states() == before
        weights.append({k: v for n in trained.method.networks.values() for k, v in n.state_dict().items()})
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
