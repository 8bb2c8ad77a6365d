"""Two processes on gloo: the meta-gradient and both networks are those of one process on the joint batch.

Tolerance 1e-9 in float64: both sides are the same sums in another order, over at most six steps, which leaves
1e-15 times the number of terms; a wrong weight, share or draw is off by percents. That is without batch norm;
with it the gradient is that of the mean over the shares. NCCL, and so more than one GPU, has not been run.
"""

import dataclasses
import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from references import cross_entropy, flat, relative_error, stateless, unrolled_gradient
from sharded_training import CASES, RUN, Float64Batches, case_config, everything, networks
from torch.func import functional_call
from torch.nn import functional as F

from emlc_lib import ConfigError, make_config, prepare, run
from emlc_lib.commands import main
from emlc_lib.core.losses import corrupt_half
from emlc_lib.data.autoaugment import CIFAR_POLICY
from emlc_lib.data.batches import Batches
from emlc_lib.data.spec import Recipe
from emlc_lib.experiments.runs import load_run
from emlc_lib.runtime.checkpoint import CheckpointError
from emlc_lib.runtime.parallel import ProcessError, averaged, from_first, launch
from emlc_lib.runtime.randomness import Share
from emlc_lib.training.processes import check_processes
from emlc_lib.training.trainer import CHECKPOINT, train

TOLERANCE = 1e-9
WORKER = str(Path(__file__).with_name("sharded_training.py"))


def start(mode, folder):
    launch([WORKER, mode, str(folder)], 2, show=False)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The folder that two processes filled: every case's results and one run."""
    folder = tmp_path_factory.mktemp("two")
    start("train", folder)
    return folder


@pytest.fixture(scope="module")
def results(two):
    return [torch.load(two / f"results{rank}.pt") for rank in (0, 1)]


@pytest.fixture(scope="module")
def alone():
    return everything()


class TestTwoProcesses:
    @pytest.mark.parametrize("case", [*CASES, "warm-up", "evaluation"])
    def test_both_have_the_same_bits(self, results, case):
        first, second = (result[case] for result in results)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)

    @pytest.mark.parametrize("case", [*(case for case in CASES if case != "batch norm"), "warm-up"])
    def test_gradients_networks_and_log_are_those_of_one_process(self, results, alone, case):
        joint, single = results[0][case], alone[case]
        assert joint.keys() == single.keys()
        assert len(joint) >= 4
        for key, expected in single.items():
            torch.testing.assert_close(
                joint[key].double(), expected.double(), rtol=TOLERANCE, atol=TOLERANCE, msg=key
            )

    def test_images_are_evaluated_to_the_same_bits(self, results, alone):
        assert torch.equal(results[0]["evaluation"]["logits"], alone["evaluation"]["logits"])
        assert results[0]["evaluation"]["logits"].shape == (449, 5)

    def test_three_steps_against_autograd_through_the_whole_loop(self, results):
        """The references' hand-unrolled SGD on the joint batches; the exact adjoint has no approximation."""
        case = "k=3, exact"
        config, (student, teacher) = case_config(case), networks(case)
        batches = Float64Batches(config, prepare(config))
        noisy = [(b.x, b.given) for b in map(batches.noisy, range(3))]
        clean = tuple(batches.clean(0, config.clean_batch_size))
        sgd = {"lr": config.lr, "momentum": config.momentum, "weight_decay": config.weight_decay}
        expected = unrolled_gradient(student, teacher, noisy, clean, **sgd)
        supervised = F.cross_entropy(teacher.classifier(clean[0]), clean[1])
        params = list(teacher.parameters())
        expected = expected + flat(torch.autograd.grad(supervised, params, materialize_grads=True))
        value = flat(v for k, v in results[0][case].items() if k.startswith("teacher gradient 2/"))
        assert expected.norm() > 1e-3
        assert relative_error(value, expected) <= TOLERANCE

    def test_batch_norm_has_the_exact_gradient_of_the_mean_over_the_shares(self, results):
        """Each share with its own statistics, through the student's step, by autograd."""
        config, (student, teacher) = case_config("batch norm"), networks("batch norm")
        data = prepare(config)
        parts = [Float64Batches(config, data, Share(rank, 2)) for rank in (0, 1)]
        noisy, clean = [p.noisy(0) for p in parts], [p.clean(0, config.clean_batch_size) for p in parts]
        student, teacher = stateless(student), stateless(teacher)
        w = dict(student.named_parameters())

        def logits(w, batch):
            return functional_call(student, w, (batch.x,))

        losses = [cross_entropy(teacher(b.x, b.given).soft_labels, logits(w, b)) for b in noisy]
        grads = torch.autograd.grad(sum(losses) / 2, list(w.values()), create_graph=True)
        after = {name: p - config.lr * g for (name, p), g in zip(w.items(), grads, strict=True)}
        terms = [F.cross_entropy(logits(after, b), b.labels) for b in clean]
        terms += [F.cross_entropy(teacher.classifier(b.x), b.labels) for b in clean]
        params = list(teacher.parameters())
        expected = flat(torch.autograd.grad(sum(terms) / 2, params, materialize_grads=True))
        value = flat(v for k, v in results[0]["batch norm"].items() if k.startswith("teacher gradient 0/"))
        assert relative_error(value, expected) <= TOLERANCE

    def test_batch_norm_differs_from_one_process(self, results, alone):
        """As the documentation says; but the first layer's running means, linear in the images, do not."""
        joint, single = results[0]["batch norm"], alone["batch norm"]
        key = "student/features.0.weight"
        assert (joint[key] - single[key]).abs().max() > 1e-6
        for key in ("student/features.1.running_mean", "teacher/classifier.features.1.running_mean"):
            torch.testing.assert_close(joint[key], single[key], rtol=TOLERANCE, atol=TOLERANCE)
            assert joint[key].abs().max() > 1e-3

    def test_only_the_first_writes(self, two):
        first, second = (json.loads((two / f"run{rank}.json").read_text()) for rank in (0, 1))
        assert any(CHECKPOINT in path for _, path in first["wrote"])
        assert second["wrote"] == []
        assert first["accuracy"] == second["accuracy"]

    def test_the_result_says_with_how_many(self, two):
        finished = load_run(next((two / "runs").iterdir()))
        assert finished.result["provenance"]["processes"] == 2
        assert "-p processes 2" in finished.result["command"]
        assert len(finished.epochs) == RUN["epochs"]

    @pytest.mark.slow
    def test_a_run_that_lost_a_process_resumes_to_the_same_bits(self, two, tmp_path):
        config = make_config(**RUN)
        with pytest.raises(ProcessError, match="one of 2 processes failed"):
            start("kill", tmp_path)
        assert (tmp_path / config.name / CHECKPOINT).is_file()
        with pytest.raises(CheckpointError, match="processes=2"):
            run(config, root=tmp_path, show=False)
        resumed, whole = run(config, root=tmp_path, show=False, processes=2), load_run(two / "runs" / config.name)
        for kind in ("student", "teacher"):
            a, b = (getattr(finished, kind)().state_dict() for finished in (resumed, whole))
            assert all(torch.equal(a[name], b[name]) for name in a)
        pd.testing.assert_frame_equal(resumed.epochs, whole.epochs)
        pd.testing.assert_frame_equal(resumed.steps, whole.steps)
        again = run(config, root=tmp_path, show=False)  # read back, whatever the number
        assert again.result == resumed.result

    @pytest.mark.slow
    def test_what_one_process_began_two_refuse_with_their_error_passed_on(self, tmp_path):
        config = make_config(**RUN)
        train(config, prepare(config), folder=tmp_path / config.name, show=False)
        with pytest.raises(ProcessError, match=r"CheckpointError: .* written with processes=1, and with 2 batch"):
            run(config, root=tmp_path, show=False, processes=2)
        assert not (tmp_path / config.name / "result.json").exists()


