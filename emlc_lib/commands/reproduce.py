"""``emlc reproduce``: the notebooks' own script."""

import subprocess
import sys

import click

from ..runtime.parameters import ConfigError
from ..runtime.places import REPOSITORY


@click.command()
def command():
    """Run every notebook on the embedded digits, without a network; needs a checkout and the extra notebooks."""
    script = REPOSITORY / "notebooks" / "reproduce.py"
    if not script.is_file():
        raise ConfigError(f"there is no {script}: the notebooks are in a checkout, and not in what pip installs")
    return subprocess.run([sys.executable, str(script)]).returncode
