"""Runs every notebook headless on the embedded digits: ``python -m emlc_lib.experiments.reproduce`` (``make
reproduce``).

Executed notebooks, figures and runs go to ``build/reproduce/`` of the repository, which is emptied first.
"""

from __future__ import annotations

import shutil
import sys
import time

import papermill

from ..runtime.places import REPOSITORY

_DIGITS: dict[str, object] = {
    "csv": "", "dataset": "digits", "preset": "smoke", "seeds": [0, 1],
    "figures": "{out}/figures", "runs": "{out}/runs", "save": "{out}",
}  # fmt: skip

# What each notebook is run with besides its defaults; {out} is the folder above.
NOTEBOOKS: dict[str, dict[str, object]] = {
    "00_pretrain_simclr": {"figures": "{out}/figures", "runs": "{out}/runs", "dataset": "digits"},
    "01_meta_gradient": {"figures": "{out}/figures"},
    "02_teacher": {"figures": "{out}/figures", "runs": "{out}/runs"},
    "03_cifar": {"figures": "{out}/figures", "runs": "{out}/runs", "dataset": "digits", "preset": "smoke"},
    "04_label_recovery": _DIGITS,
    "05_tsne": _DIGITS,
    "06_meta_loss": _DIGITS,
    "07_look_ahead": {**_DIGITS, "ks": [1, 2, 5], "seeds": [0]},
    "08_tables": {
        **_DIGITS, "ablation": "", "noises": ["symmetric:0.5", "symmetric:0.9"],
        "methods": ["emlc", "mlc", "mslc", "mwnet", "fasten", "cross_entropy", "clean_only"],
    },
    "09_fidelity": {**_DIGITS, "seeds": [0]},
    "10_your_data": {"out": "{out}/corrected.csv"},
    "11_clothing1m": {"figures": "{out}/figures"},
    "12_cost": {"figures": "{out}/figures"},
}  # fmt: skip


def main() -> int:
    """Runs them in order; the first failure stops and is the exit status."""
    out = REPOSITORY / "build" / "reproduce"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for name, parameters in NOTEBOOKS.items():
        began = time.perf_counter()
        print(f"{name} ...", flush=True)
        filled = {k: v.format(out=out) if isinstance(v, str) else v for k, v in parameters.items()}
        try:
            papermill.execute_notebook(
                REPOSITORY / "notebooks" / f"{name}.ipynb",
                out / f"{name}.ipynb",
                filled,
                cwd=REPOSITORY / "notebooks",
                progress_bar=False,
                log_output=False,
            )
        except papermill.PapermillExecutionError as error:
            print(error, file=sys.stderr)
            return 1
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
    for path in sorted(out.glob("*.ipynb")) + sorted((out / "figures").glob("*.png")):
        print(path.relative_to(REPOSITORY))
    return 0


if __name__ == "__main__":
    sys.exit(main())
