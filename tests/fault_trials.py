"""Trials of a run that is disturbed, each in a forked process; started by test_faults.py. Prints JSON.

A fault strikes either before a step of training or at one of the four moments of a checkpoint's write: before it,
with half of the file written, with all of it written, and after it has taken its place.
"""

import errno
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import sys
from pathlib import Path

import torch

from emlc_lib import make_config, prepare, run
from emlc_lib.experiments.runs import load_run
from emlc_lib.methods.emlc import EMLC
from emlc_lib.runtime import checkpoint
from emlc_lib.runtime.checkpoint import CheckpointError
from emlc_lib.training.trainer import CHECKPOINT

MOMENTS = ("before", "half", "written", "replaced")
EPOCHS, STEPS = 24, 8  # steps an epoch
CONFIG = make_config(
    dataset="digits", device="cpu", k=2, epochs=EPOCHS, n_noisy=256, batch_size=32, clean_batch_size=20, seed=3
)


def child(root: Path, plan=None) -> tuple[str, str]:
    """Runs to the end in a process of its own, after ``plan()`` there; how it ended, and its last words."""
    return finish(*begin(root, plan))


def begin(root: Path, plan=None) -> tuple[int, int]:
    """Starts a process that makes the run; its number, and where its last words are read."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        status = 0
        try:
            os.close(reader)
            if plan:
                plan()
            run(CONFIG, data=DATA, root=root, show=False)
        except BaseException as error:
            os.write(writer, f"{type(error).__name__}: {error}".encode()[:2000])
            status = 1
        os._exit(status)
    os.close(writer)
    return pid, reader


def finish(pid: int, reader: int) -> tuple[str, str]:
    with os.fdopen(reader) as pipe:
        words = pipe.read()
    _, status = os.waitpid(pid, 0)
    return ("killed" if os.WIFSIGNALED(status) else "ended" if status == 0 else "raised"), words


def at_step(number: int, act):
    """A plan: ``act()`` before the number-th step that the process makes."""
    original, made = EMLC.step, []

    def step(self, t):
        made.append(t)
        if len(made) == number:
            act()
        return original(self, t)

    return lambda: setattr(EMLC, "step", step)


def at_write(number: int, moment: str, act):
    """A plan: ``act()`` at a moment of the number-th write of a checkpoint."""
    save, replace, made = checkpoint.save_file, os.replace, []

    def saving(tensors, path, metadata):
        made.append(path)
        mine = len(made) == number
        if mine and moment == "before":
            act()
        save(tensors, path, metadata)
        if mine and moment == "half":
            os.truncate(path, os.path.getsize(path) // 2)
            act()
            save(tensors, path, metadata)  # an interrupt is for the main thread: the writing one goes on
        if mine and moment == "written":
            act()

    def replacing(source, target):
        replace(source, target)
        if len(made) == number and moment == "replaced" and Path(target).name == CHECKPOINT:
            act()

    def plan():
        checkpoint.save_file, os.replace = saving, replacing

    return plan


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def interrupt():
    signal.raise_signal(signal.SIGINT)


def full_disk():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def small_files():
    """The system itself refuses to write more than 20 kB to a file, in the middle of it."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))


def bits(root: Path) -> dict[str, str]:
    """SHA-256 of everything in the finished run but its seconds."""
    folder = root / CONFIG.name
    files = sorted(p for p in folder.iterdir() if p.name != ".lock")
    found = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
    result = load_run(folder).result
    del result["seconds"]
    return found | {"result.json": json.dumps(result, sort_keys=True)}


def plan_of(draw: random.Random, act):
    if draw.random() < 0.5:
        return at_step(draw.randint(1, 3 * STEPS), act)
    return at_write(draw.randint(1, 2), draw.choice(MOMENTS), act)


def until_finished(root: Path, plans, more: int) -> list[tuple[str, str]]:
    """How the disturbed attempts ended; at most ``more`` of them, then one that is left alone."""
    ends = [child(root, plan) for plan, _ in zip(plans, range(more), strict=False)]
    assert child(root) == ("ended", "")
    return ends


