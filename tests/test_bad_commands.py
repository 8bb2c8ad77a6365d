"""What the commands refuse, with status 2 and one line that names the parameter or the file, before any work.

Most of the table is generated: wrong values of every parameter, impossible places of every path.
"""

import errno
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import get_args

import pytest
from PIL import Image
from refusals import Case, refused

from emlc_lib import EMLCClassifier
from emlc_lib.commands import main
from emlc_lib.estimator.images import InputError, read_folder
from emlc_lib.experiments.cluster import Resources
from emlc_lib.methods import METHODS
from emlc_lib.networks.pretrain_config import PretrainConfig
from emlc_lib.runtime.files import write_atomically
from emlc_lib.training.config import Config, config_class


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
    refuse("sheet of no images", "Invalid value for '--sheet-images': 0 is not in the range x>=1",
           "images --sheet-images 0"),
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


# Every parameter of every command, with a value of each wrong type and just outside its range.
WRONG = {int: ["word", 0.5, True, [1]], float: ["word", True, [1]], bool: ["word", 2, [1]], str: [5, True, [1]]}
BESIDE = {"ge": -1, "gt": 0, "le": 1, "lt": 0}


def wrong_values(field):
    """Values that a field of pydantic's must refuse."""
    outside = [getattr(m, n) + by for m in field.metadata for n, by in BESIDE.items() if hasattr(m, n)]
    parts = (field.annotation, *get_args(field.annotation))
    kinds = [kind for kind in WRONG if any(part is kind for part in parts)]
    shared = [[value for value in WRONG[kind] if value not in (field.default, "all")] for kind in kinds]
    return outside + (shared[0] if len(shared) == 1 else ["word", 5, [1]])


def parameter(command, name, value, message=None, **others):
    """A value of a parameter that a command must refuse in a line that names it."""
    values = json.dumps(others | {name: value})
    line = [*command.split(), "-y", values]
    message = f"emlc {command.split()[0]}: error: .*{message or name}"
    return Case(f"{command} {name} {value!r}", SystemExit, message, lambda: main(line))


def generated():
    base = {"dataset": "digits", "device": "cpu"}
    own = {name: method for method in METHODS for name in config_class(Config, method).model_fields}
    for name, method in own.items():
        field = config_class(Config, method).model_fields[name]
        values = [value for value in wrong_values(field) if (name, value) != ("method", "word")]
        for value in values:
            yield parameter("run", name, value, **base | ({} if name == "method" else {"method": method}))
        yield parameter("sweep", name, values[0], **base | ({} if name == "method" else {"method": method}))
        if name not in ("noise", "noise_type", "method", "k", "seed", "human_labels", "human_key", "noise_file"):
            values = {"preset": "paper", "dataset": "cifar10", "device": "cpu", "start": "random"}
            yield parameter("table1", name, {"a": 1}, **values)
    for name, field in PretrainConfig.model_fields.items():
        yield from (parameter("pretrain", name, value, **base) for value in wrong_values(field))
    for name, field in Resources.model_fields.items():
        for value in map(str, wrong_values(field)):
            if name != "slurm":
                line = ["table1", "--resource", name, value, "-p", "dataset", "cifar10"]
                yield Case(f"--resource {name} {value}", SystemExit, f"emlc table1: error: {name}: ",
                           lambda line=line: main(line))  # fmt: skip
    line = "correct images --verified v.csv --quiet"
    may_be = {"checkpoint": [[1], 5, True], "classes": ["word", 5, {"a": 1}], "flip": ["word", 2],
              "autoaugment": ["word", 2], "options": ["word", 5, [1]]}  # fmt: skip
    for name in sorted(EMLCClassifier().get_params().keys() - {"verbose"}):
        for value in may_be.get(name, ["word", [1], {"a": 1}, -1]):
            yield parameter(line, name, value)


GENERATED = list(generated())

# Every path of every command, with places that no file or folder can have.
RUN = ["run", "-y", "{dataset: digits, device: cpu}"]
LIST = ["--list", "-y", "{dataset: digits, device: cpu}"]
CORRECT = ["correct", "images", "--verified", "v.csv", "--quiet", "-y", "{epochs: 1}"]
TO_FILES = {"--csv": ["sweep", *LIST], "--out": CORRECT, "--save": CORRECT, "--sheet": CORRECT}
TO_FOLDERS = {"--runs": RUN, "-runs": ["sweep", *LIST], "--out": ["pretrain", "-y", "{dataset: digits}"]}
FROM_FILES = {"--verified": CORRECT[:2], "--labels": CORRECT, "-f": ["run"]}
NOWHERE = {
    "below a file": "v.csv/x.png", "of an unknown user": "~nobody-here/x.png", "no UTF-8": "\udcff.png",
    "too long": "x" * 300 + ".png", "far too long": "x/" * 3000 + "x.png", "empty": "",
}  # fmt: skip


