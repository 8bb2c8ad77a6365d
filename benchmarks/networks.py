"""Small networks for a CPU: how fast their plain and EMLC steps are, and what they learn in a given time.

    python -m benchmarks.networks --csv speeds.csv                                  # of all of them
    python -m benchmarks.networks resnet_small --minutes 5 20 --csv accuracies.csv  # instead

For the accuracies a network is trained on CIFAR-10 with all true labels, in bfloat16, for the given minutes of
processor time, its learning rate following the time spent. Times are processor times of one thread, so that other
jobs on the machine count less than in wall time; they still share its caches and memory. A table that is there is
added to.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.resnet import BasicBlock, conv1x1

from emlc_lib.core.teacher import Classifier, build_teacher, initialise
from emlc_lib.data.augment import augment_noisy, normalise
from emlc_lib.data.datasets import DATASETS, ImageSet, load_dataset
from emlc_lib.data.experiment_data import on_device
from emlc_lib.methods.baselines import CrossEntropy
from emlc_lib.methods.emlc import EMLC
from emlc_lib.networks.backbones import NarrowResNet, PooledResNet, Sum, convolution
from emlc_lib.runtime.execution import autocast
from emlc_lib.runtime.progress import progress
from emlc_lib.runtime.provenance import provenance
from emlc_lib.training.presets import make_config
from emlc_lib.training.start import placed

from .carry import merge, read
from .variants import CLASSES, SIDE, FixedBatches

NOISY, CLEAN, WARM, REPEATS = 128, 64, 2, 7
BATCH, PEAK, RISE, WEIGHT_DECAY, SMOOTHING = 256, 0.2, 0.2, 5e-4, 0.1


def resnet9(w: int) -> list[nn.Module]:
    """Two convolutions on all pixels, and two residual pairs after pooling."""
    layers = [*convolution(3, w), *convolution(w, 2 * w), nn.MaxPool2d(2), Sum(2 * w, 2)]
    layers += [*convolution(2 * w, 4 * w), nn.MaxPool2d(2), *convolution(4 * w, 8 * w), nn.MaxPool2d(2)]
    return [*layers, Sum(8 * w, 2)]


def airbench(stem: int, *widths: int) -> list[nn.Module]:
    """A 2x2 stem, then per width a convolution with pooling and another one; no sums (Jordan, 2024)."""
    layers: list[nn.Module] = [nn.Conv2d(3, stem, 2), nn.ReLU(inplace=True)]
    for before, width in zip((stem, *widths), widths, strict=False):
        layers += [*convolution(before, width, nn.MaxPool2d(2)), *convolution(width, width)]
    return layers


def basic_blocks(stem: int, *widths: int) -> list[nn.Module]:
    """The package's own with basic blocks, of two convolutions and a ReLU after the sum, as its sums."""
    layers: list[nn.Module] = [nn.Conv2d(3, stem, 2), nn.ReLU(inplace=True)]
    for before, width in zip((stem, *widths), widths, strict=False):
        layers += [*convolution(before, width, nn.MaxPool2d(2)), BasicBlock(width, width)]
    return layers


def strided(width: int) -> list[nn.Module]:
    """A 4x4 stem with stride 2, so that no layer sees all pixels, and three basic blocks."""
    layers = [nn.Conv2d(3, width, 4, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    layers.append(BasicBlock(width, width))
    for inputs in (width, 2 * width):
        shortcut = nn.Sequential(conv1x1(inputs, 2 * inputs, 2), nn.BatchNorm2d(2 * inputs))
        layers.append(BasicBlock(inputs, 2 * inputs, 2, shortcut))
    return layers


def headless(layers: list[nn.Module]) -> nn.Module:
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


# Feature extractors and the sizes of their embeddings; the first two are the package's own.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet_narrow": (lambda: NarrowResNet(3), 64),
    "resnet_small": (lambda: PooledResNet(3), 256),
    "basic blocks, 16-32-128-256": (lambda: headless(basic_blocks(16, 32, 128, 256)), 256),
    "basic blocks, 16-64-128-256": (lambda: headless(basic_blocks(16, 64, 128, 256)), 256),
    "basic blocks, 24-48-128-256": (lambda: headless(basic_blocks(24, 48, 128, 256)), 256),
    "airbench, 24-64-256-256": (lambda: headless(airbench(24, 64, 256, 256)), 256),
    "airbench, 16-32-128-256": (lambda: headless(airbench(16, 32, 128, 256)), 256),
    "airbench, 16-32-128-128": (lambda: headless(airbench(16, 32, 128, 128)), 128),
    "strided, 64-64-128-256": (lambda: headless(strided(64)), 256),
    "ResNet-9, 16": (lambda: headless(resnet9(16)), 128),
    "ResNet-9, 24": (lambda: headless(resnet9(24)), 192),
    "ResNet-9, 32": (lambda: headless(resnet9(32)), 256),
}


def classifier(name: str) -> Classifier:
    """The named network with a head for ten classes, initialised as the package's own are."""
    make, dim = NETWORKS[name]
    with torch.device("meta"):
        model = Classifier(make(), dim, CLASSES)
    return initialise(model, torch.Generator().manual_seed(0))


def images_per_second(name: str, cls: type, precision: str) -> float:
    """Noisy images per second of processor time in whole steps of a method; the median over a few steps."""
    config = make_config(dataset="cifar10", preset="quick", device="cpu", start="random", batch_size=NOISY,
                         clean_batch_size=CLEAN, precision=precision)  # fmt: skip
    student, teacher = classifier(name), build_teacher(classifier(name), torch.Generator().manual_seed(0))
    student, teacher = (placed(model, config).train() for model in (student, teacher))
    method = cls(config, FixedBatches(NOISY, CLEAN, "cpu"), student, teacher)
    times = []
    for t in range(WARM + REPEATS):
        began = time.process_time()
        method.step(t)
        times.append(time.process_time() - began)
    return NOISY / statistics.median(times[WARM:])


def speeds(name: str) -> dict[str, float]:
    """Size and speeds, a row of the table."""
    model = classifier(name).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, SIDE, SIDE))
    row = {"parameters": sum(p.numel() for p in model.parameters()), "MFLOP": counter.get_total_flops() / 1e6}
    for label, cls in (("plain", CrossEntropy), ("emlc", EMLC)):
        for precision in ("float32", "bfloat16"):
            row[f"{label}_{precision}"] = images_per_second(name, cls, precision)
    return row


