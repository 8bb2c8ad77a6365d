"""Runs every notebook headless on the embedded digits, two at a time with one thread each: ``make reproduce``.

Executed notebooks, figures and runs go to ``build/reproduce/`` of the repository, which is emptied first.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "build" / "reproduce"
AT_ONCE = 2

_PLACES = {"figures": "{out}/figures", "runs": "{out}/runs"}
_DIGITS = {
    **_PLACES, "csv": "", "dataset": "digits", "preset": "smoke", "seeds": [0, 1], "save": "{out}", "jobs": 1,
}  # fmt: skip

# What each notebook is run with besides its defaults, the longest first; {out} is the folder above. None reads
# what another one makes, but some have runs in common: who comes second waits for them and reads them.
NOTEBOOKS: dict[str, dict[str, object]] = {
    "08_tables": {
        **_DIGITS, "ablation": "", "noises": ["symmetric:0.5", "symmetric:0.9"],
        "methods": ["emlc", "mlc", "mslc", "mwnet", "fasten", "cross_entropy", "clean_only"],
    },
    "09_fidelity": {**_DIGITS, "seeds": [0]},
    "07_look_ahead": {**_DIGITS, "noises": [0.9], "ks": [1, 2, 5], "seeds": [0]},
    "11_clothing1m": {"figures": "{out}/figures"},
    "01_meta_gradient": {"figures": "{out}/figures"},
    "10_your_data": {"out": "{out}/corrected.csv"},
    "06_tsne": _DIGITS,
    "02_teacher": _PLACES,
    "04_pretrain_simclr": {**_PLACES, "dataset": "digits"},
    "05_label_recovery": {**_DIGITS, "noises": [0.9]},
    "03_cifar": {**_PLACES, "dataset": "digits", "preset": "smoke"},
    "12_cost": {"figures": "{out}/figures"},
    "13_explore": {"runs": "{out}/runs", "figures": "{out}/figures"},
    "14_claims": {},
    "15_which_information": {"figures": "{out}/figures"},
}  # fmt: skip


def execute(name: str) -> float:
    """Runs a notebook and returns the seconds that it took.

    Raises:
        CalledProcessError: a cell failed; ``stderr`` says which and why.
    """
    began = time.perf_counter()
    parameters = {k: v.format(out=OUT) if isinstance(v, str) else v for k, v in NOTEBOOKS[name].items()}
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", "-y", json.dumps(parameters)]
    paths = [str(ROOT / "notebooks" / f"{name}.ipynb"), str(OUT / f"{name}.ipynb")]
    subprocess.run(
        [*command, *paths], cwd=ROOT / "notebooks", env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return time.perf_counter() - began


def main() -> int:
    """Runs all of them and says what was made; after the first failure none is begun, and the status is 1."""
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    print(f"{len(NOTEBOOKS)} notebooks, {AT_ONCE} at a time", flush=True)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        names = {pool.submit(execute, name): name for name in NOTEBOOKS}
        for number, done in enumerate(as_completed(names), 1):
            try:
                print(f"{number:2}/{len(names)} {names[done]}: {done.result():.0f} s", flush=True)
            except subprocess.CalledProcessError as error:
                pool.shutdown(cancel_futures=True)
                print(f"{names[done]} failed:\n{error.stderr}", file=sys.stderr)
                return 1
    for path in sorted(OUT.glob("*.ipynb")) + sorted((OUT / "figures").glob("*.png")):
        print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
