"""The folder of Clothing1M on a made-up tree, with everything that can be wrong in it, and images on disk."""

import shutil

import numpy as np
import pytest
import torch
from clothing1m_config import config_of
from PIL import Image

from emlc_lib import prepare
from emlc_lib.commands import main
from emlc_lib.data.clothing1m.example import SIZES, damage_tree, write_tree
from emlc_lib.data.clothing1m.folder import copied, inspect_folder, leave_out, write_copy
from emlc_lib.data.clothing1m.prepare import prepare_clothing1m
from emlc_lib.data.images import DiskImages, InputError, open_square
from emlc_lib.runtime.parameters import DataUnavailable


@pytest.fixture
def damaged(tmp_path, small_images):
    """One fault of every kind; the folder and what was done."""
    tree = write_tree(tmp_path / "clothing1m")
    return tree.folder, damage_tree(tree)


class TestFolder:
    def test_an_intact_folder(self, clothing1m, small_images):
        root, _ = clothing1m
        report = inspect_folder(root / "clothing1m", decode=True)
        assert report.usable
        assert report.sizes == SIZES
        found = (report.without_file, report.without_label, report.repeated, report.broken, report.blocking)
        assert found == ([],) * 5
        assert "noisy_train: 42 images listed" in str(report)

    def test_every_fault_is_listed(self, damaged):
        folder, faults = damaged
        report = inspect_folder(folder)
        assert not report.usable
        assert report.without_file == sorted([faults["lost"], faults["nowhere"]])
        assert report.without_label == sorted([faults["unlabelled"], faults["extra"]])
        assert report.broken is None
        # A label or a file that no list asks for does no harm.
        assert report.blocking == sorted([faults["lost"], faults["unlabelled"]])
        decoded = inspect_folder(folder, decode=True)
        assert decoded.broken == [faults["broken"]]
        assert decoded.blocking == sorted([faults["lost"], faults["unlabelled"], faults["broken"]])
        text = str(decoded)
        for line in (
            f"without file: 2 ({', '.join(report.without_file)})",
            "broken: 1",
            "in the way of training: 3",
        ):
            assert line in text

    def test_images_can_be_left_out(self, damaged):
        folder, faults = damaged
        with pytest.raises(DataUnavailable, match=r"without file: 2(.|\n)*--leave-out"):
            prepare_clothing1m(config_of(), folder)
        leave_out(folder, inspect_folder(folder, decode=True).blocking)
        data = prepare_clothing1m(config_of(), folder)
        assert (len(data.noisy_labels), len(data.clean_labels)) == (40, 29)
        paths = {*data.noisy_images.paths, *data.clean_images.paths}
        assert not {str(folder / faults[name]) for name in ("broken", "lost", "unlabelled")} & paths
        assert data.noisy_images[:].shape == (40, 3, 16, 16)
        assert inspect_folder(folder, decode=True).usable

    def test_sides_for_a_trial(self, clothing1m, small_images):
        folder = clothing1m[0] / "clothing1m"
        small = prepare_clothing1m(config_of(), folder, sides=(20, 16))
        assert torch.equal(small.noisy_images[:], prepare_clothing1m(config_of(), folder).noisy_images[:])
        assert prepare_clothing1m(config_of(), folder, sides=(9, 8)).test_images[:3].shape == (3, 3, 8, 8)

    def test_a_broken_image_stops_the_training_by_name(self, damaged):
        folder, faults = damaged
        leave_out(folder, [faults["lost"], faults["unlabelled"]])
        data = prepare_clothing1m(config_of(), folder)
        with pytest.raises(InputError, match=r"^dataset: .* cannot be read as an image") as caught:
            data.noisy_images[:]
        assert faults["broken"] in str(caught.value)

    def test_missing_text_files_are_named(self, tmp_path, monkeypatch):
        assert set(inspect_folder(tmp_path).missing_files) == {
            "noisy_train_key_list.txt",
            "clean_train_key_list.txt",
            "clean_val_key_list.txt",
            "clean_test_key_list.txt",
            "noisy_label_kv.txt",
            "clean_label_kv.txt",
            "images/",
        }
        monkeypatch.setenv("EMLC_DATA", str(tmp_path))
        with pytest.raises(DataUnavailable, match=r"noisy_label_kv\.txt(.|\n)*on request") as caught:
            prepare(config_of())
        assert str(tmp_path / "clothing1m") in str(caught.value)

    def test_text_files_may_lie_below_annotations(self, tmp_path):
        write_tree(tmp_path)
        (tmp_path / "annotations").mkdir()
        for file in tmp_path.glob("*.txt"):
            file.rename(tmp_path / "annotations" / file.name)
        assert inspect_folder(tmp_path).usable

    @pytest.mark.parametrize("line", ["images/0/00/x.jpg", "images/0/00/x.jpg shirt", "images/0/00/x.jpg 14"])
    def test_a_line_without_a_label(self, clothing1m, tmp_path, line):
        folder = tmp_path / "copy"
        shutil.copytree(clothing1m[0] / "clothing1m", folder)
        with open(folder / "clean_label_kv.txt", "a") as file:
            file.write(line + "\n")
        with pytest.raises(DataUnavailable, match=r"clean_label_kv\.txt: 'images/0/00/x\.jpg.*0\.\.13"):
            inspect_folder(folder)

    def test_a_test_image_in_a_training_list(self, clothing1m, tmp_path):
        folder = tmp_path / "copy"
        shutil.copytree(clothing1m[0] / "clothing1m", folder)
        key = clothing1m[1]["clean_test"][2]
        with open(folder / "clean_train_key_list.txt", "a") as file:
            file.write(key + "\n")
        report = inspect_folder(folder)
        assert report.repeated == [key]
        assert not report.usable

    def test_the_command_line(self, damaged, capsys):
        folder, faults = damaged
        assert main(["clothing1m", "check", str(folder)]) == 1
        assert faults["lost"] in capsys.readouterr().out
        with pytest.raises(SystemExit, match="2"):
            main(["clothing1m", "copy", str(folder)])
        (error,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
        assert error.startswith("emlc clothing1m: error: ")
        assert main(["clothing1m", "check", "--decode", "--leave-out", str(folder)]) == 0
        assert "3 images were added" in capsys.readouterr().out
        assert main(["clothing1m", "check", "--decode", str(folder)]) == 0
        assert main(["clothing1m", "copy", str(folder)]) == 0
        assert f"{sum(SIZES.values()) - 3} images written" in capsys.readouterr().out


class TestImages:
    def test_they_are_squeezed_and_cropped(self, tmp_path):
        """A wide image, black but for a white band of the middle fifth, which stays the middle fifth of 256."""
        pixels = np.zeros((100, 500, 3), np.uint8)
        pixels[:, 200:300] = 255
        Image.fromarray(pixels).save(tmp_path / "x.png")
        image = np.asarray(open_square(tmp_path / "x.png", resize=256, crop=224))
        assert image.shape == (224, 224, 3)
        bright = np.flatnonzero(image[0, :, 0] > 127)
        # 256 * 0.4 - 16 = 86.4 and 256 * 0.6 - 16 = 137.6
        assert (bright.min(), bright.max()) == (86, 137)

    @pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK"])
    def test_other_colour_modes(self, tmp_path, mode):
        path = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
        Image.new(mode, (9, 9)).save(path)
        assert open_square(path, resize=8, crop=6).mode == "RGB"

    def test_a_size_that_is_not_that_of_the_copy(self, tmp_path):
        Image.new("RGB", (9, 8)).save(tmp_path / "x.png")
        with pytest.raises(InputError, match="9 x 8 pixels instead of 8 x 8"):
            open_square(tmp_path / "x.png", resize=None, crop=8)

    @pytest.fixture
    def images(self, tmp_path):
        pixels = np.random.default_rng(0).integers(256, size=(7, 6, 6, 3), dtype=np.uint8)
        for i, image in enumerate(pixels):
            Image.fromarray(image).save(tmp_path / f"{i}.png")
        whole = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        return DiskImages([tmp_path / f"{i}.png" for i in range(7)], side=6, resize=None), whole

    def test_they_are_indexed_like_a_tensor(self, images):
        disk, whole = images
        assert (len(disk), disk.shape) == (len(whole), whole.shape)
        for index in (
            torch.tensor([5, 0, 5]),
            slice(2, 4),
            slice(5, 99),
            slice(None),
            torch.tensor([-1]),
            slice(0),
        ):
            assert torch.equal(disk[index], whole[index])

    def test_what_is_begun_early_is_the_same(self, images):
        disk, whole = images
        for begun, wanted in (([1, 2], [1, 2]), ([1, 2], [2, 1]), ([3], [3]), ([3], [3])):
            disk.prefetch(torch.tensor(begun))
            assert torch.equal(disk[torch.tensor(wanted)], whole[torch.tensor(wanted)])

    def test_the_copy(self, clothing1m, tmp_path, small_images):
        folder = tmp_path / "clothing1m"
        shutil.copytree(clothing1m[0] / "clothing1m", folder)
        assert write_copy(folder) == sum(SIZES.values())
        first = copied(folder, clothing1m[1]["noisy_train"][0])
        first.unlink()
        assert write_copy(folder) == 1  # the rest is there
        original, copy = (prepare_clothing1m(config_of(resized_copy=c), folder) for c in (False, True))
        difference = original.noisy_images[:].int() - copy.noisy_images[:].int()
        # JPEG rings at the edges of so small a shirt; the nearest other image has a mean difference of 15.
        assert difference.abs().float().flatten(1).mean(1).max() <= 4
        assert not copied(folder, "images/0/00/nowhere.jpg").exists()
