"""``emlc noise``."""

from pathlib import Path

import click

from ..data.noise_file import as_noise_file, read_noise_file, write_noise_file
from ..data.parameters import DataParameters
from ..data.prepare import prepare
from ..data.spec import spec_of
from ..runtime.files import writable_file
from ..runtime.parameters import ConfigError
from ..training.presets import make_config
from .parameters import PathOf, value_of

NAMES = ("noise_type", "noise", "asymmetric_map", "human_labels", "human_key", "seed", "n_clean", "n_noisy")

# No batch is drawn: none is too large for the sets.
SMALL = {"batch_size": 2, "clean_batch_size": 2}


@click.command()
@click.option("--dataset", default="cifar10", show_default=True, metavar="NAME")
@click.option("--preset", help="Whose sizes the sets have.  [default: paper, where the data set has it]")
@click.option(
    "--out",
    type=PathOf(),
    metavar="FILE",
    help="Where it goes.  [default: labels-, eight digits of its hash, .npz]",
)
def command(dataset, preset, out, **given):
    """Write which training images are clean and noisy, and their given and true labels, to an .npz file.

    \b
    emlc noise --dataset cifar10 --preset quick --noise 0.9 --seed 0 --out labels.npz
    emlc run -p dataset cifar10 -p noise_type file -p noise_file labels.npz

    They are those that a run with the same values and preset sees. data/README.md describes the format.
    """
    parameters = {name: value_of(text) for name, text in given.items() if text is not None}
    spec = spec_of(dataset)
    if not spec.in_memory:
        raise ConfigError(f"dataset: {dataset} comes with a split and labels of its own")
    if parameters.get("noise_type") == "file":
        raise ConfigError("noise_type: a noise file is what is made here; take another")
    preset = preset or ("paper" if "paper" in spec.presets else next(iter(spec.presets)))
    config = make_config(dataset=dataset, preset=preset, device="cpu", start="random", **SMALL, **parameters)
    if out is not None:
        writable_file(out, "--out")
    noise = as_noise_file(prepare(config), dataset)
    path = writable_file(out or Path(noise.name), "--out")
    if path.is_file() and read_noise_file(path).sha256 != noise.sha256:
        raise ConfigError(f"--out: {path} is there and holds other labels; give another name")
    write_noise_file(noise, path)
    wrong = (noise.labels != noise.true_labels).mean()
    print(f"{path}: {len(noise.clean)} clean and {len(noise.noisy)} noisy images of {dataset}, {wrong:.1%} wrong")
    print(f"SHA-256 {noise.sha256}")


FIELDS = DataParameters.model_fields
command.params[2:2] = [
    click.Option([f"--{name.replace('_', '-')}", name], metavar=name.upper(), help=FIELDS[name].description)
    for name in NAMES
]
