"""emlc correct: what it refuses, with status 2 and one line that names the argument."""

import re
from pathlib import Path

import pytest
from PIL import Image
from refusals import Case, refused

from emlc_lib.commands import main


def write(path, text):
    return lambda: Path(path).write_text(text)


def emlc(arguments):
    main(["correct", "--verified", "v.csv", "--quiet", "-p", "epochs", "1", *arguments.split()])


def refuse(name, message, arguments, files=lambda: None):
    return Case(name, SystemExit, f"emlc correct: error: {message}", lambda: emlc(arguments), files)


VERIFIED = "path,label\nleft/0.png,left\nleft/1.png,left\nright/0.png,right\nright/1.png,right\n"
ALL_VERIFIED = "path,label\n" + "".join(f"{c}/{i}.png,{c}\n" for c in ("left", "right") for i in range(4))
COMMANDS = [
    refuse("folder missing", "FOLDER: nowhere is not a folder", "nowhere"),
    refuse("folder a file", "FOLDER: v.csv is not a folder", "v.csv"),
    refuse("folder empty", "FOLDER: there are no images in empty", "empty", lambda: Path("empty").mkdir()),
    refuse("image in no subfolder", "FOLDER: x.png is in no subfolder",
           "images", lambda: Image.new("L", (8, 8)).save("images/x.png")),
    refuse("image a text", "FOLDER: images/left/2.png cannot be read as an image",
           "images", write("images/left/2.png", "hello")),
    refuse("CSV missing", "--verified: no.csv cannot be read as CSV", "images --verified no.csv"),
    refuse("CSV empty", "--verified: v.csv cannot be read as CSV", "images", write("v.csv", "")),
    refuse("CSV with too many fields", "--verified: line 3 of v.csv has 4 cells, the first one has 2; put",
           "images", write("v.csv", "path,label\na,b\na,b,c,d\n")),
    refuse("CSV without columns", "--verified: v.csv has no column 'path'; it needs path,label",
           "images", write("v.csv", "a,b\n1,2\n")),
    refuse("CSV without rows", "--verified: v.csv names no image", "images", write("v.csv", "path,label\n")),
    refuse("CSV of other files", r"--verified: 'left/9.png' \(line 2 of v.csv\) is not a file",
           "images", write("v.csv", "path,label\nleft/9.png,left\n")),
    refuse("CSV without a label", r"--verified: 'left/0.png' \(line 2 of v.csv\) has no label",
           "images", write("v.csv", "path,label\nleft/0.png,\n")),
    refuse("CSV of an unknown class", "--verified: label 'lft' of 'left/0.png' is not one of the classes 'l",
           "images", write("v.csv", "path,label\nleft/0.png,lft\n")),
    refuse("CSV of two minds", "--verified: 'left/0.png' has two labels",
           "images", write("v.csv", "path,label\nleft/0.png,left\nleft/0.png,right\n")),
    refuse("CSV without a class", "--verified: there is no image of class 'right'",
           "images", write("v.csv", "path,label\nleft/0.png,left\n")),
    refuse("CSV of all images", "--verified: it has every image", "images", write("v.csv", ALL_VERIFIED)),
    refuse("labels missing", "--labels: no.csv cannot be read as CSV", "images --labels no.csv"),
    refuse("labels without columns", "--labels: l.csv has no column 'path'",
           "images --labels l.csv", write("l.csv", "a,b\n1,2\n")),
    refuse("out is an input", "--out: v.csv is another argument's file already", "images --out v.csv"),
    refuse("out is the sheet", "--sheet: x.png is another argument's file already",
           "images --out x.png --sheet ./x.png"),
    refuse("out is a folder", "--out: images is a folder, not a file", "images --out images"),
    refuse("out below a file", "--out: v.csv/x.csv cannot be written to ", "images --out v.csv/x.csv"),
    refuse("save below a file", "--save: v.csv/x cannot be written to", "images --save v.csv/x"),
    refuse("out an image", "--out: images/left/0.png would be one of the images in images",
           "images --out images/left/0.png"),
    refuse("sheet among the images", "--sheet: images/s.png would be one of the images",
           "images --sheet images/s.png"),
    refuse("sheet of no format", r"--sheet: x.gif must end in one of .jpg, .pdf, .png, .svg",
           "images --sheet x.gif"),
    refuse("sheet of no images", "--sheet-images: must be at least 1", "images --sheet-images 0"),
    refuse("epochs", "epochs: .*greater than 0", "images -p epochs 0"),
    refuse("learning rate", r"lr: .*\(got nan\)", "images -p lr nan"),
    refuse("batch size", "batch_size: 5 is more than the 4 noisy images", "images -p batch_size 5"),
    refuse("image size", "image_size: must be None or an integer from 4", "images -p image_size 3"),
    refuse("patience", "patience: must be an integer from 1 to 10,000", "images -p patience 0"),
    refuse("seed", "seed: .*greater than or equal to 0", "images -p seed -1"),
    refuse("model", "model: 'vgg' is not one of auto, small_cnn", "images -p model vgg"),
    refuse("start", "start: w.pth is not a file", "images -p start w.pth"),
    refuse("device", "device: must be auto, cpu, cuda or cuda:N", "images -p device tpu"),
    refuse("a device that is a number", "device: Input should be a valid string", "images -p device 1"),
    refuse("a number that is a word", r"epochs: .* valid integer.*\(got 'ten'\)", "images -p epochs ten"),
    refuse("a misspelt parameter", "sead: unknown parameter; did you mean 'seed'", "images -p sead 3"),
    refuse("a misspelt option", r"No such option[: ]+'?--sead", "images --sead 3"),
    refuse("no folder given", "Missing argument 'FOLDER'", ""),
    refuse("not YAML", "-y: '{a' is not YAML", "images -y {a"),
]  # fmt: skip


@pytest.fixture
def images(here):
    """Eight images of two classes, four of them verified."""
    for name in [f"{c}/{i}.png" for c in ("left", "right") for i in range(4)]:
        path = here / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 20 * int(path.stem)).save(path)
    Path("v.csv").write_text(VERIFIED)
    return here


@pytest.mark.parametrize("case", COMMANDS, ids=lambda case: case.name)
def test_status_2_and_one_line_before_any_work(case, images, capsys):
    case.files()
    error, changed = refused(case.call, images)
    assert type(error) is case.error
    assert error.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(case.message, line)
    assert not changed
