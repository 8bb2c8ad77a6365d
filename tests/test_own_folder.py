"""From a folder to a corrected CSV file: the example, the report, outputs that lose nothing, 10_your_data."""

import os
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import papermill
import pytest
from PIL import Image

from emlc_lib.estimator.example import write_example
from emlc_lib.estimator.folder import (
    check_outputs,
    count_classes,
    describe_sets,
    own_files,
    read_given,
)
from emlc_lib.estimator.images import InputError, read_labels
from emlc_lib.estimator.paging import page_through
from emlc_lib.runtime.parameters import ConfigError

NOTEBOOK = Path(__file__).resolve().parent.parent / "notebooks" / "10_your_data.ipynb"


@pytest.fixture
def example(tmp_path):
    return write_example(tmp_path, images=200)


class TestExample:
    def test_it_is_a_folder_per_class_with_the_noise_and_the_verified_files_that_were_asked_for(self, example):
        given, verified = read_given(example.images), read_labels(example.verified, example.images)
        assert (len(given), len(verified)) == (300, 100)
        assert sorted(example.truth.index) == given.names
        assert list(verified.labels) == list(example.truth[verified.names])
        assert np.unique(verified.labels, return_counts=True)[1].tolist() == [10] * 10
        wrong = (given.labels != example.truth[given.names]).mean()
        assert abs(wrong - 0.27) < 0.08  # three standard deviations of a share of 300
        assert given.pixels(8, 1).shape == (300, 1, 8, 8)

    def test_the_seed_decides(self, example, tmp_path):
        again, other = (write_example(tmp_path / str(seed), images=200, seed=seed) for seed in (0, 1))
        pd.testing.assert_series_equal(again.truth, example.truth)
        assert list(other.truth.index) != list(example.truth.index)
        first = example.truth.index[0]
        assert (again.images / first).read_bytes() == (example.images / first).read_bytes()


@pytest.fixture
def folder(tmp_path):
    """Six images of cats and dogs, one of other size; three verified, one of them against its folder."""
    for name, size in (("cat/a", 4), ("cat/b", 4), ("cat/c", 4), ("dog/a", 4), ("dog/b", 4), ("dog/c", 6)):
        path = tmp_path / "photos" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (size, 4)).save(path)
    (tmp_path / "checked.csv").write_text("path,label\ncat/a.png,dog\ncat/b.png,cat\ndog/a.png,dog\n")
    return tmp_path / "photos"


class TestReport:
    def test_counts(self, folder):
        verified = read_labels(folder.parent / "checked.csv", folder)
        counts = count_classes(read_given(folder), verified)
        assert counts.to_dict("index") == {
            "cat": {"images": 3, "verified": 2, "wrong": 1, "checked_as": 1},
            "dog": {"images": 3, "verified": 1, "wrong": 0, "checked_as": 2},
            "(all)": {"images": 6, "verified": 3, "wrong": 1, "checked_as": 3},
        }

    def test_sentences(self, folder):
        verified = read_labels(folder.parent / "checked.csv", folder)
        assert describe_sets(read_given(folder), verified).splitlines() == [
            "6 images of 2 classes, 2 sizes, 5 are 4 x 4 pixels; 3 are verified",
            # Wilson's interval for 1 of 3, by hand: (x + z^2/2 -+ z sqrt(x (n - x) / n + z^2/4)) / (n + z^2)
            "of 3 verified images with a given label 1 were given a wrong one: 33% (6% to 79%)",
            "fewer than 10 images are verified of: cat, dog; more are better",
        ]

    def test_few_wrong_labels_are_better_left_alone(self, folder):
        (folder.parent / "checked.csv").write_text("path,label\ncat/b.png,cat\ndog/a.png,dog\n")
        said = describe_sets(read_given(folder), read_labels(folder.parent / "checked.csv", folder))
        assert "where fewer than 20% are wrong, correcting may spoil more than it repairs" in said

    def test_a_file_that_is_no_image_is_named(self, folder):
        (folder / "dog" / "c.png").write_text("no image")
        verified = read_labels(folder.parent / "checked.csv", folder)
        with pytest.raises(InputError, match=r"^images: .*c.png cannot be read as an image"):
            describe_sets(read_given(folder), verified)


class TestFiles:
    def test_a_users_files(self, folder, monkeypatch):
        monkeypatch.chdir(folder.parent)
        files = own_files(images="photos", clean="checked.csv")
        assert files == (Path("photos"), Path("checked.csv"), None, Path("corrected.csv"),
                         Path("suspicious.png"), None, None)  # fmt: skip
        Path("results").mkdir()
        beside = own_files(images="photos", clean="checked.csv", out="results/o.csv").sheet
        assert beside == Path("results/suspicious.png")

    def test_what_is_there_is_replaced_if_asked(self, folder, monkeypatch):
        monkeypatch.chdir(folder.parent)
        Path("corrected.csv").write_text("mine")
        with pytest.raises(InputError, match=r"^out: corrected.csv is there already; give another name, or ov"):
            own_files(images="photos", clean="checked.csv")
        assert own_files(images="photos", clean="checked.csv", overwrite=True).out == Path("corrected.csv")
        assert Path("corrected.csv").read_text() == "mine"  # only checked

    @pytest.mark.parametrize(
        ("message", "changes"),
        [
            ("clean: is missing", {"clean": ""}),
            ("images: is missing", {"images": ""}),
            ("labels: is for images of your own", {"images": "", "clean": "", "labels": "checked.csv"}),
            ("out: checked.csv is another argument's file", {"out": "checked.csv"}),
            ("sheet: photos/s.png would be one of the images", {"sheet": "photos/s.png"}),
            ("sheet: sheet.doc must end in", {"sheet": "sheet.doc"}),
            ("save: checked.csv/e cannot be written to", {"save": "checked.csv/e"}),
        ],
    )
    def test_what_cannot_be(self, folder, monkeypatch, message, changes):
        monkeypatch.chdir(folder.parent)
        with pytest.raises((ConfigError, InputError), match=f"^{message}"):
            own_files(**({"images": "photos", "clean": "checked.csv"} | changes))

    def test_two_outputs_are_two_files(self, tmp_path):
        with pytest.raises(InputError, match=r"^b: .* another argument's"):
            check_outputs({"a": tmp_path / "x.csv", "b": tmp_path / "." / "x.csv"}, [])


