"""The training loop: every method, determinism, resumption to the same bits, refusal of foreign checkpoints."""

import pandas as pd
import pytest
import torch
from problems import FAST, bits, interrupted, killed_and_resumed, same_bits, same_training, trained

from emlc_lib import ConfigError, make_config, prepare, run
from emlc_lib.experiments.published import table_2
from emlc_lib.experiments.runs import command, find_runs
from emlc_lib.experiments.tables import accuracy_table, paper_accuracy
from emlc_lib.runtime.checkpoint import CheckpointError
from emlc_lib.training.evaluation import best_epoch
from emlc_lib.training.trainer import CHECKPOINT, train


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"k": 4}, {"k": 3, "meta_weights": "momentum"}, {"k": 3, "meta_weights": "exact"},
        {"share_primal": False}, {"corruption": "random"}, {"corruption": "none"}, {"meta_term": False},
        {"noise_type": "asymmetric", "noise": 0.4}, {"start_steps": 5},
        {"augment": False, "schedule": "none", "weight_decay": 5e-4}, {"method": "cross_entropy"},
        {"method": "clean_only"}, {"k": 3, "step_order": "reversed", "step_mean": True, "teacher_momentum": 0.0},
        {"splits": "released", "n_noisy": 500}, {"autoaugment": False}, {"teacher_features": "student"},
        {"label_embedding": False}, {"leave_out_given": True},
        {"noise_type": "asymmetric", "noise": 0.4, "asymmetric_map": "random"}, {"method": "mlc"},
        {"method": "mlc", "k": 3},
        {"method": "mslc", "mslc_plain_share": 0.5},
        {"method": "mslc", "mslc_plain_share": 0.0}, {"method": "mwnet"},
        {"method": "mlnt", "mlnt_sets": 2}, {"method": "fasten"}, {"method": "dividemix", "n_noisy": 320},
    ],
)  # fmt: skip
def test_every_option_trains_and_repeats_bit_for_bit(changes):
    first, second = trained(**changes), trained(**changes)
    assert same_bits(bits(first), bits(second))
    pd.testing.assert_frame_equal(first.steps, second.steps)
    pd.testing.assert_frame_equal(first.epochs, second.epochs)
    assert first.epochs["student_test_accuracy"].between(0, 1).all()
    assert not same_bits(bits(first), bits(trained(seed=1, **changes)))


def test_patience_stops_at_the_same_epoch_when_a_run_is_resumed(tmp_path):
    config = make_config(**(FAST | {"epochs": 8}), n_noisy=200, lr=0.3, schedule="none")
    data = prepare(config)
    whole = train(config, data, show=False, patience=1)
    losses = whole.epochs["student_clean_loss"]
    assert losses.argmin() == len(losses) - 2 < 7

    interrupted(config, data, tmp_path, patience=1)
    for _ in range(2):  # goes on; then finds that it had stopped
        resumed = train(config, data, folder=tmp_path, show=False, patience=1)
        pd.testing.assert_frame_equal(resumed.epochs, whole.epochs)
        assert same_bits(bits(resumed), bits(whole))


def test_feature_extractors_can_be_handed_over():
    config = make_config(**FAST, n_noisy=200).model_copy(update={"model": "own"})
    made = []

    def features():
        made.append(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 12), torch.nn.ReLU()))
        return made[-1], 12

    with torch.random.fork_rng():
        trained = train(config, prepare(config), show=False, features=features)
    assert [trained.method.student.features, trained.method.teacher.classifier.features] == made


def test_sharing_the_primal_changes_rounding_only():
    """The same gradient by two routes, in float32, over one epoch of 19 chaotic steps: 1e-2 allows for that."""
    config = make_config(**(FAST | {"epochs": 1}))
    data = prepare(config)
    shared = train(config, data, show=False)
    plain = train(config.model_copy(update={"share_primal": False}), data, show=False)
    a, b = bits(shared), bits(plain)
    for name in a:
        if a[name].is_floating_point():
            torch.testing.assert_close(a[name], b[name], rtol=1e-2, atol=1e-2)