def accuracy(name: str, minutes: float, data: ImageSet) -> dict[str, float]:
    """Test accuracy in [0, 1] after so many minutes of processor time, and the epochs that these sufficed for."""
    model = classifier(name).to(memory_format=torch.channels_last).train()
    groups = [{"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
              {"params": [p for p in model.parameters() if p.ndim == 1]}]  # fmt: skip
    optimiser = torch.optim.SGD(groups, PEAK, momentum=0.9, nesterov=True)
    spec = DATASETS[data.name]
    mean, std = on_device(spec.constants, "cpu")
    generator = torch.Generator().manual_seed(0)
    n, seen, began = len(data.train_labels), 0, time.process_time()
    labels = torch.as_tensor(data.train_labels)
    while (done := (time.process_time() - began) / (60 * minutes)) < 1:
        for group in optimiser.param_groups:
            group["lr"] = PEAK * min(done / RISE, (1 - done) / (1 - RISE))
        if seen % (n // BATCH * BATCH) == 0:
            order = torch.randperm(n, generator=generator)
        index = order[seen % (n // BATCH * BATCH) :][:BATCH]
        x = normalise(augment_noisy(data.train_images[index], spec.recipe, generator), mean, std)
        with autocast("bfloat16", "cpu"):
            logits = model(x)
        optimiser.zero_grad(set_to_none=True)
        F.cross_entropy(logits.float(), labels[index], label_smoothing=SMOOTHING).backward()
        optimiser.step()
        seen += len(index)
    model.eval()
    with torch.no_grad():
        parts = [model(normalise(part, mean, std)).argmax(1) for part in data.test_images.split(500)]
    right = (torch.cat(parts) == torch.as_tensor(data.test_labels)).double().mean().item()
    return {"accuracy": right, "epochs": seen / n}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="NAME", help=f"of {', '.join(NETWORKS)}; default all")
    parser.add_argument("--minutes", type=int, nargs="+", default=[], help="train for so long instead of timing")
    parser.add_argument("--csv", type=Path, help="the table to write or add to")
    args = parser.parse_args()
    names = args.networks or list(NETWORKS)
    if unknown := set(names) - set(NETWORKS):
        parser.error(f"no such network: {', '.join(sorted(unknown))}")
    if args.csv and args.csv.is_file() and ("minutes" in read(args.csv)) != bool(args.minutes):
        parser.error(f"--csv: {args.csv} has {'speeds' if args.minutes else 'accuracies'}; give another file")
    torch.set_num_threads(1)
    source = provenance("cpu")
    origin = {"hardware": source["hardware"]["processor"], "torch": source["versions"]["torch"], "threads": 1}
    data = load_dataset("cifar10") if args.minutes else None
    for name in progress(names, total=len(names), desc="networks"):
        words = ["python -m benchmarks.networks"]
        if args.minutes:
            words += [f"'{name}'" if " " in name else name, "--minutes", *map(str, args.minutes)]
            found = pd.DataFrame([accuracy(name, minutes, data) for minutes in args.minutes])
            found.insert(0, "minutes", args.minutes)
        else:
            found = pd.DataFrame([speeds(name)])
        found.insert(0, "network", name)
        found = found.round(4).assign(**origin, command=" ".join(words))
        print(found.to_string(index=False))
        if args.csv:
            merge(args.csv, found, ["network", *(["minutes"] if args.minutes else [])], replace=True)


if __name__ == "__main__":
    main()
