"""Short runs of every method in float64, and the numbers that they end in.

    python -m tests.reference_runs     # rewrites the table, after a change that is meant to change it

The numbers are those of this library when they were written: they say that something has changed, not what is
right; that is the business of the oracles in ``references.py``.
"""

import dataclasses
import json
from pathlib import Path

import torch

from emlc_lib import make_config, prepare
from emlc_lib.data.batches import Batches
from emlc_lib.methods import METHODS
from emlc_lib.training.start import initial_networks

FILE = Path(__file__).with_suffix(".json")
STEPS = 10
RUNS: dict[str, dict] = {
    **{method: {"method": method} for method in METHODS},
    "distilled": {"method": "distilled", "n_noisy": 160},  # five steps of each part
    "dividemix": {"method": "dividemix", "n_noisy": 160},  # five of the warm-up, and five after it
    "emlc_consistent": {"method": "emlc_consistent", "consistency_threshold": 0.1},  # new weights are unsure
    "emlc_consistent, averaged": {
        "method": "emlc_consistent",
        "consistency_threshold": 0.1,
        "student_average": 0.9,
        "k": 2,
        "meta_weights": "momentum",
    },
    "emlc, asymmetric": {"noise_type": "asymmetric", "noise": 0.4},
    "emlc, k = 5": {"k": 5},
    "emlc, k = 5, momentum-aware": {"k": 5, "meta_weights": "momentum"},
    "emlc, k = 5, exact": {"k": 5, "meta_weights": "exact"},
    "emlc, k = 5, released": {"k": 5, "step_order": "reversed", "step_mean": True, "splits": "released"},
    "emlc, random corruption": {"corruption": "random"},
    "mlc, k = 3": {"method": "mlc", "k": 3},
}


def numbers(**changes) -> dict[str, float]:
    """Where a run is after ten steps: the last loss, and for each network and momentum a projection of it."""
    config = make_config(dataset="digits", **{"noise": 0.5, "epochs": 2, "batch_size": 32} | changes)
    data = prepare(config)
    # Images are standardised by these, which makes them float64, too.
    data = dataclasses.replace(data, mean=data.mean.double(), std=data.std.double())
    batches, cls = Batches(config, data), METHODS[config.method]
    networks = initial_networks(config, batches, teacher=cls.needs_teacher)
    method = cls(config, batches, *(n.double() if n is not None else None for n in networks))
    for network in method.networks.values():
        network.double().train()
    log = {}
    for t in range(STEPS):
        log |= method.step(t)
    found = {name: log[name].item() for name in ("student_loss", "meta_loss") if name in log}
    for name, network in method.networks.items():
        found[f"{name}'s state"] = _projection(network.state_dict().values())
    for name, optimiser in method.optimisers.items():
        momenta = [s["momentum_buffer"] for s in optimiser.state.values() if s.get("momentum_buffer") is not None]
        if momenta:  # not every method keeps one
            found[f"{name}'s momentum"] = _projection(momenta)
    return found


def _projection(tensors) -> float:
    """A sum with random signs, in which no error of one number can cancel that of another in all runs."""
    flat = torch.cat([tensor.detach().double().flatten() for tensor in tensors])
    signs = torch.randint(2, flat.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return float(flat @ signs.double())


if __name__ == "__main__":
    torch.set_num_threads(1)
    table = {name: numbers(**changes) for name, changes in RUNS.items()}
    FILE.write_text(json.dumps(table, indent=1) + "\n")
