"""Noise files: written, read and trained on; the hash by hand; another hand's files."""

import hashlib
import shutil
import struct
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from problems import same_bits

from emlc_lib import EMLCClassifier, find_runs, make_config, prepare, run
from emlc_lib.commands import main
from emlc_lib.data.datasets import load_dataset
from emlc_lib.data.noise_file import as_noise_file, read_noise_file, write_noise_file
from emlc_lib.experiments.command_line import command
from emlc_lib.experiments.runs import is_finished
from emlc_lib.experiments.sweep import product, sweep
from emlc_lib.experiments.tables import accuracy_table, compare, is_blind, run_table
from emlc_lib.runtime.parameters import ConfigError
from emlc_lib.training.trainer import train

FIGURES = Path(__file__).resolve().parents[1] / "figures"
SHORT = {"dataset": "digits", "preset": "smoke", "device": "cpu", "epochs": 1}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def file(here):
    """A file of the command ``emlc noise``, whose noise is that of seed 3."""
    assert main(["noise", "--dataset", "digits", "--noise", "0.5", "--seed", "3", "--out", "n.npz"]) == 0
    return here / "n.npz"


def of_file(file, **changes):
    return make_config(**SHORT | {"noise_type": "file", "noise_file": file, "seed": 3} | changes)


def test_the_hash_is_of_the_integers_in_the_file_by_hand(file):
    with np.load(file, allow_pickle=False) as archive:
        arrays = dict(archive)
    text = struct.pack("<2q", len(arrays["noisy"]), len(arrays["clean"]))
    for name in ("noisy", "labels", "true_labels", "clean", "clean_labels"):
        text += b"".join(struct.pack("<q", value) for value in arrays[name].tolist())
    assert str(arrays["sha256"]) == hashlib.sha256(text).hexdigest()


