"""The step as a graph, on a stand-in for CUDA that runs on a CPU; what only a GPU can tell is marked gpu."""

import gc
import itertools
import weakref

import pytest
import torch
from problems import RandomBatches, interrupted
from strict_device import StrictDevice

from emlc_lib import ConfigError, make_config, prepare
from emlc_lib.core.teacher import build_teacher
from emlc_lib.methods import METHODS
from emlc_lib.methods.emlc import EMLC, Draw
from emlc_lib.networks import simclr
from emlc_lib.networks.backbones import build_classifier
from emlc_lib.networks.pretrain_config import make_pretrain_config
from emlc_lib.runtime.cuda_graph import CHECKS, WARM_UP, CapturedStep
from emlc_lib.training.processes import check_processes
from emlc_lib.training.trainer import train

STEPS = WARM_UP + CHECKS + 4
MADE: list = []  # stand-ins, newest last


def flat(state):
    return list(itertools.chain(*state))


class StandIn:
    """Captures by keeping the function; a replay calls it and puts its result where the capture's was.

    As on a GPU a capture changes no state, and nothing that a step looked at on the host is looked at again by
    accident: the function has its static draw alone.
    """

    def __init__(self, device):
        self.captures = self.replays = 0
        MADE.append(self)

    def run(self, function):
        return function()

    def capture(self, function):
        self.captures += 1
        state = flat(self.state())
        saved = [value.clone() for value in state]
        result = {name: value.clone() for name, value in function().items()}
        with torch.no_grad():
            for value, before in zip(state, saved, strict=True):
                value.copy_(before)

        def replay():
            self.replays += 1
            for name, value in function().items():
                result[name].copy_(value)

        return replay, result


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    MADE.clear()
    monkeypatch.setattr("emlc_lib.methods.emlc.CudaStream", StandIn)


class Views(RandomBatches):
    def strong(self, batch, t):
        return batch.x.flip(3) + t


def method(*, graph=True, device="cpu", **changes):
    """EMLC, or an extension, in float64 whose form of SGD is that of graphs, with or without one."""
    values = {"lr": 0.05, "teacher_lr": 0.05, "batch_size": 10, "clean_batch_size": 6, "schedule": "cosine"}
    config = make_config(dataset="cifar10", preset="smoke", model="small_cnn", device="cpu", **values | changes)
    config = config.model_copy(update={"cuda_graph": True, "device": device})
    generator = torch.Generator().manual_seed(0)
    student, own = (build_classifier("small_cnn", 10, 3, generator).double().to(device).train() for _ in range(2))
    teacher = build_teacher(own, generator).double().to(device).train()
    built = METHODS[config.method](config, Views(torch.float64), student, teacher)
    MADE[-1].state = built.state
    if not graph:
        built._run = built._learn
    return built


def trained(built, steps=STEPS):
    """All state and every step's log."""
    log = [built.step(t) for t in range(steps)]
    return [value.clone() for value in flat(built.state())] + [value for entry in log for value in entry.values()]


def same(a, b):
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"corruption": "random"}, {"corruption": "none", "weight_decay": 0.01},
        {"teacher_pass": "recomputed", "share_primal": False}, {"meta_weights": "exact"},
        {"meta_term": False, "teacher_momentum": 0.0},
        {"method": "emlc_consistent", "student_view": "strong", "sure_labels": True, "consistency_threshold": 0.12,
         "student_average": 0.9},
    ],
)  # fmt: skip
def test_replays_are_the_steps_bit_by_bit(changes, capsys):
    """A cosine schedule, so that another rate is due at every step; no draw is that of the capture."""
    built = method(**changes)
    found, stream = trained(built), MADE[-1]
    assert same(found, trained(method(graph=False, **changes)))
    assert (stream.captures, stream.replays) == (1, STEPS - WARM_UP)
    assert capsys.readouterr().err == ""


