"""Images per second through the data pipeline, batched here against image by image with torchvision.

python -m benchmarks.data_throughput --csv data_throughput.csv
"""

import argparse
import shlex
import statistics
import sys
import time
from pathlib import Path

import pandas as pd
import torch
from torchvision.transforms import v2

from emlc_lib.data.augment import augment_clean, augment_noisy, normalise, standardise
from emlc_lib.data.datasets import DATASETS
from emlc_lib.data.experiment_data import on_device
from emlc_lib.networks.views import random_view
from emlc_lib.runtime.execution import synchronise
from emlc_lib.runtime.provenance import provenance


def pipelines(device: str):
    """By name: what training does to a uint8 batch with a generator, and its torchvision counterpart."""
    spec = DATASETS["cifar10"]
    mean, std = on_device(spec.constants, device)
    finish = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(*spec.constants)]
    crop = [v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip()]
    view = [v2.RandomResizedCrop(24, scale=(0.2, 1), antialias=False), v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8), v2.RandomGrayscale(0.2)]  # fmt: skip
    auto = [v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)]
    return {
        "noisy: crop, flip": (
            lambda x, g: normalise(augment_noisy(x, spec.recipe, g), mean, std),
            v2.Compose(crop + finish),
        ),
        "clean: crop, flip, AutoAugment": (
            lambda x, g: normalise(augment_clean(x, spec.recipe, g), mean, std),
            v2.Compose(crop + auto + finish),
        ),
        "SimCLR view": (
            lambda x, g: standardise(random_view(x, spec.views, 24, g), mean, std),
            v2.Compose(view + finish),
        ),
    }


def rate(function, images: int, repeats: int, device: str) -> tuple[float, float, float]:
    """Quartiles of the images per second."""
    rates = []
    for repeat in range(repeats + 1):
        began = time.perf_counter()
        function(repeat)
        synchronise(device)
        if repeat:
            rates.append(images / (time.perf_counter() - began))
    low, median, high = statistics.quantiles(rates, n=4)
    return low, median, high


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 512], help="batch sizes")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--csv", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    generator = torch.Generator().manual_seed(0)
    source = torch.randint(256, (max(args.sizes), 3, 32, 32), dtype=torch.uint8, generator=generator)
    rows = []
    for name, (batched, single) in pipelines(args.device).items():
        for size in args.sizes:
            x = source[:size].to(args.device)

            def ours(i, x=x, batched=batched):
                return batched(x, torch.Generator().manual_seed(i))

            def theirs(_, x=x, single=single):
                return torch.stack([single(image) for image in x])

            for how, function in (("batched, emlc_lib", ours), ("one by one, torchvision", theirs)):
                low, median, high = rate(function, size, args.repeats, args.device)
                rows.append({"pipeline": name, "how": how, "batch": size, "images_per_second": round(median),
                             "low": round(low), "high": round(high)})  # fmt: skip
    table = pd.DataFrame(rows)
    print(table.to_string(index=False))
    if args.csv:
        found = provenance(args.device)
        hardware = found["hardware"].get("gpu") or found["hardware"]["processor"]
        versions = {name: found["versions"][name] for name in ("torch", "torchvision", "python")}
        words = shlex.join(sys.argv[1:]).replace(shlex.quote(str(args.csv)), "FILE")
        table.assign(
            repeats=args.repeats, hardware=hardware, threads=args.threads, **versions,
            command=f"python -m benchmarks.data_throughput {words}",
        ).to_csv(args.csv, index=False)  # fmt: skip


if __name__ == "__main__":
    main()
