"""Configurations for the made-up tree of Clothing1M's layout."""

from emlc_lib import make_config


def config_of(**changes):
    return make_config(**{"dataset": "clothing1m", "preset": "smoke", "device": "cpu"} | changes)