def test_the_widget_pages_through_images_from_the_most_suspicious_on(folder, monkeypatch):
    titles, paths = [], []

    def sheet_of(rows, where, *, title):
        assert where == folder
        titles.append(title)
        paths.append(list(rows["path"]))
        return plt.figure(figsize=(1, 1))

    monkeypatch.setattr("emlc_lib.estimator.paging.sheet_of", sheet_of)
    names = read_given(folder).names
    page, picture = page_through(
        pd.DataFrame({"path": names, "rank": range(6, 0, -1)}), folder, per_page=4
    ).children
    page.value = 2
    page.value = 9  # there is none
    assert titles == ["page 1 of 2", "page 2 of 2"]
    assert paths == [names[:1:-1], names[1::-1]]
    assert bytes(picture.value).startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_notebook_on_a_users_folder_as_the_readme_calls_it(example, tmp_path):
    parameters = {
        "images": "images",
        "clean": "verified.csv",
        "out": "corrected.csv",
        "image_size": 8,
        "epochs": 1,
    }
    arguments = [part for name, value in parameters.items() for part in ("-p", name, str(value))]
    done = subprocess.run(
        [sys.executable, "-m", "papermill", str(NOTEBOOK), "out.ipynb", *arguments],
        cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    table = pd.read_csv(tmp_path / "corrected.csv", dtype=str)
    assert sorted(table["path"]) == sorted(example.truth.index)
    assert (table["verified"] == "True").sum() == 100
    with Image.open(tmp_path / "suspicious.png") as sheet:
        assert min(sheet.size) > 500


@pytest.mark.slow
def test_a_mistake_stops_the_notebook_before_it_reads_an_image(tmp_path):
    with pytest.raises(papermill.PapermillExecutionError) as raised:
        papermill.execute_notebook(
            NOTEBOOK, tmp_path / "out.ipynb", {"images": "photos"}, cwd=tmp_path, progress_bar=False
        )
    assert (raised.value.ename, raised.value.evalue[:17]) == ("InputError", "clean: is missing")
    assert not (tmp_path / "corrected.csv").exists()


def test_a_table_is_read_once(tmp_path):
    """So that it can come from another program: ``--verified <(...)``."""
    Image.new("L", (4, 4)).save(tmp_path / "1.png")
    reading, writing = os.pipe()
    os.write(writing, b"path,corrected_label,verified\n1.png,a,True\n")
    os.close(writing)
    found = read_labels(f"/dev/fd/{reading}", tmp_path)
    os.close(reading)
    assert (found.names, list(found.labels)) == (["1.png"], ["a"])


class TestLinks:
    @pytest.fixture
    def folder(self, tmp_path):
        for name in ("real/1.png", "real/2.png", "photos/b/3.png", "photos/b/4.png"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (4, 4)).save(tmp_path / name)
        (tmp_path / "photos/a").symlink_to(tmp_path / "real")
        (tmp_path / "photos/b/link.png").symlink_to(tmp_path / "real/1.png")
        (tmp_path / "photos/b/loop").symlink_to(tmp_path / "photos")
        return tmp_path / "photos"

    def test_linked_folders_and_files_are_read_by_the_names_of_the_links(self, folder):
        given = read_given(folder)
        assert given.names == ["a/1.png", "a/2.png", "b/3.png", "b/4.png", "b/link.png"]
        assert list(given.labels) == list("aabbb")

    def test_links_that_lead_back_through_others_are_not_entered(self, folder, tmp_path):
        (tmp_path / "real/back").symlink_to(folder)
        (tmp_path / "real/up").symlink_to(tmp_path / "beside")
        (tmp_path / "beside").mkdir()
        Image.new("L", (4, 4)).save(tmp_path / "beside/5.png")
        (tmp_path / "beside/down").symlink_to(tmp_path / "real")
        assert read_given(folder).names == ["a/1.png", "a/2.png", "a/up/5.png", "b/3.png", "b/4.png", "b/link.png"]

    def test_a_folder_that_is_there_twice_is_refused(self, folder):
        (folder / "0").symlink_to(folder / "b")
        with pytest.raises(InputError, match=r"photos/0 and .*photos/b are the same folder"):
            read_given(folder)

    def test_verified_ones_are_known_under_the_same_names(self, folder, tmp_path):
        (tmp_path / "checked.csv").write_text(f"path,label\na/1.png,a\n{folder}/b/link.png,b\n")
        assert read_labels(tmp_path / "checked.csv", folder).names == ["a/1.png", "b/link.png"]


def test_all_broken_images_are_named_at_once(tmp_path):
    for i in range(14):
        path = tmp_path / "a" / f"{i:02}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"no image") if i < 12 else Image.new("L", (4, 4)).save(path)
    with pytest.raises(InputError, match=r"00\.png.* \(and 11 more: .*01\.png.*09\.png") as error:
        read_given(tmp_path).pixels(4, 1)
    assert "10.png" not in str(error.value)
