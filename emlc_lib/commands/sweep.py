"""``emlc sweep``."""

import click

from ..experiments.sweep import product, sweep
from ..experiments.tables import accuracy_table, run_table
from ..runtime.files import write_atomically
from ..runtime.parameters import ConfigError, Expected
from .jobs import job_options, list_or_submit, of_a_cluster, resource_section
from .parameters import Described, flat, given


@click.command(cls=Described, sections=resource_section)
@given
@click.option("--jobs", type=int, help="Parallel processes.  [default: one per core; with CUDA one]")
@click.option("--list", "listed", is_flag=True, help="Only list the runs, as jobs of a cluster.")
@job_options
def command(parameters, jobs, listed, submitted, resources, estimate, runs, csv):
    """Train every combination of parameters, of which each may be a list, and print the table.

    \b
    emlc sweep -p noise '[0.5, 0.9, asymmetric:0.4]' -p method '[emlc, mlc]' -p seed '[0, 1, 2]'

    A noise is a rate, with its type in front if it has another than noise_type. The methods are emlc,
    cross_entropy and clean_only unless they are named; emlc run --help has
    all parameters. Finished runs are read back, and begun ones resumed.
    --list and --submit are for the machines of a cluster, with CUDA unless -p device cpu.
    """
    parameters = flat(parameters)
    if listed or submitted:
        if jobs is not None or (listed and submitted):
            raise ConfigError("--list, --submit and --jobs: are alternatives")
        list_or_submit(product(**of_a_cluster(parameters)), resources, submitted, estimate, runs, csv)
        return
    if resources or estimate:
        raise ConfigError("--resource and --estimate: are for jobs of a cluster; add --list or --submit")
    finished = sweep(product(**parameters), root=runs, jobs=jobs)
    try:
        if csv:
            write_atomically(csv, lambda path: run_table(finished).to_csv(path, index=False))
        print(accuracy_table(finished).to_string(index=False))
    except (Expected, OSError) as error:
        raise ConfigError(f"{error}; the {len(finished)} runs are kept in {finished[0].folder.parent}") from error
