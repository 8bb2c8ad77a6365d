"""``emlc pretrain``."""

import click

from ..data.datasets import DATASETS, load_dataset
from ..experiments.pretraining import pretrain_and_store, provide
from ..networks.pretrain_config import DEFAULTS, PretrainConfig, make_pretrain_config
from ..networks.weights import shipped_weights_file
from ..runtime.files import writable_folder
from ..runtime.parameters import ConfigError
from .parameters import Described, PathOf, allowed, flat, given


def _sections():
    rows = []
    for name, field in PretrainConfig.model_fields.items():
        usual = {"dataset": "cifar10", "model": "auto", "device": "auto"}.get(name)
        own = [f"{values[name]} ({model})" for model, values in DEFAULTS.items() if name in values]
        own = [str(field.default), *own] if own and not field.is_required() else own
        choices = [spec.name for spec in DATASETS.values() if spec.views] if name == "dataset" else ()
        rows.append((name, allowed(field, choices=choices, default=usual or "; ".join(own) or None)))
    yield "Parameters", rows


@click.command(cls=Described, sections=_sections)
@given
@click.option(
    "--out",
    type=PathOf(writable_folder),
    metavar="DIR",
    help="Where they go.  [default: weights/ of the data root]",
)
def command(parameters, out):
    """Make SimCLR weights by self-supervision, once; what was begun is resumed.

    \b
    emlc pretrain -p dataset cifar100 -p model resnet50

    Runs look for them in weights/ of the data root and make them there if they are missing. Weights by other
    parameters than the usual ones go elsewhere, and runs take them by -p start_weights FILE.
    """
    config = make_pretrain_config(**flat(parameters))
    source = config.dataset, config.model, config.device
    usual = make_pretrain_config(dataset=config.dataset, model=config.model, device=config.device)
    if config == usual:
        if out is not None and shipped_weights_file(config.dataset, config.model).is_file():
            raise ConfigError("--out: these weights come with the package; without it their path is printed")
        print(provide(*source, folder=out))
        return
    if out is None:
        raise ConfigError("--out: these are not the parameters by which runs expect weights; name a folder")
    out.mkdir(parents=True, exist_ok=True)
    print(pretrain_and_store(config, load_dataset(config.dataset), out, show=True))
