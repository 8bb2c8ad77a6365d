"""What test_processes runs in one process and, by ``torchrun ... sharded_training.py MODE FOLDER``, in two."""

import json
import os
import signal
import sys
from pathlib import Path

import torch
from problems import build, teacher_around
from torch import nn

from emlc_lib import make_config, prepare, run
from emlc_lib.data.batches import Batches
from emlc_lib.methods import METHODS
from emlc_lib.methods.emlc import EMLC
from emlc_lib.networks.backbones import SmallCNN
from emlc_lib.runtime.parallel import average_statistics, group, own_share
from emlc_lib.training.evaluation import predict
from emlc_lib.training.log import joint
from emlc_lib.training.start import warm_up

# Of EMLC, without batch norm unless the name says otherwise.
CASES = {
    "k=1, adversarial": {},
    "k=1, random, no primal shared": {"corruption": "random", "share_primal": False},
    "k=3, adversarial": {"k": 3},
    "k=3, momentum, random": {"k": 3, "meta_weights": "momentum", "corruption": "random"},
    "k=3, exact": {"k": 3, "meta_weights": "exact", "corruption": "none", "weight_decay": 0.01},
    "k=3, recomputed": {"k": 3, "teacher_pass": "recomputed"},
    "k=3, as released": {"k": 3, "step_order": "reversed", "step_mean": True},
    "k=3, consistent": {
        "method": "emlc_consistent", "k": 3, "student_view": "strong", "sure_labels": True,
        "consistency_threshold": 0.14,  # which some of the images reach
    },
    "cross_entropy": {"method": "cross_entropy"},
    "clean_only": {"method": "clean_only"},
    "batch norm": {"corruption": "none"},
}  # fmt: skip
RUN = {"dataset": "digits", "preset": "smoke", "epochs": 4, "n_noisy": 640, "start_steps": 3}


class Float64Batches(Batches):
    """The augmented digits of a run, in float64."""

    def _float(self, images):
        return super()._float(images).double()


def case_config(name):
    usual = {"n_noisy": 600, "batch_size": 22, "clean_batch_size": 18, "momentum": 0.9, "lr": 0.1}
    return make_config(dataset="digits", device="cpu", schedule="none", **(usual | CASES[name]))


def networks(name):
    if name == "batch norm":
        students = [build(SmallCNN(1, width=4, dim=12), 12, 10, seed) for seed in (0, 1)]
    else:
        layers = [nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU()) for _ in (0, 1)]
        students = [build(features, 12, 10, seed) for seed, features in enumerate(layers)]
    return students[0], teacher_around(students[1], 2)


def train_case(name):
    """Two teacher updates (or as many steps; with batch norm one): gradients, networks and log, by name."""
    updates = 1 if name == "batch norm" else 2
    config, (student, teacher) = case_config(name), networks(name)
    cls = METHODS[config.method]
    batches = Float64Batches(config, prepare(config))
    method = cls(config, batches, student, teacher if cls.needs_teacher else None)
    log, result = [], {}
    for t in range(updates * method.period):
        log.append(method.step(t))
        if issubclass(cls, EMLC) and (t + 1) % method.period == 0:
            for key, p in teacher.named_parameters():
                result[f"teacher gradient {t}/{key}"] = p.grad.clone()
    average_statistics(method.networks.values())
    for key, network in method.networks.items():
        result |= {f"{key}/{n}": v.clone() for n, v in network.state_dict().items()}
    for t, entry in enumerate(joint(log, own_share().world)):
        result |= {f"log {t}/{key}": value for key, value in entry.items()}
    return result


def warmed_up():
    config = make_config(dataset="digits", device="cpu", start_steps=4, batch_size=22)
    student, _ = networks("warm-up")
    warm_up(student, config, Float64Batches(config, prepare(config)))
    return dict(student.state_dict())


def everything():
    """All cases, the warm-up, and the evaluation of 449 images by a function that stands in for a network."""
    data = prepare(make_config(dataset="digits", device="cpu"))
    logits = predict(lambda x: x.flatten(1)[:, :5], data.test_images[:449], data)
    return {name: train_case(name) for name in CASES} | {"warm-up": warmed_up(), "evaluation": {"logits": logits}}


def audited_run(folder):
    """The run, and what this process wrote or moved below ``folder``: (event, path) pairs."""
    seen = []

    def hook(event, args):
        writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if (writes or event in ("os.rename", "os.mkdir", "os.remove")) and str(folder) in str(args[0]):
            seen.append((event, str(args[0])))

    sys.addaudithook(hook)
    finished = run(make_config(**RUN), root=folder, show=True)
    return seen, finished.result["test_accuracy"]


def kill_the_second(step):
    """The second process ends as if the machine had, in the middle of the second epoch."""
    ordinary = EMLC.step

    def killing(self, t):
        if t == step and own_share().rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return ordinary(self, t)

    EMLC.step = killing


if __name__ == "__main__":
    mode, folder = sys.argv[1], Path(sys.argv[2])
    torch.set_num_threads(1)
    with group("cpu"):
        rank = own_share().rank
        if mode == "kill":
            kill_the_second(step=14)
            run(make_config(**RUN), root=folder)
        else:
            torch.save(everything(), folder / f"results{rank}.pt")
            wrote, accuracy = audited_run(folder / "runs")
            (folder / f"run{rank}.json").write_text(json.dumps({"wrote": wrote, "accuracy": accuracy}))