def test_k_ends_epochs_on_teacher_updates():
    """19 steps per epoch and k = 5: epochs end after 20 and 40 steps, and every fifth step has a teacher loss."""
    result = trained(k=5)
    assert len(result.steps) == 40
    updated = result.steps["meta_loss"].notna()
    assert updated.tolist() == [(t + 1) % 5 == 0 for t in range(40)]


@pytest.mark.slow
def test_the_gate_and_recovery_improve_on_digits():
    """The paper's claim at the smallest scale: after training most wrong labels are recovered, at 90 % noise."""
    config = make_config(dataset="digits", preset="smoke")
    result = train(config, prepare(config), show=False)
    last = result.epochs.iloc[-1]
    assert last["recovery_wrong"] > 0.7
    assert last["gate_right"] > last["gate_wrong"] + 0.3
    assert last["student_test_accuracy"] > 0.9


def test_best_epoch_looks_at_the_clean_set_alone():
    epochs = pd.DataFrame(
        {
            "epoch": [1, 2, 3, 4],
            "student_clean_accuracy": [0.5, 0.9, 0.9, 0.8],
            "student_test_accuracy": [0.99, 0.3, 0.2, 0.6],
        }
    )
    assert best_epoch(epochs) == 3  # the later of the two best


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"k": 5, "start_steps": 5},
        {"method": "clean_only"},
        {"method": "mlc"},
        {"method": "mlc", "k": 4},  # 19 steps an epoch: epochs end in between
        {"method": "mwnet"},
        {"method": "mlnt", "mlnt_sets": 1, "n_noisy": 320},
        {"method": "fasten"},
    ],
)
def test_resuming_in_process_gives_the_same_bits(tmp_path, changes):
    """Everything a method learns or remembers is in the checkpoint, optimisers' moments included."""
    config = make_config(**(FAST | {"epochs": 3}), **changes)
    assert same_training(*killed_and_resumed(config, prepare(config), tmp_path))


def test_a_damaged_or_foreign_checkpoint_is_refused(tmp_path):
    config = make_config(**FAST)
    data = prepare(config)
    train(config, data, folder=tmp_path, show=False)
    other = make_config(**FAST, seed=1)
    with pytest.raises(CheckpointError, match="differs in seed"):
        train(other, prepare(other), folder=tmp_path, show=False)
    path = tmp_path / CHECKPOINT
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="damaged"):
        train(config, data, folder=tmp_path, show=False)