class Recording:
    """Images that say which of them were asked for."""

    def __init__(self, images):
        self.images, self.shape, self.asked = images, images.shape, []

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        self.asked += index.tolist()
        return self.images[index]


@pytest.fixture(scope="module")
def coloured():
    """Random images with CIFAR's whole augmentation; sample i has the given label i."""
    config = make_config(dataset="digits", device="cpu", n_noisy=130, batch_size=24, clean_batch_size=12)
    data = prepare(config)
    generator = torch.Generator().manual_seed(0)

    def images(n):
        return torch.randint(256, (n, 3, 16, 16), generator=generator, dtype=torch.uint8)

    recipe = Recipe(2, True, True, CIFAR_POLICY)
    changes = dict(noisy_labels=torch.arange(130), recipe=recipe, noisy_images=images(130))
    return config, dataclasses.replace(data, clean_images=images(100), **changes)


class TestShares:
    @pytest.mark.parametrize("world", [2, 3, 4])
    def test_they_make_up_the_whole_batch_bit_for_bit(self, coloured, world):
        config, data = coloured
        shares = [Batches(config, data, Share(rank, world)) for rank in range(world)]
        whole = Batches(config, data)
        for draw in (
            lambda b: b.noisy(7),
            lambda b: b.clean(3, 12),
            lambda b: b.clean(2, 12, start=True),
        ):
            parts, expected = [draw(b) for b in shares], draw(whole)
            for i, field in enumerate(expected):
                joined = torch.empty_like(field)
                for rank, part in enumerate(parts):
                    joined[rank::world] = part[i]
                assert torch.equal(joined, field)

    def test_they_are_disjoint_and_change_with_the_epoch(self, coloured):
        config, data = coloured
        shares = [Batches(config, data, Share(rank, 2)) for rank in (0, 1)]
        per_epoch = shares[0].steps_per_epoch
        epochs = []
        for epoch in range(3):
            steps = range(epoch * per_epoch, (epoch + 1) * per_epoch)
            first, second = ({i for t in steps for i in b.noisy(t).given.tolist()} for b in shares)
            assert not first & second
            assert len(first | second) == per_epoch * config.batch_size
            epochs.append(frozenset(first))
        assert len(set(epochs)) == 3

    def test_only_ones_own_images_are_read(self, coloured):
        config, data = coloured
        noisy, clean = Recording(data.noisy_images), Recording(data.clean_images)
        batches = Batches(config, dataclasses.replace(data, noisy_images=noisy, clean_images=clean), Share(1, 2))
        given = batches.noisy(0).given
        batches.clean(0, 12)
        assert noisy.asked == given.tolist()
        assert len(noisy.asked) == 12
        assert len(clean.asked) == 6

    def test_an_unequal_share_is_refused(self, coloured):
        with pytest.raises(ConfigError, match="5 cannot share a batch of 24 equally"):
            Batches(*coloured, Share(0, 5)).noisy(0)

    @pytest.mark.parametrize("strategy", ["adversarial", "random", "none"])
    @pytest.mark.parametrize(("n", "world"), [(12, 2), (18, 3), (6, 2)])
    def test_corruption_is_that_of_the_whole_batch(self, strategy, n, world):
        """Half of 18 is 9 and of 6 is 3: the shares have different numbers of corrupted samples."""
        generator = torch.Generator().manual_seed(1)
        labels, logits = torch.randint(7, (n,), generator=generator), torch.randn(n, 7, generator=generator)

        def corrupted(share):
            seeded = torch.Generator().manual_seed(2)
            return corrupt_half(share.of(labels), share.of(logits), strategy, seeded, share)

        whole = corrupted(Share())
        for rank in range(world):
            assert torch.equal(corrupted(Share(rank, world)), whole[rank::world])
        assert torch.equal(whole, labels) is (strategy == "none")


