"""The configuration: presets, and names of runs. What it refuses is in test_bad_input."""

import json
import pickle
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from emlc_lib.data.datasets import WARM_START
from emlc_lib.experiments.runs import command
from emlc_lib.methods import METHODS
from emlc_lib.runtime.parameters import ConfigError, unknown_name
from emlc_lib.training.config import Config, config_class, from_values
from emlc_lib.training.presets import PRESETS, make_config
from emlc_lib.training.run_digest import NOISE, NOT_COUNTED

FIGURES = Path(__file__).resolve().parents[1] / "figures"
# Methods whose student is differentiated forwards.
FORWARD_MODE = ("emlc", "emlc_consistent", "mlc", "mslc", "mwnet")
NAN = float("nan")


@pytest.fixture
def cuda(monkeypatch):
    """Says whether this machine has CUDA."""

    def present(yes):
        monkeypatch.setattr("torch.cuda.is_available", lambda: yes)
        monkeypatch.setattr("torch.cuda.device_count", lambda: 2 if yes else 0)

    return present


def digits(**changes):
    return make_config(**{"dataset": "digits", "device": "cpu"} | changes)


def test_cuda_is_refused_where_there_is_none(cuda):
    cuda(False)
    for device in ("cuda", "cuda:0"):
        with pytest.raises(ConfigError, match=r"^device: CUDA is not available"):
            digits(device=device)
    cuda(True)
    assert digits(device="cuda").device == "cuda"


def test_unknown_names_come_with_a_near_one_and_with_what_there_is():
    with pytest.raises(ConfigError, match="did you mean 'noise'") as caught:
        digits(nosie=0.9)
    for name in config_class(Config, "emlc").model_fields:
        assert name in str(caught.value)
    assert unknown_name("zzzz", ["seed"]) == "zzzz: unknown parameter. Known are: seed"


ENDS = {"noise": (0, 1), "seed": (2**31 - 1,), "k": (1000,), "momentum": (0,), "n_noisy": (1,), "batch_size": (2,)}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in ENDS.items() for value in values])
def test_the_ends_of_the_ranges_are_allowed(name, value):
    assert getattr(digits(**{name: value}), name) == value


def test_a_clean_batch_may_be_the_whole_clean_set():
    assert digits(n_clean=100, clean_batch_size=100).clean_batch_size == 100