class TestRuns:
    def test_a_finished_run_is_read_back(self, tmp_path):
        config = make_config(**FAST)
        first = run(config, root=tmp_path, show=False)
        stamp = (first.folder / "result.json").stat().st_mtime_ns
        second = run(config, root=tmp_path, show=False)
        assert (second.folder / "result.json").stat().st_mtime_ns == stamp
        assert second.result == first.result
        assert not (first.folder / CHECKPOINT).exists()
        assert [r.config for r in find_runs(tmp_path, method="emlc")] == [config]
        assert find_runs(tmp_path, method="clean_only") == []

    def test_the_result_has_its_provenance(self, tmp_path):
        result = run(make_config(**FAST), root=tmp_path, show=False).result
        assert {"torch", "torchvision", "python", "emlc-lib"} <= set(result["provenance"]["versions"])
        assert result["provenance"]["hardware"]["processor"]
        assert result["command"] == command(make_config(**FAST))
        assert str(tmp_path) not in str(result)

    def test_reported_weights_are_those_of_the_best_clean_epoch(self, tmp_path):
        config = make_config(**FAST)
        data = prepare(config)
        finished = run(config, data=data, root=tmp_path, show=False)
        with torch.no_grad():
            logits = finished.student()((data.test_images.float() / 255 - data.mean) / data.std)
        accuracy = (logits.argmax(1) == data.test_labels).double().mean().item()
        assert accuracy == pytest.approx(finished.result["test_accuracy"], abs=1e-12)

    def test_the_teacher_is_that_of_the_last_epoch_even_if_it_shares_the_students_features(self, tmp_path):
        config = make_config(**FAST | {"epochs": 6}, teacher_features="student", seed=2)
        finished = run(config, root=tmp_path, show=False)
        assert finished.result["best_epoch"] < 6  # else best and last features are the same
        data = prepare(config)
        with torch.no_grad():
            logits = finished.teacher().classifier((data.test_images.float() / 255 - data.mean) / data.std)
        accuracy = (logits.argmax(1) == data.test_labels).double().mean().item()
        assert accuracy == pytest.approx(finished.result["last_teacher_test_accuracy"], abs=1e-12)

    def test_runs_are_found_by_parameters_that_there_are(self, tmp_path):
        with pytest.raises(ConfigError, match=r"^nosie: unknown parameter; did you mean 'noise'\?"):
            find_runs(tmp_path, nosie=0.5)
        assert find_runs(tmp_path, mslc_lr=1e-3) == []

    def test_tables_report_seeds_mean_and_deviation(self, tmp_path):
        runs = [
            run(make_config(**FAST, seed=s, method="cross_entropy"), root=tmp_path, show=False) for s in (0, 1)
        ]
        (row,) = accuracy_table(runs).to_dict("records")
        values = [100 * r.result["test_accuracy"] for r in runs]
        assert row["n"] == 2
        assert row["mean"] == pytest.approx(sum(values) / 2, abs=0.006)  # rounded to two decimals
        assert row["std"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5, abs=0.006)
        assert not row["comparable"]

    def test_the_papers_numbers(self):
        def cell(**changes):
            return paper_accuracy(make_config(device="cpu", preset="paper", **changes))

        assert cell(dataset="cifar10", noise=0.9) == (90.71, 0.07)
        assert cell(dataset="cifar10", noise=0.9, k=5) == (89.57, 0.30)
        assert cell(dataset="cifar10", noise=0.4, noise_type="asymmetric", k=5) == (91.82, 0.19)
        assert cell(dataset="cifar100", noise=0.2, k=5) == (73.05, 0.20)
        assert cell(dataset="cifar10", noise=0.9, method="cross_entropy") == (42.7, None)
        assert cell(dataset="cifar10", noise=0.3) is None
        assert cell(dataset="cifar10", noise=0.9, method="clean_only") is None
        assert cell(dataset="clothing1m") == (79.35, None)
        assert cell(dataset="clothing1m", k=5) == (78.16, None)
        assert cell(dataset="clothing1m", method="fasten") == (77.83, None)
        assert cell(dataset="clothing1m", method="mslc") is None

    def test_table_2_is_the_papers(self):
        """The two claims that section 4.2 makes of it."""
        accuracy = table_2().set_index("method")["test accuracy"]
        best, others = accuracy["EMLC (k = 1)"], accuracy.drop(["EMLC (k = 1)", "EMLC (k = 5)"])
        assert best - others.max() == pytest.approx(1.52, abs=1e-9)  # two decimals, up to rounding
        assert best - accuracy["MLC"] > 3.5
        assert table_2().groupby("clean labels").size().to_dict() == {False: 8, True: 10}


@pytest.mark.gpu
def test_cuda_agrees_with_the_cpu_and_resumes(tmp_path):
    """One epoch in float32 on both: TF32 is off by default for matrices, sums differ, steps amplify it."""
    config = make_config(**(FAST | {"epochs": 1}))
    cpu = train(config, prepare(config), show=False)
    cuda_config = make_config(**(FAST | {"epochs": 1}), device="cuda")
    cuda = train(cuda_config, prepare(cuda_config), folder=tmp_path, show=False)
    first = ["student_loss", "teacher_ce", "meta_loss"]
    assert cuda.steps[first].iloc[0].to_numpy() == pytest.approx(cpu.steps[first].iloc[0].to_numpy(), rel=1e-3)
    longer = make_config(**FAST, device="cuda")
    data, begun = prepare(longer), tmp_path / "begun"
    interrupted(longer, data, begun)
    resumed = train(longer, data, folder=begun, show=False)
    assert resumed.epochs["epoch"].tolist() == [1, 2]
    # Not the same bits: on CUDA sums may be taken in another order every time.
    whole = train(longer, data, show=False)
    losses = [t.epochs["student_loss"].to_numpy() for t in (resumed, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)
