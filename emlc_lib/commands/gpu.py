"""``emlc gpu``: the command line of :mod:`emlc_lib.experiments.gpu`, which machines without click have, too."""

import click

from ..experiments import gpu


@click.command(add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(arguments):
    """Has its own parser, and its own help."""
    return gpu.execute(arguments, "emlc gpu")
