r"""Several processes, on one machine or on several, that train one model together.

``torchrun`` starts the same program W times. Every process holds both networks and trains on its share, a W-th,
of every batch (:class:`emlc_lib.data.batches.Batches`). Where one process takes a mean over a batch, the means
over the equal shares are averaged by an all-reduce:

* the student's gradient: once a step;
* g_w, the gradient of the clean loss (eq. 5): once per teacher update, *before* forward mode, since every
  v_i = J_w(log p_w(x_i)) g_w is along the gradient of the whole clean batch; with ``meta_weights="exact"`` its k
  Hessian-vector products, too;
* the teacher's gradient, the meta-gradient and the supervised terms together: once per update.

So networks without batch norm become those of one process on the joint batch, up to the rounding of sums.

**Batch norm** takes its statistics from each process's own share, as in torch's DistributedDataParallel. The loss
is then the mean over the shares of a loss with their own statistics, and for k = 1 the meta-gradient is the exact
derivative of that. The result depends on W, so a training goes on with the number of processes that it began with.
``torch.nn.SyncBatchNorm`` would not do: it is for GPUs alone, and forward mode cannot go through it. Running
statistics are averaged over the processes at the end of every epoch, before anything is evaluated or saved.

There is no DistributedDataParallel around the networks, since ``torch.func`` cannot go through it. Only the first
process writes or reads a run's files; the others hear from it what they need to know. With one process nothing
here changes anything.
"""

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn

from .execution import cores
from .parameters import Expected
from .randomness import WHOLE, Share

K = TypeVar("K", bound=Hashable)

T = TypeVar("T")

# How torchrun begins to say at length that a process has failed.
TORCHRUNS_REPORT = re.compile(r"E\d{4} .*torch/distributed/elastic/.* failed \(")


class ProcessError(Expected, RuntimeError):
    """One of several processes failed; the message has its error."""


def own_share() -> Share:
    """This process's share of every batch: all of it, unless a process group has been formed."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return WHOLE
    return Share(distributed.get_rank(), distributed.get_world_size())


def averaged(tensors: dict[K, Tensor]) -> dict[K, Tensor]:
    """The mean over all processes of each tensor, by one all-reduce. All have one number format and one device."""
    world = own_share().world
    if world == 1 or not tensors:
        return tensors
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors.values()])
    distributed.all_reduce(flat)
    parts = flat.div_(world).split([tensor.numel() for tensor in tensors.values()])
    return {name: part.view(tensors[name].shape) for name, part in zip(tensors, parts, strict=True)}


def average_gradients(params: Iterable[nn.Parameter]) -> None:
    """Replaces all gradients by their means over the processes, with one all-reduce."""
    _average_in_place([p.grad for p in params if p.grad is not None])


def average_statistics(networks: Iterable[nn.Module]) -> None:
    """Replaces the running statistics of batch norm by their means over the processes, with one all-reduce.

    They are linear in each step's statistics: averaged now or at every step, they come out the same.
    """
    _average_in_place([b for network in networks for b in network.buffers() if b.is_floating_point()])


def _average_in_place(tensors: list[Tensor]) -> None:
    if own_share().world > 1:
        for i, mean in averaged(dict(enumerate(tensors))).items():
            tensors[i].copy_(mean)


def interleaved(part: Tensor, n: int) -> Tensor:
    """The (n, ...) rows of which every process has its share, on each of them."""
    share = own_share()
    if share.world == 1:
        return part
    whole = part.new_zeros(n, *part.shape[1:])
    share.of(whole).copy_(part)
    distributed.all_reduce(whole)  # all others add zeros
    return whole


def from_first(make: Callable[[], T]) -> T:
    """What ``make`` returns in the first process, in all of them; all wait for it."""
    share = own_share()
    if share.world == 1:
        return make()
    box = [make() if share.rank == 0 else None]
    distributed.broadcast_object_list(box)
    return box[0]


@contextmanager
def one_of_each_machine_first():
    """The block is entered by one process of each machine, and by the others when it has left it.

    It may download what the others then find.
    """
    waits = own_share().world > 1
    leads = int(os.environ.get("LOCAL_RANK", "0")) == 0
    if waits and not leads:
        distributed.barrier()
    yield
    if waits and leads:
        distributed.barrier()


@contextmanager
def group(device: str):
    """Forms the process group of a program that torchrun started; on CUDA each process takes a device of its own.

    Reductions use NCCL on CUDA devices and gloo on CPUs. After an error the group is left as it is: the process
    ends, and torchrun ends the others.
    """
    if device.startswith("cuda"):
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    backend = "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"
    # One process may have a long download or a pretraining, or wait for another training of the same run.
    distributed.init_process_group(backend, timeout=timedelta(days=30))
    yield
    distributed.destroy_process_group()


def launch(program: Sequence[str], processes: int, *, show: bool = True) -> None:
    """Runs a program in so many processes on this machine, by torchrun, and waits for them.

    Args:
        program: what follows ``torchrun --standalone --nproc-per-node PROCESSES``.
        show: whether to pass the processes' stderr on, progress included.

    Raises:
        ProcessError: a process failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "error.json"
        command = [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1",
            "--nproc-per-node", str(processes), *program,
        ]  # fmt: skip
        usual = {"OMP_NUM_THREADS": str(max(1, cores() // processes))}
        loopback = {name for _, name in socket.if_nameindex()} & {"lo", "lo0"}
        if loopback:
            usual["GLOO_SOCKET_IFNAME"] = loopback.pop()
        environment = usual | dict(os.environ) | {"TORCHELASTIC_ERROR_FILE": str(report)}
        streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, env=environment, **streams) as torchrun:
            try:
                for line in torchrun.stderr:
                    show = show and not TORCHRUNS_REPORT.match(line)  # the error says it in a line
                    if show:
                        sys.stderr.write(line)
            except BaseException:
                torchrun.terminate()  # it ends its processes
                raise
        if torchrun.returncode:
            raise ProcessError(f"one of {processes} processes failed: {_reason(report)}")


def _reason(report: Path) -> str:
    try:
        message = json.loads(report.read_text())["message"]
    except (OSError, ValueError, KeyError):
        return "without a report, so it was probably killed"
    return message["message"] if isinstance(message, dict) else message
