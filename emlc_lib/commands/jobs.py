"""What ``emlc sweep`` and ``emlc table1`` have in common: many runs as jobs of a cluster."""

from collections.abc import Callable, Iterator
from typing import Any

import click

from ..experiments.cluster import ClusterError, Resources, submit
from ..experiments.job_list import job_table, report
from ..runtime.files import as_folder, writable_file, write_atomically
from ..runtime.parameters import ConfigError, checked
from ..training.config import Config
from .parameters import PathOf, Rows, allowed, value_of


def job_options(function: Callable) -> Callable:
    """Adds the options of jobs; the function gets ``resources``, what each is to ask for by name."""
    where = "Where runs are.  [default: runs/ of the data root]"
    for option in (
        click.option("--csv", type=PathOf(writable_file), metavar="FILE", help="Write one row per run here."),
        click.option("--runs", type=PathOf(as_folder), metavar="DIR", help=where),
        click.option(
            "--estimate", type=click.FloatRange(0, min_open=True), help="In a list: hours that a run takes."
        ),
        click.option(
            "--resource", "resources", nargs=2, multiple=True, metavar="NAME VALUE",
            callback=lambda ctx, option, pairs: {name: value_of(text) for name, text in pairs},
            help="What a job asks for; see below.",
        ),
        click.option(
            "--submit", "submitted", is_flag=True, help="Queue the runs that are not finished with SLURM."
        ),
    ):  # fmt: skip
        function = option(function)
    return function


def resource_section() -> Iterator[tuple[str, Rows]]:
    """The resources of a job, for a command's help; see :class:`emlc_lib.commands.parameters.Described`."""
    yield "Resources of a job", [(name, allowed(field)) for name, field in Resources.model_fields.items()]


def of_a_cluster(parameters: dict[str, Any]) -> dict[str, Any]:
    """The parameters of runs on other machines, with CUDA unless they say ``device=cpu``."""
    device = parameters.get("device", "cuda")
    if device not in ("cuda", "cpu"):
        raise ConfigError(f"device: of jobs must be cuda or cpu (got {device!r})")
    return parameters | {"device": device, "device_here": False}


def list_or_submit(configs: list[Config], resources: dict[str, Any], submitted: bool, estimate, runs, csv) -> None:
    """Prints the list of jobs, or queues them."""
    usual = {"gpus": 0} if all(config.device == "cpu" for config in configs) else {}
    asked = checked(Resources, **usual | resources)
    if not submitted:
        table = job_table(configs, asked, runs)
        if csv:
            write_atomically(csv, lambda path: table.to_csv(path, index=False))
        print(report(table, asked, estimate))
        return
    if csv or estimate:
        raise ConfigError("--csv and --estimate: are for lists")
    try:
        jobs = submit(configs, asked, runs)
    except ClusterError as error:
        raise click.ClickException(str(error)) from None
    where = f" from {jobs[0].job_id} on; logs: {jobs[0].paths.folder}" if jobs else ": all runs are finished"
    print(f"{len(jobs)} jobs submitted{where}")