IMAGES = torch.randint(0, 256, (60, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
SIMCLR = dict(dataset="cifar10", model="resnet_narrow", view_size=12, batch_size=10, precision="float32")


def simclr_steps(stream=None):
    config = make_pretrain_config(**SIMCLR, device="cpu")
    networks, optimiser = simclr._build(config, 3)
    for group in optimiser.param_groups:
        group["fused"] = True  # as on CUDA
    step = simclr._Steps(config, networks, optimiser, IMAGES, None, None)
    if stream:
        step.captured = CapturedStep(step.learner.learn, step.learner.state, stream("cpu"))
        MADE[-1].state = step.learner.state
    return step


def simclr_trained(step, rates):
    return [step(t, lr) for t, lr in enumerate(rates)] + flat(step.learner.state())


def test_replays_of_simclr_are_its_steps(capsys):
    """The rate falls and every step has images and views of its own, across an epoch's end."""
    rates = [0.1 / (t + 1) for t in range(STEPS)]
    assert same(simclr_trained(simclr_steps(StandIn), rates), simclr_trained(simclr_steps(), rates))
    assert (MADE[-1].captures, MADE[-1].replays) == (1, STEPS - WARM_UP)
    assert capsys.readouterr().err == ""


def test_a_replay_of_simclr_that_learns_nothing_is_seen_while_the_rate_rises(capsys):
    """At a rate of 1e-3 statistics and momenta change a thousand times as much as weights."""
    rates = [1e-3] * STEPS
    assert same(simclr_trained(simclr_steps(wrong("weights")), rates), simclr_trained(simclr_steps(), rates))
    assert capsys.readouterr().err.startswith("cuda_graph: a replay differs from the step by ")


def test_what_simclr_has_captured_goes_with_its_steps():
    gc.collect()
    gc.disable()
    try:
        step = simclr_steps(StandIn)
        step(0, 0.1)
        learner = weakref.ref(step.learner)
        MADE.clear()
        del step
        assert learner() is None
    finally:
        gc.enable()


@pytest.mark.gpu
def test_on_cuda_simclr_is_replayed(capsys):
    simclr.pretrain(make_pretrain_config(**SIMCLR, device="cuda", epochs=2), IMAGES, show=False)
    assert capsys.readouterr().err == ""


def test_the_form_of_the_optimiser_is_no_other_optimiser():
    """Against the plain step without a graph; in float64 1e-12 is rounding."""
    built = method()
    config = built.config.model_copy(update={"cuda_graph": False})
    other = method(graph=False)
    plain = EMLC(config, other.batches, other.student, other.teacher)
    for value, reference in zip(trained(built), trained(plain), strict=True):
        torch.testing.assert_close(value, reference, rtol=1e-12, atol=1e-12)


def test_a_failing_capture_is_said_once_and_the_training_goes_on(monkeypatch, capsys):
    """It fails in the middle of a step, which leaves that step's batch pending."""
    built, update, calls = method(), EMLC._update_teacher, []

    def failing(self, draw):
        calls.append(draw)
        if len(calls) == WARM_UP + 2:  # after the step that is checked
            raise RuntimeError("operation not permitted when stream is capturing\nmore lines")
        return update(self, draw)

    monkeypatch.setattr(EMLC, "_update_teacher", failing)
    found = trained(built)
    assert same(found, trained(method(graph=False)))
    assert capsys.readouterr().err == (
        "cuda_graph: the capture failed (operation not permitted when stream is capturing); "
        "the training goes on without a graph\n"
    )


def wrong(kind):
    """A replay with one mistake."""

    class Wrong(StandIn):
        def capture(self, function):
            replay, result = super().capture(function)

            def mistaken():
                before = [value.clone() for value in flat(self.state())]
                replay()
                if kind == "log":
                    result["student_loss"].zero_()
                    result["correction"].zero_()
                elif kind == "not finite":
                    self.state()[0][0].data.mul_(float("nan"))
                elif kind == "nothing" or self.replays == CHECKS:  # right on the first draw alone
                    for value, old in zip(flat(self.state()), before, strict=True):
                        value.data.copy_(old)
                elif kind == "weights":
                    for value, old in zip(self.state()[0], before, strict=False):
                        value.data.copy_(old)

            return mistaken, result

    return Wrong


@pytest.mark.parametrize("kind", ["log", "not finite", "nothing", "second draw", "weights"])
def test_a_replay_that_differs_is_not_used(kind, monkeypatch, capsys):
    monkeypatch.setattr("emlc_lib.methods.emlc.CudaStream", wrong(kind))
    built = method()
    found = trained(built)
    assert MADE[-1].replays == (CHECKS if kind == "second draw" else 1)
    assert same(found, trained(method(graph=False)))
    message = capsys.readouterr().err
    assert message.startswith("cuda_graph: a replay differs from the step by ")
    assert message.count("\n") == 1


def test_a_training_with_a_graph_is_resumed(monkeypatch, tmp_path):
    """To the same bits, and those are the numbers of a training without one, but for the order of some sums."""
    state = EMLC.state

    def remembered(self):
        MADE[-1].state = lambda: state(self)
        return state(self)

    monkeypatch.setattr(EMLC, "state", remembered)
    config = make_config(dataset="digits", device="cpu", epochs=3, n_noisy=256, batch_size=32)
    graph, data = config.model_copy(update={"cuda_graph": True}), prepare(config)
    whole = train(graph, data, show=False)
    assert MADE[-1].replays == 3 * 8 - WARM_UP

    interrupted(graph, data, tmp_path)
    resumed = train(graph, data, folder=tmp_path, show=False)
    assert MADE[-1].replays == 2 * 8 - WARM_UP
    states = [trained.method.student.state_dict().values() for trained in (whole, resumed)]
    assert same(*map(list, states))
    plain = train(config, data, show=False).steps["student_loss"]
    # The first steps, in float32, before roundings have grown.
    assert abs(whole.steps["student_loss"][:5] - plain[:5]).max() <= 1e-5


@pytest.mark.parametrize("corruption", ["adversarial", "random", "none"])
@pytest.mark.parametrize("changes", [{}, {"share_primal": False}, {"meta_weights": "exact"}, {"meta_term": False}])
def test_the_captured_step_stays_on_the_device(corruption, changes, monkeypatch):
    """On a device without values: no number is read and nothing copied, in either direction."""

    def update(params, gradients, momenta, *, lr, **_):  # the real one does not know this device
        assert all(value.is_meta for value in [*params, *gradients, *momenta, lr])
        updates.append(lr)

    updates: list = []
    monkeypatch.setattr(torch, "_fused_sgd_", update)
    built = method(device="meta", corruption=corruption, **changes)
    for optimiser in built.optimisers.values():
        optimiser._need_device_dtype_check_for_fused = False

    def moved(part):
        return type(part)(*(None if value is None else value.to("meta") for value in part))

    drawn = built._draw(0)
    given = drawn.given if drawn.given is None else drawn.given.to("meta")
    factor = torch.ones((), dtype=torch.float64, device="meta")
    draw = Draw(factor, moved(drawn.noisy), moved(drawn.clean), given)
    with StrictDevice() as device:
        log = built._learn(draw)
    assert all(value.is_meta for value in log.values())
    assert not device.waits
    assert device.copies == 0
    assert len(updates) == 2  # student and teacher


@pytest.mark.parametrize("changes", [{"device": "cpu"}, {"k": 2}, {"method": "mlc"}])
def test_where_there_can_be_no_graph(changes, monkeypatch):
    monkeypatch.setattr("emlc_lib.training.presets.check_device", lambda device: device)
    with pytest.raises(ConfigError, match=r"^cuda_graph: "):
        make_config(dataset="digits", cuda_graph=True, **{"device": "cuda"} | changes)


def test_several_processes_have_none(monkeypatch):
    monkeypatch.setattr("emlc_lib.training.presets.check_device", lambda device: device)
    with pytest.raises(ConfigError, match=r"^cuda_graph: "):
        check_processes(make_config(dataset="digits", device="cuda", cuda_graph=True), 2)


def test_the_option_renames_no_run():
    plain = make_config(dataset="digits", device="cpu")
    assert plain.model_copy(update={"cuda_graph": True}).digest == plain.digest


@pytest.mark.gpu
def test_on_cuda_replays_are_the_steps(monkeypatch, capsys):
    """In float32, over steps that are all replayed after the checks; 1e-3 leaves room for atomic sums' order."""
    from emlc_lib.runtime.cuda_graph import CudaStream

    ends = []
    for graph in (True, False):
        built = method(graph=False)
        config = built.config.model_copy(update={"device": "cuda"})
        student, teacher = built.student.float().cuda(), built.teacher.float().cuda()
        on_gpu = EMLC(config, RandomBatches(torch.float32, device="cuda"), student, teacher)
        if graph:
            on_gpu._run = CapturedStep(on_gpu._learn, on_gpu.state, CudaStream("cuda"))
        else:
            on_gpu._run = on_gpu._learn
        ends.append(trained(on_gpu))
    assert capsys.readouterr().err == ""
    for value, reference in zip(*ends, strict=True):
        torch.testing.assert_close(value, reference, rtol=1e-3, atol=1e-3)