def test_one_process_averages_nothing():
    """The very objects come back, so that no bit can change."""
    tensors = {"a": torch.ones(2)}
    assert averaged(tensors) is tensors
    assert from_first(lambda: tensors) is tensors


class TestRefused:
    @pytest.mark.parametrize(
        ("changes", "processes", "message"),
        [
            ({}, 0, "processes: must be a positive integer"),
            ({}, "2", "processes: must be a positive integer"),
            ({}, True, "processes: must be a positive integer"),
            ({"batch_size": 33}, 2, "batch_size: 33 cannot be shared equally by 2"),
            (
                {"method": "clean_only", "n_clean": 50, "batch_size": 64},
                4,
                "n_clean: 50 cannot be shared equally by 4",
            ),
            ({"clean_batch_size": 31}, 2, "clean_batch_size: 31 cannot be shared equally by 2"),
            (
                {"method": "mlc"},
                2,
                "processes: method mlc trains in one; several are for cross_entropy, clean_only, emlc",
            ),
        ],
    )
    def test_before_any_work(self, tmp_path, changes, processes, message):
        config = make_config(dataset="digits", device="cpu", **changes)
        with pytest.raises(ConfigError, match=message):
            run(config, root=tmp_path / "runs", processes=processes)
        assert not (tmp_path / "runs").exists()

    @pytest.mark.parametrize(
        ("device", "message"), [("cuda:1", "device: each process has a GPU"), ("cuda", "2 need a GPU each")]
    )
    def test_gpus_that_are_not_there(self, monkeypatch, device, message):
        monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
        config = make_config(dataset="digits", device="cpu").model_copy(update={"device": device})
        with pytest.raises(ConfigError, match=message):
            check_processes(config, 2)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["-p", "batch_size", "33"], "batch_size: 33 cannot be shared"),
            (["-p", "nosie", "0.9"], "nosie: unknown parameter; did you mean 'noise'"),
            (["-p", "noise", "2"], "noise: Input should be less than or equal to 1"),
            (["-p", "processes", "2"], "processes: torchrun has said how many"),
        ],
    )
    @pytest.mark.parametrize("rank", ["0", "1"])
    def test_by_the_command_line_in_one_line(self, monkeypatch, capsys, arguments, message, rank):
        torchruns = {"RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "none"}
        torchruns |= {"LOCAL_RANK": rank, "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
        for name, value in torchruns.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as raised:
            main(["run", "-p", "dataset", "digits", *arguments])
        assert raised.value.code == 2
        errors = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
        assert len(errors) == (rank == "0")
        assert all(message in line for line in errors)


def test_a_checkpoint_of_one_process_goes_on_with_one(tmp_path):
    """One that was written before the number was recorded counts as one process's."""
    config = make_config(dataset="digits", device="cpu", epochs=1, n_noisy=128)
    data = prepare(config)
    first = train(config, data, folder=tmp_path, show=False)
    again = train(config, data, folder=tmp_path, show=False)
    assert again.epochs.equals(first.epochs)