class TestPresets:
    @pytest.mark.parametrize(
        ("dataset", "with_cuda", "without"),
        [
            ("digits", "smoke", "smoke"), ("fashion_mnist", "quick", "quick"), ("cifar10", "paper", "quick"),
            ("cifar100", "paper", "quick"),
        ],
    )  # fmt: skip
    def test_auto(self, cuda, dataset, with_cuda, without):
        cuda(True)
        config = make_config(dataset=dataset)
        assert (config.preset, config.device) == (with_cuda, "cuda")
        # It goes by the device that is used, not by the one that is there.
        assert make_config(dataset=dataset, device="cpu").preset == without
        cuda(False)
        config = make_config(dataset=dataset)
        assert (config.preset, config.device) == (without, "cpu")

    @pytest.mark.parametrize(("dataset", "model"), [("cifar10", "resnet34"), ("cifar100", "resnet50")])
    def test_paper_is_table_4(self, dataset, model):
        config = make_config(dataset=dataset, preset="paper", device="cpu")
        expected = {
            "model": model, "start": "simclr", "start_steps": 0, "start_weights": None, "batch_size": 128,
            "clean_batch_size": 32, "epochs": 15, "lr": 0.02, "teacher_lr": 0.02, "momentum": 0.9,
            "weight_decay": 0.0, "schedule": "none", "augment": True, "n_clean": 1000,  # section 4.1
            "n_noisy": None, "meta_weights": "paper", "corruption": "adversarial", "meta_term": True,
            "precision": "float32",
        }  # fmt: skip
        assert {name: getattr(config, name) for name in expected} == expected

    def test_paper_computes_in_tf32_on_cuda_alone(self, cuda):
        cuda(True)
        for dataset in ("cifar10", "cifar100", "clothing1m"):
            config = make_config(dataset=dataset)
            assert (config.preset, config.device, config.precision) == ("paper", "cuda", "tf32")
            assert make_config(dataset=dataset, precision="float32").precision == "float32"
            assert make_config(dataset=dataset, preset="paper", device="cpu").precision == "float32"
        assert make_config(preset="quick").precision == "float32"
        cuda(False)
        # Its command says nothing of it, wherever it is written.
        config = make_config(preset="paper", device="cuda", device_here=False)
        assert "-y" not in command(config)

    def test_paper_is_table_4_for_clothing1m(self, cuda):
        config = make_config(dataset="clothing1m", preset="paper", device="cpu")
        expected = {
            "model": "resnet50_imagenet", "start": "imagenet", "batch_size": 1024, "clean_batch_size": 1024,
            "epochs": 3, "lr": 0.1, "teacher_lr": 0.1, "schedule": "lr_step", "momentum": 0.9,
            "weight_decay": 0.0, "augment": True, "noise_type": "real", "n_clean": None, "n_noisy": None,
            "corruption": "adversarial", "meta_weights": "paper",
        }  # fmt: skip
        assert {name: getattr(config, name) for name in expected} == expected
        # Section 4.2 says 5 epochs.
        longer = make_config(dataset="clothing1m", preset="paper", device="cpu", epochs=5)
        assert longer.model_copy(update={"epochs": 3}) == config
        assert longer.name != config.name
        cuda(True)
        assert make_config(dataset="clothing1m").preset == "paper"

    @pytest.mark.parametrize("dataset", ["digits", "fashion_mnist", "cifar10", "cifar100"])
    @pytest.mark.parametrize("preset", ["smoke", "quick"])
    def test_small_presets_fit_every_data_set(self, dataset, preset):
        config = make_config(dataset=dataset, preset=preset, device="cpu")
        assert (config.dataset, config.preset) == (dataset, preset)
        # SimCLR's weights of the narrow network come with the package for CIFAR-10 alone.
        instead = WARM_START if preset == "quick" and dataset != "cifar10" else {}
        for name, value in (PRESETS[preset] | instead).items():
            assert getattr(config, name) == value

    @pytest.mark.parametrize("dataset", ["cifar10", "cifar100"])
    def test_small_has_the_rates_of_table_4(self, dataset):
        config = make_config(dataset=dataset, preset="small", device="cpu")
        assert (config.lr, config.teacher_lr, config.epochs, config.n_clean) == (0.02, 0.02, 4, 1000)
        assert config.n_noisy is None
        assert not config.awaits_weights

    def test_changes_override_the_preset_and_none_does_not(self):
        config = make_config(preset="paper", device="cpu", epochs=3, model="resnet_narrow", lr=None)
        assert (config.epochs, config.model, config.lr, config.batch_size) == (3, "resnet_narrow", 0.02, 128)
        # Also against cifar100's own network.
        assert make_config(dataset="cifar100", preset="paper", device="cpu", model="resnet34").model == "resnet34"

    def test_presets_are_not_changed_by_use(self):
        before = json.dumps(PRESETS)
        make_config(dataset="cifar100", preset="paper", device="cpu", epochs=1)
        assert json.dumps(PRESETS) == before


# Of every field a value and another one.
FIELDS = {
    "dataset": ("cifar10", "cifar100"), "preset": ("quick", "smoke"), "method": ("emlc", "clean_only"),
    "seed": (0, 1), "device": ("cpu", "cuda"), "noise_type": ("symmetric", "asymmetric"), "noise": (0.9, 0.8),
    "asymmetric_map": ("similar", "random"), "splits": ("disjoint", "released"),
    "noise_file": (None, "labels.npz"), "noise_sha256": (None, 64 * "0"), "human_labels": (None, "labels.npz"),
    "human_key": ("worse_label", "aggre_label"), "n_clean": (1000, 500), "n_noisy": (5000, None),
    "model": ("resnet_narrow", "resnet34"), "start": ("random", "simclr"),
    "start_weights": (None, "another file"), "start_steps": (300, 299), "start_lr": (0.05, 0.06),
    "epochs": (4, 5), "batch_size": (64, 63), "clean_batch_size": (64, 63), "lr": (0.02, 0.020000001),
    "schedule": ("none", "cosine"), "momentum": (0.9, 0.5), "lr_step_epoch": (1, 2),
    "lr_step_factor": (0.1, 0.2), "resized_copy": (False, True), "weight_decay": (0.0, 5e-4),
    "augment": (True, False), "autoaugment": (True, False), "k": (1, 2), "teacher_lr": (0.02, 0.03),
    "corruption": ("adversarial", "random"), "meta_term": (True, False), "meta_weights": ("paper", "exact"),
    "step_order": ("matched", "reversed"), "step_mean": (False, True), "teacher_momentum": (None, 0.0),
    "mlc_lr": (3e-4, 1e-3), "mslc_lr": (1e-3, 1e-4), "mslc_plain_share": (0.5, 0.25),
    "share_primal": (False, None), "mwnet_lr": (1e-3, 1e-4), "mlnt_sets": (10, 2), "mlnt_lr": (0.2, 0.1),
    "mlnt_meta_lr": (0.4, 0.0), "mlnt_decay": (0.99, 0.999), "fasten_threshold": (0.8, 0.9),
    "fasten_noisy_weight": (0.5, 1.0), "fixmatch_threshold": (0.95, 0.9), "fixmatch_weight": (1.0, 0.5),
    "distilled_share": (0.5, 0.25), "precision": ("float32", "tf32"), "teacher_pass": ("kept", "recomputed"),
    "cuda_graph": (False, True), "teacher_features": ("own", "student"),
    "label_embedding": (True, False), "leave_out_given": (False, True), "consistency_threshold": (0.95, 0.9),
    "consistency_weight": (1.0, 0.5), "student_average": (0.0, 0.9), "sure_labels": (False, True),
    "student_view": ("weak", "strong"),
    "dividemix_warm_up": (0.1, 0.6), "dividemix_threshold": (0.5, 0.7), "dividemix_weight": (25.0, 50.0),
    "dividemix_ramp": (1.0, 0.5), "dividemix_temperature": (0.5, 0.8), "dividemix_alpha": (4.0, 1.0),
}  # fmt: skip
# Of search_small_cifar10, whose runs had the SimCLR weights of another day, no digest can be made again.
WITH_DIGESTS = sorted(
    path.stem
    for path in FIGURES.glob("*.csv")
    if {"digest", "command", "preset"} <= {*pd.read_csv(path, nrows=0)} and path.stem != "search_small_cifar10"
)
CHANGES = {name: other for name, (_, other) in FIELDS.items()}


