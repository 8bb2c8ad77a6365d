"""What happens to a run that is killed, interrupted, cut short by a full disk, or whose files are damaged."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


def faults(folder, kills):
    seed = int(os.environ.get("EMLC_FAULT_SEED", random.SystemRandom().randrange(10**6)))
    print(f"seed of the faults: {seed}; EMLC_FAULT_SEED={seed} repeats them")
    command = [sys.executable, HERE / "fault_trials.py", folder, str(seed), str(kills)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parent)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, f"seed {seed}: {done.stderr[-3000:]}"
    found = json.loads(done.stdout)
    print(found)
    return found


def test_a_killed_run_ends_in_the_same_bits(tmp_path):
    found = faults(tmp_path, 1)
    assert found["kills"] == 1
    assert found["of the same bits"] == found["runs that were killed"] == 1


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return faults(tmp_path_factory.mktemp("runs"), 30)


@pytest.mark.slow
def test_many_killed_runs_end_in_the_same_bits(report):
    assert report["kills"] == 30
    assert report["of the same bits"] == report["runs that were killed"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["interrupted", "full", "limited"])
def test_other_ends_raise_and_resume_to_the_same_bits(report, fault):
    tried, raised, same = report[fault]
    assert raised == tried > 0
    assert same


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["cut", "flipped", "older"])
def test_a_damaged_checkpoint_is_refused_with_what_to_do(report, damage):
    tried, held = report[damage]
    assert held == tried > 0


@pytest.mark.slow
def test_two_processes_at_once_make_one_run(report):
    tried, held = report["at once"]
    assert held == tried > 0


@pytest.mark.slow
def test_nothing_half_written_is_left(report):
    assert report["left over"] == []