def test_what_is_in_the_file_is_what_a_run_sees(file):
    with np.load(file, allow_pickle=False) as archive:
        arrays = dict(archive)
    data = prepare(make_config(**SHORT, noise=0.5, seed=3))
    images = load_dataset("digits")
    assert arrays["noisy"].tolist() == data.split.noisy.tolist()
    assert arrays["labels"].tolist() == data.noisy_labels.tolist()
    assert arrays["true_labels"].tolist() == images.train_labels[arrays["noisy"]].tolist()
    assert arrays["clean"].tolist() == data.split.clean.tolist()
    assert arrays["clean_labels"].tolist() == images.train_labels[arrays["clean"]].tolist()
    # Symmetric noise of rate 1/2: half of the labels stay, the others are drawn among ten.
    share = (1247 // 2) / 1247
    np.testing.assert_allclose(arrays["transition_matrix"], (1 - share) * np.eye(10) + share / 10, rtol=1e-15)


def test_a_run_with_the_file_ends_in_the_bits_of_a_run_without_it(file, here):
    plain, filed = (
        run(c, root=here, show=False) for c in (make_config(**SHORT, noise=0.5, seed=3), of_file(file))
    )
    assert plain.folder != filed.folder
    assert same_bits(plain.student().state_dict(), filed.student().state_dict())
    assert same_bits(plain.teacher().state_dict(), filed.teacher().state_dict())
    sha256 = read_noise_file(file).sha256
    assert plain.result["labels_sha256"] == filed.result["labels_sha256"] == sha256
    assert filed.config.name.startswith(f"digits-smoke-file-labels-{sha256[:8]}-emlc-k1-seed3-")
    assert filed.result["command"].endswith(f"-p epochs 1 -p noise_file labels-{sha256[:8]}.npz")


def test_split_and_labels_are_those_of_the_file_whatever_else_is_asked(file):
    data = prepare(of_file(file))
    for change in ({"seed": 8}, {"noise": 0.1}, {"n_clean": 200}, {"n_noisy": 300}):
        other = prepare(of_file(file, **change))
        assert other.split.noisy.tolist() == data.split.noisy.tolist()
        assert other.noisy_labels.tolist() == data.noisy_labels.tolist()
        assert other.split.clean.tolist() == data.split.clean.tolist()
        assert (of_file(file, **change).digest == of_file(file).digest) == ("seed" not in change)


def test_a_run_is_known_by_what_the_file_holds(file, here):
    copy, other = shutil.copy(file, here / "copy.npz"), here / "other.npz"
    assert main(["noise", "--dataset", "digits", "--noise", "0.5", "--seed", "4", "--out", str(other)]) == 0
    assert of_file(file).name == of_file(copy).name != of_file(other).name


def test_a_method_that_does_not_see_the_noise_sees_the_clean_set_of_the_file(file, here):
    blind = of_file(file, method="clean_only")
    assert blind.name != make_config(**SHORT, method="clean_only", seed=3).name
    run(blind, root=here, show=False)
    assert not find_runs(here, noise_type="symmetric")
    for same in (str(file), file, Path("n.npz"), "./n.npz"):
        (found,) = find_runs(here, noise_type="file", noise_file=same)
        assert found.config.name == blind.name
    assert not find_runs(here, noise=0.9)  # which is the default, and means nothing to it
    assert find_runs(here, **blind.same_noise)


def test_finished_runs_are_found_when_the_file_is_gone(file, here):
    finished = run(of_file(file), root=here, show=False)
    table = accuracy_table([finished])
    file.unlink()
    (found,) = find_runs(here)
    assert found.folder == finished.folder
    assert accuracy_table([found]).equals(table)
    sha256 = finished.result["labels_sha256"]
    assert table["noise"].tolist() == [f"file {sha256[:8]}"]
    again = run(of_file(file, noise_sha256=sha256), root=here, show=False)
    assert again.folder == finished.folder
    with pytest.raises(FileNotFoundError, match=r"^noise_file: .* is not a file"):
        of_file(file)


def test_a_sweep_takes_files(file, here):
    assert main(["noise", "--dataset", "digits", "--noise", "0.2", "--out", "m.npz"]) == 0
    common = {**SHORT, "noise_type": "file", "noise_file": ["n.npz", "m.npz"]}
    methods = ["emlc", "cross_entropy", "clean_only"]
    runs = sweep(product(**common, method=methods, seed=[0, 1]), root=here, jobs=1, show=False)
    hashes = [read_noise_file(name).sha256 for name in ("n.npz", "m.npz")]
    assert [run.result["labels_sha256"] for run in runs] == [sha256 for sha256 in hashes for _ in range(6)]
    assert all(is_finished(run.config, here) for run in runs)
    kinds = [f"file {sha256[:8]}" for sha256 in hashes]
    shown = accuracy_table(runs)
    assert shown["noise"].tolist() == [kind for kind in kinds for _ in range(3)]
    assert (shown["n"] == 2).all()
    compared = compare(run_table(runs))  # each file's own runs, also of what does not see the noise
    assert compared["noise_type"].tolist() == kinds
    for kind, row in zip(kinds, compared.itertuples(), strict=True):
        mean = {
            name: 100 * np.mean([r.result["test_accuracy"] for r in runs if r.config.method == name and kind[5:]
                                 in r.config.name])
            for name in methods
        }  # fmt: skip
        assert row[5] == pytest.approx(mean["emlc"] - mean["cross_entropy"], abs=0.0051)  # two decimals
        assert row[8] == pytest.approx(mean["emlc"] - mean["clean_only"], abs=0.0051)


def test_the_estimator_is_given_the_sets_of_a_file(file):
    images = load_dataset("digits").train_images
    noise = read_noise_file(file)
    (noisy, labels), (clean, clean_labels) = noise.sets(images)
    assert torch.equal(noisy, images[noise.noisy])
    assert torch.equal(clean, images[noise.clean])
    estimator = EMLCClassifier(epochs=12, start_steps=100).fit((noisy, labels), (clean, clean_labels))
    corrected = estimator.correct_labels()
    assert corrected["given_label"].tolist() == labels.tolist()
    right = corrected["corrected_label"].to_numpy() == noise.true_labels
    assert right.mean() > (labels == noise.true_labels).mean() + 0.2  # of .55; labels that went astray would stay
    with pytest.raises(ConfigError, match=r"^images: there are 7, and the noise file names the one of index \d+$"):
        noise.sets(images[:7])


def test_a_file_of_another_hand_needs_the_five_arrays_of_integers(here):
    true = load_dataset("digits").train_labels
    noisy, clean = np.arange(100, 400, dtype=np.int32), np.arange(100, dtype=np.uint8)
    given = (true[noisy] + np.arange(300) % 2) % 10
    truth = {"true_labels": true[noisy], "clean_labels": true[clean].astype(np.int16)}
    np.savez("own.npz", noisy=noisy, labels=given, clean=clean, **truth)
    data = prepare(of_file("own.npz"))
    assert run(of_file("own.npz"), root=here, show=False).result["n_noisy"] == 300
    assert data.noisy_labels.tolist() == given.tolist()
    assert data.true_labels.tolist() == true[100:400].tolist()
    assert data.clean_labels.tolist() == true[:100].tolist()
    counts = np.zeros((10, 10))
    np.add.at(counts, (true[noisy], given), 1)
    np.testing.assert_allclose(data.corruption.expected, counts / counts.sum(1, keepdims=True), rtol=1e-15)


def test_the_same_noise_gives_the_same_bytes(file, here):
    again = here / "again.npz"
    write_noise_file(as_noise_file(prepare(make_config(**SHORT, noise=0.5, seed=3)), "digits"), again)
    assert again.read_bytes() == file.read_bytes()


def test_a_file_of_other_labels_is_not_replaced(file, capsys):
    line = ["noise", "--dataset", "digits", "--noise", "0.5", "--out", "n.npz", "--seed"]
    before = file.read_bytes()
    with pytest.raises(SystemExit):
        main([*line, "4"])
    assert capsys.readouterr().err == (
        "emlc noise: error: --out: n.npz is there and holds other labels; give another name\n"
    )
    assert main([*line, "3"]) == 0
    assert file.read_bytes() == before


def test_a_run_is_known_by_what_the_file_held_when_it_began(file, here, monkeypatch):
    """Whatever becomes of the file in the meantime."""
    config = of_file(file, epochs=2)
    name = config.name

    def replace(row):
        file.write_bytes(b"junk")

    monkeypatch.setattr("emlc_lib.experiments.runs.train", partial(train, on_epoch=replace))
    finished = run(config, root=here, show=False)
    assert finished.result["name"] == finished.folder.name == name
    assert finished.config.name == name


def test_a_file_that_has_changed_is_not_what_a_run_is_of(file, here):
    config = of_file(file)
    file.unlink()
    assert main(["noise", "--dataset", "digits", "--noise", "0.5", "--seed", "4", "--out", "n.npz"]) == 0
    with pytest.raises(ConfigError, match=r"^noise_file: .*n.npz holds something else than before"):
        run(config, root=here / "runs", show=False)
    assert not (here / "runs").exists()


def test_paths_are_kept_whole(file, here, monkeypatch):
    monkeypatch.setenv("HOME", str(here))
    assert of_file("~/n.npz").noise_file == of_file("n.npz").noise_file == str(file)


def test_a_command_does_not_ask_for_what_the_file_says(file, here):
    config = of_file(file, noise=0.25, n_clean=200)
    assert command(config) == command(of_file(file))
    assert main(["noise", "--dataset", "digits", "--n-noisy", "40", "--n-clean", "20", "--out", "s.npz"]) == 0
    assert prepare(of_file("s.npz", batch_size=32, clean_batch_size=16)).noisy_labels.shape == (40,)


@pytest.mark.cifar10
@pytest.mark.parametrize(
    "name",
    [
        "quick_cifar10",
        pytest.param("small_cifar10", marks=pytest.mark.slow),
        pytest.param("small_cifar100", marks=(pytest.mark.slow, pytest.mark.cifar100)),
    ],
)
def test_committed_hashes_are_those_of_the_tables_runs(name):
    """The noise that the runs saw, made again: each once, with the command for its file."""
    table = pd.read_csv(FIGURES / f"{name}.csv")
    names, rows = ["dataset", "preset", "noise_type", "noise", "seed"], []
    for seen in table[~is_blind(table)][names].drop_duplicates().sort_values(names).to_dict("records"):
        file = as_noise_file(prepare(make_config(**seen, device="cpu", start="random")), seen["dataset"])
        wrong = (file.labels != file.true_labels).mean()
        sizes = {"n_clean": len(file.clean), "n_noisy": len(file.noisy), "wrong_share": wrong}
        line = " ".join(["emlc noise", *(f"--{key.replace('_', '-')} {value}" for key, value in seen.items())])
        rows.append(seen | sizes | {"sha256": file.sha256, "command": line})
    made = pd.DataFrame(rows).drop(columns="preset")
    committed = pd.read_csv(FIGURES / "noise_files.csv")
    preset, data = name.split("_")
    own = committed[committed["command"].str.contains(f"--dataset {data} --preset {preset} ")]
    pd.testing.assert_frame_equal(made, own.reset_index(drop=True))
