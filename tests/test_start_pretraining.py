"""SimCLR weights that are not there: pretrained once, before the run, kept where every later run finds them."""

import errno
import hashlib
import json
import re
import threading
from pathlib import Path

import pytest
import torch
from test_notebooks import execute

from emlc_lib import ConfigError, find_runs, load_dataset, make_config, prepare, run, train
from emlc_lib.experiments.cluster import Resources, submit
from emlc_lib.experiments.job_list import job_table, report
from emlc_lib.experiments.pretraining import obtain, provide, save_pretrained
from emlc_lib.experiments.runs import command, is_finished, state
from emlc_lib.experiments.sweep import sweep
from emlc_lib.networks import simclr
from emlc_lib.networks.backbones import build_features
from emlc_lib.networks.pretrain_config import DEFAULTS, make_pretrain_config
from emlc_lib.networks.simclr import CHECKPOINT, pretrain
from emlc_lib.networks.weights import start_weights_file, weights_digest
from emlc_lib.runtime.checkpoint import load_weights

RUN = {"dataset": "digits", "device": "cpu", "start": "simclr", "epochs": 1, "n_noisy": 128, "batch_size": 32}
NAME = "simclr-digits-small_cnn"
DAY = 86400


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty data root, and pretrainings of three epochs."""
    monkeypatch.setenv("EMLC_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("EMLC_RUNS", raising=False)
    short = {"epochs": 3, "warmup_epochs": 1, "precision": "float32"}
    monkeypatch.setitem(DEFAULTS, "small_cnn", DEFAULTS["small_cnn"] | short)
    return tmp_path / "data"


@pytest.fixture
def pretrainings(monkeypatch):
    """The configurations of the pretrainings that were begun in this process."""
    begun = []

    def counted(config, *arguments, **options):
        begun.append(config)
        return pretrain(config, *arguments, **options)

    monkeypatch.setattr("emlc_lib.experiments.pretraining.pretrain", counted)
    return begun


def config(**changes):
    return make_config(**RUN | changes)


def digits_weights(**options):
    return provide("digits", "small_cnn", "cpu", **{"show": False} | options)


class TestRun:
    def test_pretrains_first_and_later_runs_find_the_weights(self, root, pretrainings, capsys):
        early = config()
        assert early.awaits_weights
        assert "-unpretrained-" in early.name
        assert (is_finished(early), state(early)) == (False, "missing")
        assert pretrainings == []  # a configuration trains nothing
        done = run(early)
        said = capsys.readouterr().err
        assert re.search(
            r"preset smoke on cpu: small_cnn, 1 epochs, about \d+ \w+; \d+ \w+ of it to pretrain", said
        )
        assert re.search(r"^pretraining small_cnn on digits by SimCLR, once: 3 epochs, about \d+ ", said, re.M)
        assert "SimCLR: 100%" in said
        file = root / "weights" / f"{NAME}.safetensors"
        card = json.loads(file.with_suffix(".json").read_text())
        assert card["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
        assert 0.1 < card["untrained"]["knn"] < card["knn"] <= 1
        assert 0.1 < card["linear"] <= 1
        assert (card["seed"], card["epochs"]) == (0, 3)
        assert not list(root.rglob(CHECKPOINT))
        # The configuration that was made before has its name now.
        assert not early.awaits_weights
        assert early.name == done.folder.name == done.result["name"]
        assert "unpretrained" not in early.name
        assert early.identity["start_weights"] == weights_digest(file)
        assert (is_finished(early), state(early)) == (True, "finished")
        assert [found.result["name"] for found in find_runs()] == [early.name]
        assert "unpretrained" not in command(early)

        run(config(seed=1))
        said = capsys.readouterr().err
        assert re.search(r"^preset smoke on cpu: small_cnn, 1 epochs, about \d+ seconds$", said, re.M)
        assert "pretrain" not in said
        assert [begun.seed for begun in pretrainings] == [0]  # whatever the seed of the run

    def test_begins_with_them(self, root):
        done = run(config(lr=1e-12, method="cross_entropy"), show=False)
        features, _ = build_features("small_cnn", 1, torch.Generator().manual_seed(0))
        load_weights(features, root / "weights" / f"{NAME}.safetensors")
        for a, b in zip(done.student().features.parameters(), features.parameters(), strict=True):
            torch.testing.assert_close(
                a, b, rtol=0, atol=1e-6
            )  # four steps of 1e-12 times a gradient are far less

    def test_a_training_without_them_does_not_begin(self, root):
        with pytest.raises(FileNotFoundError, match=r"^start: its SimCLR weights are made by emlc_lib\.run"):
            train(config(), prepare(config()), show=False)

    @pytest.mark.slow
    def test_several_processes_find_what_the_first_has_made(self, root, pretrainings):
        done = run(config(), show=False, processes=2)
        assert done.result["provenance"]["processes"] == 2
        assert len(pretrainings) == 1
        # The processes that were started have another default: none of them has pretrained.
        assert json.loads((root / "weights" / f"{NAME}.json").read_text())["epochs"] == 3

    @pytest.mark.slow
    def test_a_sweep_pretrains_before_it_starts(self, root, pretrainings):
        runs = sweep([config(seed=seed) for seed in (0, 1)], jobs=2, show=False)
        assert len(pretrainings) == 1
        assert [done.config.seed for done in runs] == [0, 1]
        assert len(find_runs()) == 2

    def test_the_whole_time_is_said_before_anything_starts(self, root, monkeypatch, capsys):
        monkeypatch.setattr("emlc_lib.experiments.runs.estimate_seconds", lambda *_: 3 * DAY)
        monkeypatch.setattr("emlc_lib.experiments.runs.expected_seconds", lambda *_: 11 * DAY)

        def stop(*_, expected, **__):
            assert expected == 11 * DAY
            raise KeyboardInterrupt

        monkeypatch.setattr("emlc_lib.experiments.runs.provide", stop)
        with pytest.raises(KeyboardInterrupt):
            run(make_config(preset="paper", device="cpu"), data=object())
        first, _, rest = capsys.readouterr().err.partition("\n")
        assert first == "preset paper on cpu: trying a few steps, to tell how long it will take"
        assert rest == (
            "preset paper on cpu: resnet34, 15 epochs, about 14.0 days; "
            "11.0 days of it to pretrain the SimCLR start, once\n"
        )


class TestWeights:
    def test_identity_is_of_their_content(self, root):
        awaited = config().digest
        file = digits_weights()
        first, kept = config().digest, file.read_bytes()
        other = make_pretrain_config(dataset="digits", device="cpu", seed=1)
        save_pretrained(obtain(other, load_dataset("digits"), show=False), other, file)
        assert len({awaited, first, config().digest}) == 3
        file.write_bytes(kept)
        assert config().digest == first

    def test_an_interrupted_pretraining_goes_on_to_the_same_bits(self, root, tmp_path, monkeypatch):
        whole = digits_weights(folder=tmp_path / "undisturbed", show=True)  # estimates change nothing either
        step = simclr._Steps.__call__

        def stopping(self, t, lr):
            if t == self.per_epoch + 1:
                raise KeyboardInterrupt
            return step(self, t, lr)

        monkeypatch.setattr(simclr._Steps, "__call__", stopping)
        usual = make_pretrain_config(dataset="digits", device="cpu")
        with pytest.raises(KeyboardInterrupt):  # as notebook 04 does ...
            obtain(usual, load_dataset("digits"), show=False)
        assert len(list(root.rglob(CHECKPOINT))) == 1
        steps = []
        monkeypatch.setattr(simclr._Steps, "__call__", lambda *a: (steps.append(a[1]), step(*a))[1])
        # ... and as a run does.
        assert weights_digest(digits_weights()) == weights_digest(whole)
        assert steps == list(range(5, 15))  # 1,347 images make 5 steps an epoch; one epoch was done

    def test_a_precision_is_only_asked_for_by_name(self, root, pretrainings):
        """The usual configuration takes weights of any precision, one that names its own takes no other."""
        file, images = digits_weights(), load_dataset("digits")
        usual = make_pretrain_config(dataset="digits", device="cpu")
        named = make_pretrain_config(dataset="digits", device="cpu", precision="bfloat16")
        assert obtain(named, images, show=False).source == "trained"
        card = json.loads(file.with_suffix(".json").read_text())
        card["config"]["precision"] = "bfloat16"
        file.with_suffix(".json").write_text(json.dumps(card))
        assert [obtain(other, images, show=False).source for other in (usual, named)] == [file.name] * 2
        assert len(pretrainings) == 2

    def test_what_was_begun_in_another_precision_goes_on_in_it(self, root, pretrainings):
        begun = make_pretrain_config(dataset="digits", device="cpu", precision="bfloat16")

        def stop(*_):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            pretrain(begun, load_dataset("digits").train_images, folder=root / "weights" / begun.name, show=False,
                     on_epoch=stop)  # fmt: skip
        file = digits_weights()
        assert [config.precision for config in pretrainings] == ["bfloat16"]
        assert json.loads(file.with_suffix(".json").read_text())["config"]["precision"] == "bfloat16"

    def test_two_at_once_pretrain_once(self, root, pretrainings, capsys):
        both = threading.Barrier(2)

        def start():
            both.wait()
            digits_weights(show=True)

        threads = [threading.Thread(target=start) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(pretrainings) == 1
        assert f"{NAME} is being pretrained by another process: waiting for it\n" in capsys.readouterr().err

    def test_shipped_ones_come_first(self, root, monkeypatch, tmp_path):
        cached = digits_weights()
        assert start_weights_file("digits", "small_cnn") == cached == root / "weights" / f"{NAME}.safetensors"
        monkeypatch.setattr("emlc_lib.networks.weights.SHIPPED_WEIGHTS", tmp_path)
        (tmp_path / cached.name).write_bytes(cached.read_bytes())
        assert digits_weights() == start_weights_file("digits", "small_cnn") == tmp_path / cached.name
        assert start_weights_file("digits", "small_cnn", "named").name == "named"

    @pytest.mark.parametrize(
        "error", [FileExistsError(errno.EEXIST, "File exists"), OSError(errno.EROFS, "Read-only")]
    )
    def test_a_folder_that_cannot_be_written_to_is_refused_before_any_work(self, here, error, monkeypatch):
        if isinstance(error, FileExistsError):
            (here / "weights").write_text("a file in the folder's place")
        else:
            touch = Path.touch

            def refusing(path):
                if "weights" in str(path):
                    raise error
                touch(path)

            monkeypatch.setattr("pathlib.Path.touch", refusing)
        for work in (lambda: run(config()), lambda: sweep([config()]), digits_weights):
            with pytest.raises(
                ConfigError,
                match=rf"^start: .*weights (is a file|cannot .*{error.strerror}).*EMLC_DATA",
            ):
                work()
        assert not (here / "runs").exists()

    def test_where_they_are_there_the_folder_need_not_be_writable(self, root, monkeypatch, tmp_path):
        file = digits_weights()
        monkeypatch.setattr(
            "emlc_lib.experiments.pretraining.check_writable", lambda *_: pytest.fail("weights are there")
        )
        assert digits_weights() == file
        assert run(config(), root=tmp_path / "runs", show=False).config == config()

    def test_what_is_refused(self, root):
        digits_weights().write_bytes(b"no weights")
        with pytest.raises(ConfigError, match=rf"^start_weights: .*{NAME}\.safetensors is damaged"):
            config()
        with pytest.raises(ConfigError, match=r"^start_weights: nowhere is not a file$"):
            config(start_weights="nowhere")
        clothing = {"dataset": "clothing1m", "preset": "smoke", "device": "cpu", "start": "simclr"}
        with pytest.raises(ConfigError, match=r"^start: there are no SimCLR weights of small_cnn for clothing1m"):
            make_config(**clothing)
        with pytest.raises(
            ConfigError, match=r"^start: there are no SimCLR weights of resnet50_imagenet for cifar10"
        ):
            make_config(preset="paper", device="cpu", model="resnet50_imagenet")


@pytest.mark.slow
def test_the_notebook_makes_the_very_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("EMLC_DATA", str(tmp_path / "data"))
    assert config().awaits_weights
    execute(tmp_path, "04_pretrain_simclr", dataset="digits", model="small_cnn", runs=None)
    there = {path.name for path in (tmp_path / "data" / "weights").iterdir() if path.is_file()}
    assert there == {f"{NAME}.safetensors", f"{NAME}.json", f"{NAME}.lock"}
    assert not config().awaits_weights
    assert weights_digest(digits_weights()) == config().identity["start_weights"]


def test_jobs_are_listed_without_the_weights_and_submitted_with_them(root):
    configs = [config(seed=seed) for seed in (0, 1)]
    table = job_table(configs, Resources())
    assert table["weights"].tolist() == ["to be pretrained"] * 2
    assert "2 of them start from SimCLR weights that are not there" in report(table, Resources())
    with pytest.raises(
        ConfigError, match=r"^start: no SimCLR weights of small_cnn .* -p dataset digits -p model small"
    ):
        submit(configs, Resources())
    digits_weights()
    table = job_table(configs, Resources())
    assert table["weights"].tolist() == ["there"] * 2
    assert table["run"].tolist() == [c.name for c in configs]
    assert "SimCLR" not in report(table, Resources())
