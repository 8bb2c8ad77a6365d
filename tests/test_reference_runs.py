"""Short runs end where they ended when their table was written."""

import json

import pytest
from reference_runs import FILE, RUNS, numbers

TABLE = json.loads(FILE.read_text())


def test_the_table_is_of_these_runs():
    assert set(TABLE) == set(RUNS)
    # No two runs end alike, or an option would have no effect.
    assert len({json.dumps(row) for row in TABLE.values()}) == len(TABLE)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_ends_where_it_did(name):
    """1e-7: two threads in place of one, which sum in another order, move these numbers by up to 3e-14 of
    themselves (measured); another processor may do a little worse, and a mistake moves them by far more."""
    found = numbers(**RUNS[name])
    assert found.keys() == TABLE[name].keys()
    for what, value in TABLE[name].items():
        assert found[what] == pytest.approx(value, rel=1e-7), what
