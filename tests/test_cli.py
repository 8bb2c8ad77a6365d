"""emlc correct, from a folder and a CSV file to a CSV file and a contact sheet."""

import importlib
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from emlc_lib import EMLCClassifier
from emlc_lib.commands import main

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = ["path", "given_label", "corrected_label", "probability", "gate", "rank", "verified"]


@pytest.fixture
def images(tmp_path, monkeypatch):
    """72 pictures of a bright left or right half, 20 of them in the wrong folder; 24 verified."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(72):
        side, wrong = i % 2, 24 <= i < 44
        size = 8 + i % 3
        pixels = rng.integers(0, 120, (size, size))
        pixels[:, side * size // 2 : (side + 1) * size // 2] += 120
        name = ("left", "right")[side != wrong]
        path = tmp_path / "images" / name / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
        if i < 24:
            rows.append(f"{name}/{i:02}.png,{name}")
    (tmp_path / "verified.csv").write_text("\n".join(["path,label", *rows]))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "images"


def truth(paths):
    return [("left", "right")[int(Path(path).stem) % 2] for path in paths]


ARGUMENTS = ["correct", "images", "--verified", "verified.csv", "-p", "image_size", "8"]


@pytest.mark.slow
def test_from_a_folder_to_a_corrected_csv_and_a_contact_sheet(images):
    """In a process of its own, as a user runs it."""
    command = [
        sys.executable,
        "-m",
        "emlc_lib.commands",
        *ARGUMENTS,
        "-p",
        "epochs",
        "80",
        "--save",
        "emlc.safetensors",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "corrected.csv: 72 images, 24 of them verified" in done.stdout
    assert "epoch 80" in done.stderr
    table = pd.read_csv("corrected.csv")
    assert list(table) == COLUMNS
    assert list(table["path"]) == sorted(path.relative_to(images).as_posix() for path in images.rglob("*.png"))
    assert list(table["given_label"]) == [path.split("/")[0] for path in table["path"]]
    assert (table["corrected_label"] == truth(table["path"])).mean() > 0.9
    assert table["verified"].sum() == 24
    assert table.loc[table["verified"], "rank"].isna().all()
    assert (table.loc[table["verified"], "probability"] == 1).all()
    assert sorted(table.loc[~table["verified"], "rank"]) == list(range(1, 49))
    with Image.open("suspicious.png") as sheet:
        assert min(sheet.size) > 500
    estimator = EMLCClassifier.load("emlc.safetensors")
    again = estimator.correct_labels().set_index("path")["corrected_label"]
    assert (again == table.set_index("path")["corrected_label"][again.index]).all()
    assert estimator.predict(images).shape == (72,)


def test_labels_from_a_csv_file_and_verified_images_without_a_given_label(images):
    rows = [f"{p.parent.name}/{p.name},{p.parent.name}" for p in images.rglob("*.png") if int(p.stem) >= 2]
    Path("labels.csv").write_text("\n".join(["path,label", *rows]))
    options = ["-p", "epochs", "1", "--quiet", "--sheet", "s.svg", "--sheet-images", "3", "--report", "r.html"]
    main([*ARGUMENTS, "--labels", "labels.csv", *options])
    page = Path("r.html").read_text()
    assert page.count("<figure>") == 3
    assert page[page.index("<pre>") :].count(".png,\n") == 3  # to be filled in
    table = pd.read_csv("corrected.csv", keep_default_na=False)
    assert len(table) == 72
    assert list(table.loc[table["given_label"] == "", "path"]) == ["left/00.png", "right/01.png"]
    assert "<svg" in Path("s.svg").read_text()


def test_what_was_gone_through_is_the_next_rounds_verified_images(images, capsys):
    main([*ARGUMENTS, "-p", "epochs", "1", "--out", "first/corrected.csv"])
    said = capsys.readouterr()
    assert said.err.startswith(
        "72 images of 2 classes, 3 sizes, 24 are 8 x 8 pixels; 24 are verified\nof 24 verified "
    )
    table = pd.read_csv("first/corrected.csv")
    own = table[~table["verified"]]
    changed = (own["given_label"] != own["corrected_label"]).sum()
    assert said.out.startswith(
        f"first/corrected.csv: 72 images, 24 of them verified; {changed} labels of the others"
    )
    assert Path("first/suspicious.png").is_file()
    table.loc[table["path"].isin(own["path"][:5]), ["corrected_label", "verified"]] = ["left", True]
    table.to_csv("round2.csv", index=False)
    main(["correct", "images", "--verified", "round2.csv", "-y", "{epochs: 1, image_size: 8}", "--quiet"])
    again = pd.read_csv("corrected.csv").set_index("path")
    assert again["verified"].sum() == 29
    assert (again.loc[own["path"][:5], "corrected_label"] == "left").all()


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("WAHR", "--verified: verified must be True or False (line 2 of round2.csv has 'WAHR')"),
        ("False", "--verified: round2.csv names no image"),
    ],
)
def test_a_table_that_was_gone_through_says_true_or_false(images, capsys, cell, message):
    Path("round2.csv").write_text(f"Path,corrected_label,Verified\nleft/00.png,left,{cell}\n")
    for option, said in (("--verified", message), ("--labels", "--labels: round2.csv has no column 'label'")):
        with pytest.raises(SystemExit):
            main([*ARGUMENTS, option, "round2.csv", "--quiet"])
        assert capsys.readouterr().err.startswith(f"emlc correct: error: {said}")


@pytest.mark.parametrize("out", ["/dev/null", "images/c.csv"])
def test_the_sheet_is_here_where_out_is_no_place_for_it(images, out):
    main([*ARGUMENTS, "-p", "epochs", "1", "--quiet", "--out", out])
    assert Path("suspicious.png").is_file()


def test_what_is_written_to_a_redirected_stdout_is_no_file_that_is_there(images):
    command = [sys.executable, "-m", "emlc_lib.commands", *ARGUMENTS, "-p", "epochs", "1", "--quiet"]
    with open("o.csv", "w") as file:
        done = subprocess.run([*command, "--out", "/dev/stdout"], stdout=file, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr
    assert Path("o.csv").read_text().startswith(",".join(COLUMNS))


def test_a_warning_is_one_line(images, capsys):
    shutil.copy(images / "left" / "00.png", images / "right" / "copy.png")
    for name in ("a.HEIC", "b.heic", "c.avif", "readme"):
        (images / "left" / name).touch()
    main([*ARGUMENTS, "-y", "{epochs: 1, start_steps: 1, teacher_lr: 1.0e-9}", "--quiet"])
    others, copies, gate = capsys.readouterr().err.splitlines()
    assert others.startswith(
        "emlc correct: warning: FOLDER: pictures in images are left out, .heic (2), .avif (1); convert them first"
    )
    assert copies.startswith(
        "emlc correct: warning: FOLDER: images that are in the clean set, too: 1 (first 'right"
    )
    assert gate.startswith("emlc correct: warning: the gate stayed near one half")


def test_an_interrupted_training_goes_on_and_another_one_is_refused(images, capsys):
    options = [*ARGUMENTS, "-y", "{epochs: 2, checkpoint: begun, batch_size: 8, k: 2}"]
    main(options)
    first = Path("corrected.csv").read_text()
    assert Path("begun/checkpoint.safetensors").is_file()
    with pytest.raises(SystemExit):
        main(options)
    line = "emlc correct: error: --out: corrected.csv is there already; give another name, or --overwrite"
    assert capsys.readouterr().err.splitlines()[-1] == line
    options.append("--overwrite")
    main(options)
    assert Path("corrected.csv").read_text() == first
    with pytest.raises(SystemExit):
        main([*options, "-p", "seed", "1"])
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("emlc correct: error: checkpoint: begun belongs to another fit (it differs in seed)")


def test_every_parameter_of_the_estimator_is_listed(capsys):
    main(["correct", "--help"])
    text = capsys.readouterr().out
    for name in EMLCClassifier().get_params().keys() - {"verbose"}:
        assert f" {name} " in text.replace(",", " ")
    assert "(default: 0.02, 0.02)" in " ".join(text.split())


def test_the_project_installs_the_command():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, function = scripts["emlc"].split(":")
    assert getattr(importlib.import_module(module), function) is main
