"""Folders and CSV files of a user's images: what is read, and one clear error for everything else."""

import unicodedata

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import Dataset

from emlc_lib.estimator.images import InputError, read_folder, read_labels
from emlc_lib.estimator.sets import pair
from emlc_lib.estimator.sources import as_images
from emlc_lib.runtime.parameters import ConfigError


def write(path, colour=(0, 0, 0), size=(6, 4), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "images"
    write(root / "cat" / "a.png", (255, 0, 0))
    write(root / "cat" / "deep" / "b.JPG", (0, 255, 0), size=(9, 9))
    write(root / "NA" / "c.png", 128, mode="L")
    write(root / "NA" / "d.png", (0, 0, 255, 0), mode="RGBA")
    (root / "NA" / "notes.txt").write_text("no image")
    write(root / "NA" / ".thumbnail.png")
    return root


def csv(folder, *rows, header="path,label"):
    file = folder.parent / "verified.csv"
    file.write_text("\n".join([header, *rows]) + "\n")
    return file


def test_a_folder_gives_paths_and_the_names_of_its_subfolders(folder):
    images = read_folder(folder)
    assert images.names == ["NA/c.png", "NA/d.png", "cat/a.png", "cat/deep/b.JPG"]
    assert list(images.labels) == ["NA", "NA", "cat", "cat"]
    write(folder / "loose.png")
    assert len(read_folder(folder, labelled=False)) == 5


def test_images_of_any_size_and_mode_become_square_pixels(folder):
    pixels = read_folder(folder).pixels(5, 3)
    assert pixels.shape == (4, 3, 5, 5)
    assert pixels[:, :, 2, 2].tolist()[:3] == [[128] * 3, [0, 0, 255], [255, 0, 0]]
    assert read_folder(folder).pixels(5, 1)[:3, 0, 2, 2].tolist() == [128, 29, 76]  # ITU-R 601


def test_images_are_turned_upright(tmp_path):
    image = Image.fromarray(np.array([[0, 0], [255, 255]], dtype=np.uint8))
    exif = image.getexif()
    exif[0x0112] = 3  # by 180 degrees
    (tmp_path / "a").mkdir()
    image.save(tmp_path / "a" / "x.png", exif=exif)
    assert read_folder(tmp_path).pixels(2, 1)[0, 0].tolist() == [[255, 255], [0, 0]]


def test_verified_images_leave_the_noisy_set_however_their_path_is_written(folder):
    file = csv(folder, "cat/../cat/a.png,cat", f"{folder / 'NA' / 'c.png'},NA", "./NA/c.png, NA")
    found = pair(folder, file)
    assert found.noisy.names == ["NA/d.png", "cat/deep/b.JPG"]
    assert list(found.noisy.labels) == ["NA", "cat"]
    assert found.clean.names == ["cat/a.png", "NA/c.png"]
    assert list(found.classes) == ["NA", "cat"]
    assert found.noisy.pixels(3, 3)[0, :, 0, 0].tolist() == [0, 0, 255]


@pytest.mark.parametrize(
    ("message", "rows", "header"),
    [
        (r"no column 'label'", ["cat/a.png,cat"], "path,class"),
        (r"names no image", [], "path,label"),
        (r"'cat/z.png' \(line 3 of", ["cat/a.png,cat", "cat/z.png,cat"], "path,label"),
        (r"has no label", ["cat/a.png,"], "path,label"),
        (r"two labels", ["cat/a.png,cat", "cat/a.png,NA"], "path,label"),
        (r"label 'cta' of 'cat/a.png' is not one of the classes 'NA', 'cat'", ["cat/a.png,cta"], "path,label"),
        (r"there is no image of class 'NA'", ["cat/a.png,cat"], "path,label"),
        (r"none is left", ["NA/c.png,NA", "NA/d.png,NA", "cat/a.png,NA", "cat/deep/b.JPG,cat"], "path,label"),
    ],
)  # fmt: skip
def test_a_csv_file_that_cannot_be_used(folder, message, rows, header):
    with pytest.raises((ConfigError, InputError), match=rf"^clean: .*{message}"):
        pair(folder, csv(folder, *rows, header=header))


@pytest.mark.parametrize(
    "text",
    [
        "path;label\ncat/a.png;cat\nNA/c.png;NA\n", "path\tlabel\ncat/a.png\tcat\nNA/c.png\tNA\n",
        "Path, LABEL \ncat/a.png , cat \nNA/c.png,NA\n", "\npath,label,,\n\ncat/a.png,cat,,\n,,,\nNA/c.png,NA,,\n",
        "path,label\r\ncat/a.png,cat,\r\nNA/c.png,NA\r\n",
        'label,note,path\ncat,"a, b",cat/a.png\nNA,,NA/c.png\n',
    ],
)  # fmt: skip
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_tables_are_read_as_spreadsheets_write_them(folder, text, encoding):
    (folder / "v.csv").write_bytes(text.encode(encoding))
    found = read_labels(folder / "v.csv", folder)
    assert (found.names, list(found.labels)) == (["cat/a.png", "NA/c.png"], ["cat", "NA"])


def test_the_line_of_a_mistake_is_the_files(folder):
    (folder / "v.csv").write_text("\npath,label\n\n\ncat/z.png,cat\n")
    with pytest.raises(InputError, match=r"'cat/z.png' \(line 5 of"):
        read_labels(folder / "v.csv", folder)


def test_accents_and_blanks_that_are_written_otherwise(tmp_path):
    """As a folder of macOS has them, and a spreadsheet."""
    decomposed, composed = (unicodedata.normalize(form, "café") for form in ("NFD", "NFC"))
    for name in (decomposed, "tea "):
        (tmp_path / name).mkdir()
        for i in range(2):
            Image.new("L", (4, 4), i).save(tmp_path / name / f"{decomposed}{i}.png")
    (tmp_path / "v.csv").write_text(
        f"path,label\n{composed}/{composed}0.png,{composed}\ntea/{composed}0.png,tea\n"
    )
    found = pair(tmp_path, tmp_path / "v.csv")
    assert list(found.classes) == [composed, "tea"]
    assert len(found.noisy) == len(found.clean) == 2
    images = np.zeros((2, 4, 4), np.uint8)
    with pytest.raises(InputError, match=r"clean: label .*'cafe\\u0301' and 'caf\\xe9' differ in blanks"):
        pair((images, [composed, "tea"]), (images, [decomposed, "tea"]))


class Pictures(Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def test_a_torch_data_set_of_pictures():
    items = [(Image.new("L", (5, 5), 10), "a"), (Image.new("L", (5, 5), 20), "b")]
    images = as_images(Pictures(items), "noisy", labelled=True)
    assert (images.side, images.channels, list(images.labels)) == (5, 1, ["a", "b"])
    assert images.pixels(5, 1)[:, 0, 0, 0].tolist() == [10, 20]
    with pytest.raises(InputError, match=r"^noisy: the data set's items"):
        as_images(Pictures([1, 2]), "noisy", labelled=True)


def test_a_folder_of_pictures_that_are_not_read_says_so(tmp_path):
    (tmp_path / "cat").mkdir()
    for name in ("a.HEIC", "b.heic", "c.avif"):
        (tmp_path / "cat" / name).touch()
    with pytest.raises(InputError, match=r"there are no images in .*; it has \.heic \(2\), \.avif \(1\): convert"):
        read_folder(tmp_path)