def of(method, **changes):
    """A configuration with the first values of ``FIELDS`` that the method has."""
    own = config_class(Config, method).model_fields
    return config_class(Config, method)(
        **{n: v for n, (v, _) in FIELDS.items() if n in own} | {"method": method} | changes
    )


class TestIdentity:
    @pytest.fixture
    def base(self):
        return of("emlc")

    @pytest.mark.parametrize("method", METHODS)
    def test_digest_and_name_change_with_every_field_that_counts(self, method, cuda, tmp_path):
        cuda(True)
        file = tmp_path / "weights.safetensors"
        save_file({"w": torch.zeros(1)}, file, metadata={"model": "resnet_narrow", "dataset": "cifar10"})
        on_cuda, stepped = {"device": "cuda"}, {"schedule": "lr_step"}
        clothing = {"dataset": "clothing1m", "noise_type": "real", "preset": "smoke"}
        # What a value needs beside it to be allowed, or to be looked at.
        beside = {
            "precision": on_cuda,
            "asymmetric_map": {"noise_type": "asymmetric"}, "lr_step_epoch": stepped, "lr_step_factor": stepped,
            "resized_copy": clothing, "start_weights": {"start": "simclr"},
        }  # fmt: skip
        fields = set(config_class(Config, method).model_fields) - {
            "method",
            "human_labels",
            "human_key",
            "noise_file",
            "noise_sha256",
            *NOT_COUNTED,
        }
        fields -= set() if METHODS[method].sees_noise else {*NOISE}
        changes = [{n: CHANGES[n]} | beside.get(n, {}) for n in fields - {"start_weights"}]
        changes.append({"start": "simclr", "start_weights": str(file)})  # which are the shipped ones otherwise
        changes += [on_cuda | {"precision": "bfloat16"}, stepped, clothing]
        configs = [of(method), *(of(method, **change) for change in changes)]
        digests = {config.digest for config in configs}
        assert len(digests) == len(configs)
        assert len({config.name for config in configs}) == len(configs)
        assert all(re.fullmatch("[0-9a-f]{8}", digest) for digest in digests)

    def test_methods_differ(self):
        assert len({of(method).digest for method in METHODS}) == len(METHODS)

    def test_where_it_is_computed_does_not_count(self, base, cuda):
        cuda(True)
        assert of("emlc", device="cuda").name == of("emlc", device="cuda", cuda_graph=True).name == base.name

    def test_defaults_do_not_count(self, base):
        """So that a parameter that is new renames no run."""
        fields = config_class(Config, "emlc").model_fields
        assert "momentum" not in base.identity
        assert of("emlc", momentum=0.5).identity["momentum"] == 0.5
        for name in base.identity.keys() & fields.keys():
            assert fields[name].is_required() or getattr(base, name) != fields[name].default or name == "method"

    def test_equal_configurations_have_equal_digests(self, base):
        reordered = dict(reversed(base.model_dump().items()))
        assert base.digest == make_config(**reordered).digest == from_values(reordered).digest
        # 1 and 1.0 are the same rate, wherever it was written down.
        assert digits(noise=1).digest == digits(noise=1.0).digest
        again = from_values(json.loads(json.dumps(base.model_dump())))
        assert again == base == pickle.loads(pickle.dumps(base))
        assert again.digest == base.digest

    def test_another_methods_parameters_are_refused(self):
        values = {**CHANGES, "share_primal": False}
        for method in METHODS:
            own = config_class(Config, method).model_fields.keys()
            for other in METHODS:
                for name in METHODS[other].Parameters.model_fields.keys() - own:
                    with pytest.raises(
                        ConfigError, match=rf"^{name}: is a parameter of method .*{other}.*, not of"
                    ):
                        digits(method=method, **{name: values[name]})

    def test_what_another_value_switches_off_does_not_count(self, base):
        assert of("emlc", asymmetric_map="random").digest == base.digest  # the noise is symmetric
        for name in ("lr_step_epoch", "lr_step_factor"):  # of another schedule
            assert of("emlc", **{name: CHANGES[name]}).digest == base.digest

    @pytest.mark.parametrize("table", WITH_DIGESTS)
    def test_committed_rows_have_the_digest_of_what_their_command_makes(self, table):
        """But for what needs files that are not here."""
        rows = pd.read_csv(FIGURES / f"{table}.csv")
        known = rows[~rows["command"].str.contains("human_labels|start_weights")]
        assert len(known)
        for row in known.itertuples():
            options = re.search(r"-y '(.*)'", row.command)
            changes = json.loads(options[1])["options"] if options else {}
            epochs = re.search(r"-p epochs (\d+)", row.command)
            changes |= {"epochs": int(epochs[1])} if epochs else {}
            changes |= {"k": row.k} if METHODS[row.method].looks_ahead else {}
            config = make_config(
                dataset=row.dataset, preset=row.preset, noise_type=row.noise_type, noise=row.noise,
                method=row.method, seed=row.seed, device="cpu", **changes,
            )  # fmt: skip
            assert row.digest == config.digest, row.command

    @pytest.mark.parametrize(
        ("method", "name", "is_read", "is_not"),
        [
            ("emlc", "compile", False, True),
            ("mlc", "mlc_curvature", "identity", "exact"),
            ("mlc", "mlc_mix_clean", True, False),
            ("mslc", "mslc_soft_targets", False, True),
        ],
    )
    def test_stored_values_of_parameters_that_are_gone(self, method, name, is_read, is_not):
        config = make_config(dataset="cifar10", preset="quick", method=method, device="cpu")
        assert from_values(config.model_dump() | {name: is_read}) == config
        with pytest.raises(ValidationError, match=name):
            from_values(config.model_dump() | {name: is_not})

    def test_human_labels_count_by_what_is_in_them(self, tmp_path):
        def config(folder, label):
            path = tmp_path / folder / "labels.npz"
            path.parent.mkdir()
            np.savez(path, worse_label=np.full(10, label))
            return make_config(preset="quick", device="cpu", noise_type="human", human_labels=path)

        here, elsewhere, other = config("a", 1), config("b", 1), config("c", 2)
        assert here.human_labels == str(tmp_path / "a" / "labels.npz")
        assert here.digest == elsewhere.digest
        assert here.digest != other.digest

    def test_names_are_readable_and_fit_for_a_folder(self, base):
        assert base.name == f"cifar10-quick-symmetric-0.9-emlc-k1-seed0-{base.digest}"
        plain = digits(method="cross_entropy", noise=0.0, seed=7)
        assert plain.name == f"digits-smoke-symmetric-0-cross_entropy-seed7-{plain.digest}"
        other = digits(method="mlc", noise=0.5, k=5)
        assert other.name == f"digits-smoke-symmetric-0.5-mlc-k5-seed0-{other.digest}"
        human = make_config(
            preset="quick", device="cpu", noise_type="human", human_labels="x/y.npz", human_key="aggre_label"
        )
        assert human.name == f"cifar10-quick-human-aggre_label-emlc-k1-seed0-{human.digest}"
        real = make_config(dataset="clothing1m", preset="smoke", device="cpu")
        assert real.name == f"clothing1m-smoke-real-emlc-k1-seed0-{real.digest}"
        for config in (base, plain, human, real):
            assert re.fullmatch(r"[\w.-]+", config.name)

    def test_frozen(self, base):
        with pytest.raises(ValidationError, match="frozen"):
            base.noise = 0.5
        assert base.noise == 0.9
        # Equal configurations can stand for each other in a set.
        assert len({base, of("emlc")}) == 1

    def test_unknown_fields_are_refused_without_make_config_too(self):
        with pytest.raises(ValidationError, match="nosie"):
            of("emlc", nosie=0.9)


def test_every_training_image_can_be_asked_for():
    config = make_config(dataset="cifar10", preset="quick", device="cpu", n_noisy="all")
    assert config.n_noisy is None
    assert make_config(dataset="cifar10", preset="quick", device="cpu").n_noisy == 20_000


def test_the_noise_rate_does_not_count_for_human_labels():
    def config(noise):
        return make_config(
            preset="quick", device="cpu", noise_type="human", human_labels="labels.npz", noise=noise
        )

    assert config(0.1).digest == config(0.9).digest
