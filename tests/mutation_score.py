"""The share of mutants that were caught, after ``make mutation-test``; fails below 95 %.

A mutant is caught if a test failed or did not end (some loops become endless). One that no test calls is not.
"""

import json
import sys
from pathlib import Path

FILE = Path(__file__).resolve().parent.parent / "mutants" / "mutmut-cicd-stats.json"
LEAST = 0.95


def score(counts):
    """The share, of all mutants that were tried, from mutmut's counts by outcome."""
    return (counts["killed"] + counts["timeout"]) / counts["total"]


if __name__ == "__main__":
    counts = json.loads(FILE.read_text())
    print(", ".join(f"{number} {outcome}" for outcome, number in counts.items() if number))
    print(f"caught: {score(counts):.1%} (at least {LEAST:.0%} are asked for)")
    sys.exit(score(counts) < LEAST)
