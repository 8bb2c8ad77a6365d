"""``emlc table1``."""

import click

from ..experiments.job_list import TABLE_1_DATASETS, table_1
from ..runtime.parameters import ConfigError
from .jobs import job_options, list_or_submit, of_a_cluster, resource_section
from .parameters import Described, flat, given


@click.command(cls=Described, sections=resource_section)
@given
@click.option("--seeds", type=int, default=5, show_default=True, help="How many.")
@job_options
def command(parameters, seeds, submitted, resources, estimate, runs, csv):
    """List the runs of Table 1: what is finished, begun and missing; or submit what is to do as jobs.

    \b
    emlc table1 -p dataset cifar10 --seeds 3 --estimate 2.5
    emlc table1 --submit --resource hours 24 --resource slurm '{account: A, qos: Q}'

    -p dataset may be a list; noise, method and k are the table's, and emlc run --help has the others. The preset
    is paper, the device cuda, unless they are given.
    """
    parameters = {"preset": "paper", "dataset": list(TABLE_1_DATASETS)} | flat(parameters)
    for name in ("noise", "noise_type", "method", "k", "seed", "noises", "methods", "ks", "seeds"):
        if name in parameters:
            raise ConfigError(f"{name}: is said by the table, and the seeds by --seeds")
    datasets = parameters.pop("dataset")
    datasets = datasets if isinstance(datasets, list) else [datasets]
    configs = table_1(seeds, datasets, **of_a_cluster(parameters))
    list_or_submit(configs, resources, submitted, estimate, runs, csv)