def trials(root: Path, seed: int, kills: int) -> dict:
    """So many kills, over as many runs as that takes; if it is more than one, all other faults too."""
    draw = random.Random(seed)
    report: dict = {"seed": seed}
    assert child(root / "whole") == ("ended", "")
    whole = bits(root / "whole")

    def same(name: str) -> bool:
        return bits(root / name) == whole and bits(root / "whole") == whole

    killed, runs = 0, []
    while killed < kills:
        name = f"killed{len(runs)}"
        ends = until_finished(root / name, (plan_of(draw, kill) for _ in iter(int, 1)), kills - killed)
        killed += sum(end == "killed" for end, _ in ends)
        runs.append(same(name))
    report["kills"], report["runs that were killed"], report["of the same bits"] = killed, len(runs), sum(runs)
    if kills == 1:
        return report

    for name, act, words in (
        ("interrupted", interrupt, "KeyboardInterrupt"),
        ("full", full_disk, "No space left"),
    ):
        plans = [plan_of(draw, act) for _ in range(5)]
        ends = until_finished(root / name, plans, 5)
        report[name] = [len(ends), sum(e == "raised" and words in w for e, w in ends), same(name)]

    ends = until_finished(root / "limited", [small_files], 1)
    report["limited"] = [1, int(ends[0][0] == "raised" and "File too large" in ends[0][1]), same("limited")]
    report["left over"] = [str(p.relative_to(root)) for p in root.rglob("*.tmp")]
    report |= damaged(root, draw, same) | at_once(root, draw, same)
    return report


def damaged(root: Path, draw: random.Random, same) -> dict:
    """Checkpoints that are cut off or have one bit changed: refused with what to do, and then made anew."""
    cut, flipped, others = [], [], []
    for i in range(8):
        for kind, found in (("cut", cut), ("flipped", flipped)):
            name = f"{kind}{i}"
            assert child(root / name, at_step(2 * STEPS + 1, kill))[0] == "killed"
            (file,) = (root / name).glob(f"*/{CHECKPOINT}")
            content = bytearray(file.read_bytes())
            if kind == "cut":
                content = content[: draw.randrange(len(content))]
            else:
                content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
            file.write_bytes(content)
            end, words = child(root / name)
            refused = end == "raised" and words.startswith(CheckpointError.__name__) and "delete it" in words
            file.unlink()
            found.append(refused and child(root / name) == ("ended", "") and same(name))
    # Of an older version: its configuration lacks a parameter.
    # In the third epoch the first checkpoint is whole: the second waits for it.
    assert child(root / "older", at_step(2 * STEPS + 1, kill))[0] == "killed"
    (file,) = (root / "older").glob(f"*/{CHECKPOINT}")
    tensors, metadata = checkpoint.read_checkpoint(file)
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}  # or they would be views of the file
    lacking = {name: value for name, value in metadata["config"].items() if name != "batch_size"}
    rewrite(file, tensors, metadata | {"config": lacking})
    end, words = child(root / "older")
    others.append(end == "raised" and "differs in batch_size" in words and file.is_file())
    others.append(older_result(root / "whole"))
    return {"cut": [8, sum(cut)], "flipped": [8, sum(flipped)], "older": [2, sum(others)]}


def rewrite(file: Path, tensors, metadata) -> None:
    """A checkpoint with other metadata, and the checksum that belongs to them."""
    text = json.dumps(metadata)
    digest = checkpoint.tensors_digest(sorted(tensors.items()), text)
    checkpoint.save_file(tensors, file, {"metadata": text, "sha256": digest})


def older_result(root: Path) -> bool:
    """A finished run of a version that had a parameter more is refused, said which, and kept."""
    copy = root.with_name("older result")
    shutil.copytree(root, copy)
    (file,) = copy.glob("*/result.json")
    result = json.loads(file.read_text())
    result["config"]["forgotten"] = 1
    file.write_text(json.dumps(result))
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    end, words = child(copy)
    same = before == {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    return end == "raised" and "forgotten" in words and "delete it" in words and same


def at_once(root: Path, draw: random.Random, same) -> dict:
    """Two processes that start the same run together; in half of the trials one is killed on its way."""
    held = []
    for i in range(6):
        pair = [begin(root / f"pair{i}", plan_of(draw, kill) if i % 2 else None), begin(root / f"pair{i}")]
        ends = [finish(*begun) for begun in pair]
        # With a fault in the first, the other one may have made the run before.
        held.append(ends[1] == ("ended", "") and (ends[0][0] == "killed" or ends[0] == ("ended", "")))
        held[-1] &= same(f"pair{i}")
    return {"at once": [6, sum(held)]}


if __name__ == "__main__":
    torch.set_num_threads(1)
    # Jobs in a shell's background are started without it, and Jupyter's kernels never are.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    DATA = prepare(CONFIG)
    print(json.dumps(trials(Path(sys.argv[1]), *map(int, sys.argv[2:]))))