def in_place(option, line, place, value):
    name = "-" * (2 if len(option) > 2 else 1) + option.strip("-")
    message = f"emlc {line[0]}: error: ({name}|--parameters_file|{value[:9] or name})"
    return Case(f"{line[0]} {name} {place}", SystemExit, message, lambda: main([*line, name, value]))


def paths():
    for options, own in ((TO_FILES, {"a folder": "images"}), (TO_FOLDERS, {"a file": "v.csv"}), (FROM_FILES, {})):
        for option, line in options.items():
            for place, value in (NOWHERE | own).items():
                yield in_place(option, line, place, value)
    for variable in ("EMLC_DATA", "EMLC_RUNS"):
        for place, value in (NOWHERE | {"empty": "v.csv"}).items():  # an empty variable is none
            change = functools.partial(dict, {variable: value})
            yield Case(f"{variable} {place}", SystemExit, f"emlc run: error: {variable}: ", lambda: main(RUN),
                       lambda change=change: os.environ.update(change()))  # fmt: skip


PATHS = list(paths())
OTHERS = [
    Case("options twice", SystemExit, "emlc run: error: options: noise is a parameter by itself",
         lambda: main(["run", "-y", "{dataset: digits, noise: 0.5, options: {noise: 0.9}}"])),
    Case("options of numbers", SystemExit, "emlc run: error: options: must be a dictionary",
         lambda: main(["run", "-y", "{dataset: digits, options: {3: 1}}"])),
    Case("device_here", SystemExit, "emlc run: error: device_here: unknown",
         lambda: main(["run", "-y", "{dataset: digits, options: {device_here: false}}"])),
    Case("half of torchrun", SystemExit, "emlc run: error: WORLD_SIZE: is not in the env", lambda: main(RUN),
         lambda: os.environ.update({"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "LOCAL_RANK": "0"})),
    *(Case(f"sweep of {n}", SystemExit, f"emlc sweep: error: {n}: ",
           lambda n=n, v=v: main(["sweep", "-y", json.dumps({"dataset": "digits", "device": "cpu", n: [v]})]))
      for n, v in {"n_clean": 105, "n_noisy": 1_000_000, "batch_size": 5000}.items()),
    Case("sweep of missing human labels", SystemExit, "emlc sweep: error: human_labels: .*no.npz is not a file",
         lambda: main(["sweep", "-y", "{dataset: cifar10, preset: quick, device: cpu, noise_type: human, "
                       "human_labels: no.npz, start: random}"])),
    Case("a pipe among the images", SystemExit, "emlc correct: error: FOLDER: images/left/p.png cannot be read",
         lambda: main(CORRECT), lambda: os.mkfifo("images/left/p.png")),
    Case("an image of a name in Latin-1", SystemExit, r"emlc correct: error: FOLDER: the name .* is no UTF-8",
         lambda: main(CORRECT), lambda: Path("images/left/\udcff.png").touch()),
    Case("CSV in Latin-1", SystemExit, "emlc correct: error: --verified: v.csv cannot be read as CSV .it is no",
         lambda: main(CORRECT), lambda: Path("v.csv").write_bytes("path,label\n\xe9.png,a\n".encode("latin-1"))),
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


ALL = COMMANDS + GENERATED + PATHS + OTHERS


def some_slow():
    """All by hand, and of the generated ones every third; the others are marked slow."""
    for number, case in enumerate(ALL):
        quick = case not in GENERATED or number % 3 == 0
        yield pytest.param(case, id=case.name[:60], marks=() if quick else pytest.mark.slow)


def test_how_many_there_are():
    print(f"{len(ALL)} command lines that must be refused, {len(GENERATED) + len(PATHS)} of them generated")
    assert len(ALL) > 300


@pytest.mark.parametrize("case", list(some_slow()))
def test_status_2_and_one_line_before_any_work(case, images, capsys, monkeypatch):
    monkeypatch.setattr(os, "environ", os.environ.copy())
    case.files()
    error, changed = refused(case.call, images)
    assert type(error) is case.error, error
    assert error.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(case.message, line), line
    assert not changed


def pipe(path):
    """A named pipe and what comes out of it."""
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    return lambda: os.read(reader, 10**6).decode()


def link(path, target):
    Path(path).symlink_to(target)
    return lambda: Path(target).read_text() if Path(path).is_symlink() else "the link is gone"


def file(path):
    Path(path).parent.mkdir(exist_ok=True)
    return lambda: Path(path).read_text()


# Where a table can be written to, and how it is read there afterwards.
WRITABLE = {
    "pipe": lambda: pipe("pipe"), "link": lambda: link("link", "v.csv"), "to be": lambda: link("to be", "new"),
    "~/t.csv": lambda: file("t.csv"), "x" * 250: lambda: file("x" * 250), "new/n/t.csv": lambda: file("new/x"),
}  # fmt: skip


def test_a_device_is_written_to(images, capsys):
    """A terminal, which a mistake cannot replace as it could /dev/null, for the whole machine."""
    master, slave = os.openpty()
    main(["sweep", *LIST, "--csv", os.ttyname(slave)])
    assert b"digits" in os.read(master, 10**6)
    os.close(master), os.close(slave)


@pytest.mark.parametrize("place", WRITABLE)
def test_nothing_of_a_users_is_replaced(place, images, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(images))
    there = WRITABLE[place]()
    main(["sweep", *LIST, "--csv", place])
    read = Path(place).read_text if place.startswith("new") else there
    assert "digits" in read()
    assert not [name for name in os.listdir() if name.endswith(".tmp")]


def test_the_end_of_a_redirected_output_is_where_a_table_goes(images):
    """And not its beginning, nor a file in its place."""
    code = f"from emlc_lib.commands import main; print('before', flush=True); main({['sweep', *LIST]} + "
    code += "['--csv', '/proc/self/fd/1']); print('after')"
    with open("o.txt", "wb") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True)
    words = [line.split(",")[0] for line in Path("o.txt").read_text().splitlines()]
    assert [word for word in words if word in ("before", "job", "after")] == ["before", "job", "after"]


@pytest.fixture
def as_nobody():
    """A folder of nobody's, and the test has its rights, where it has more."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    root = os.geteuid() == 0
    if root:
        (folder / "roots").write_text("x")
        os.seteuid(65534)
    yield folder
    if root:
        os.seteuid(0)
    shutil.rmtree(folder)


def test_folders_and_files_of_others(as_nobody, capsys):
    (as_nobody / "shut").mkdir(mode=0o500)
    (as_nobody / "mine").write_text("x")
    (as_nobody / "mine").chmod(0o400)
    shut = {"shut/t.csv": "cannot be written to", "mine": "not yours to write to"}
    if (as_nobody / "roots").exists():
        shut["roots"] = "not yours to write to"
    for name, message in shut.items():
        with pytest.raises(SystemExit, match="2"):
            main(["sweep", *LIST, "--csv", str(as_nobody / name)])
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([*RUN, "--runs", str(as_nobody / "shut" / "runs")])
    assert "runs: " in capsys.readouterr().err
    (as_nobody / "shut").chmod(0o000)
    with pytest.raises(InputError, match=r"^noisy: .*shut cannot be read \(Permission denied\)"):
        read_folder(as_nobody)
    (as_nobody / "shut").chmod(0o700)


@pytest.mark.parametrize("errno_of", [errno.EPERM, errno.EBUSY])
def test_a_file_that_cannot_be_replaced_is_written_in_its_place(images, monkeypatch, errno_of):
    """Somebody else's in a sticky folder; mounted alone, as containers do."""

    def refuse(*_):
        raise OSError(errno_of, "no")

    monkeypatch.setattr(os, "replace", refuse)
    write_atomically(Path("v.csv"), lambda path: path.write_text("new"))
    assert Path("v.csv").read_text() == "new"


@pytest.mark.parametrize(
    ("line", "message"),
    [(["sweep", *LIST, "--csv", "t.csv"], "t.csv: File too large"), ([*RUN, "--runs", "r"], "File too large")],
)
def test_what_the_system_refuses_in_the_middle_is_a_line_that_names_the_file(line, message, images):
    limit = 100 if line[0] == "sweep" else 20_000
    code = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY)); "
    code += f"from emlc_lib.commands import main; main({line})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert message in done.stderr.splitlines()[-1]
    assert re.match(r"emlc \w+: error: \S+: ", done.stderr.splitlines()[-1])
