"""The data sets. A new one is one more object like these, here or in a file of one's own."""

import gzip
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torchvision import datasets
from torchvision.datasets.utils import check_md5

from ..runtime.files import write_atomically
from ..runtime.parameters import DataUnavailable
from .autoaugment import CIFAR_POLICY, IMAGENET_POLICY
from .clothing1m.prepare import prepare_clothing1m
from .spec import DATASETS as DATASETS
from .spec import IMAGENET, Constants, DatasetSpec, ImageSet, Recipe, ViewRecipe
from .spec import is_available as is_available
from .spec import load_dataset as load_dataset

# For the preset quick, in place of SimCLR where no weights come with the package: a supervised start on the clean
# set.
WARM_START = dict(start="random", start_steps=1000, start_lr=0.1)

# The 20 superclasses of CIFAR-100, each in the order of its class numbers, which is alphabetical.
CIFAR100_SUPERCLASSES: dict[str, tuple[str, ...]] = {
    "aquatic mammals": ("beaver", "dolphin", "otter", "seal", "whale"),
    "fish": ("aquarium_fish", "flatfish", "ray", "shark", "trout"),
    "flowers": ("orchid", "poppy", "rose", "sunflower", "tulip"),
    "food containers": ("bottle", "bowl", "can", "cup", "plate"),
    "fruit and vegetables": ("apple", "mushroom", "orange", "pear", "sweet_pepper"),
    "household electrical devices": ("clock", "keyboard", "lamp", "telephone", "television"),
    "household furniture": ("bed", "chair", "couch", "table", "wardrobe"),
    "insects": ("bee", "beetle", "butterfly", "caterpillar", "cockroach"),
    "large carnivores": ("bear", "leopard", "lion", "tiger", "wolf"),
    "large man-made outdoor things": ("bridge", "castle", "house", "road", "skyscraper"),
    "large natural outdoor scenes": ("cloud", "forest", "mountain", "plain", "sea"),
    "large omnivores and herbivores": ("camel", "cattle", "chimpanzee", "elephant", "kangaroo"),
    "medium-sized mammals": ("fox", "porcupine", "possum", "raccoon", "skunk"),
    "non-insect invertebrates": ("crab", "lobster", "snail", "spider", "worm"),
    "people": ("baby", "boy", "girl", "man", "woman"),
    "reptiles": ("crocodile", "dinosaur", "lizard", "snake", "turtle"),
    "small mammals": ("hamster", "mouse", "rabbit", "shrew", "squirrel"),
    "trees": ("maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"),
    "vehicles 1": ("bicycle", "bus", "motorcycle", "pickup_truck", "train"),
    "vehicles 2": ("lawn_mower", "rocket", "streetcar", "tank", "tractor"),
}


def _digits(root: Path, download: bool) -> ImageSet:
    digits = load_digits()
    images = torch.from_numpy((digits.images * (255 / 16)).round().astype(np.uint8)).unsqueeze(1)
    labels = digits.target.astype(np.int64)
    # The package has no test set: a quarter of the samples, stratified, the same in every run.
    train, test = train_test_split(np.arange(len(labels)), test_size=0.25, stratify=labels, random_state=0)
    return ImageSet(
        "digits", [str(c) for c in range(10)], images[train], labels[train], images[test], labels[test]
    )


class FashionMNIST(datasets.FashionMNIST):
    """Without what old versions of torchvision stored beside the original files: those are pickles.

    Compressed files that others packed anew (Debian) are unpacked, too; what is in them is checked by its form.
    """

    def _check_legacy_exist(self) -> bool:
        return False

    def _check_exists(self) -> bool:
        for name, _ in self.resources:
            packed = Path(self.raw_folder) / name
            if packed.is_file() and not packed.with_suffix("").is_file():
                content = gzip.decompress(packed.read_bytes())
                write_atomically(packed.with_suffix(""), lambda path, content=content: path.write_bytes(content))
        return super()._check_exists()

    def _load_data(self):
        images, labels = super()._load_data()
        if images.shape[1:] != (28, 28) or labels.max() > 9:
            raise ValueError(f"images of {tuple(images.shape[1:])}, not 28 x 28, or labels above 9")
        return images, labels


def _of_torchvision(name: str, folder: str, cls: type) -> dict:
    """The part of a spec that says where its files are and how they are read."""
    return {"name": name, "folder": folder, "load": partial(_load, name, folder, cls)}


def _load(name: str, folder: str, cls: type, root: Path, download: bool) -> ImageSet:
    try:
        # torchvision checks the MD5 of files that are there before it downloads anything.
        train, test = (_open(cls, root, part, download) for part in (True, False))
    except (OSError, RuntimeError, EOFError, AssertionError, ValueError, zlib.error) as error:
        bad = "; ".join([*_damaged(cls, root / folder), str(error)])
        raise DataUnavailable(
            f"dataset: {name} is missing or damaged and could not be downloaded ({bad}). "
            f"Put its files into {root / folder} (as torchvision lays them out), "
            f"or set EMLC_DATA to the folder that holds {folder}."
        ) from error
    return ImageSet(name, list(train.classes), *_as_tensors(train), *_as_tensors(test))


def _open(cls: type, root: Path, train: bool, download: bool):
    try:
        return cls(root, train=train, download=False)
    except RuntimeError:
        if not download:
            raise
        return cls(root, train=train, download=True)


def _damaged(cls: type, folder: Path) -> list[str]:
    """What is wrong with which of CIFAR's files, if any are there; the other set's have no published checksums."""
    files = [*getattr(cls, "train_list", ()), *getattr(cls, "test_list", ())]
    if files:
        files.append((cls.meta["filename"], cls.meta["md5"]))
    there = {name: md5 for name, md5 in files if (folder / name).is_file()}
    bad = [f"{name} has another MD5 sum" for name, md5 in there.items() if not check_md5(folder / name, md5)]
    return bad + [f"{name} is not there" for name, _ in files if there and name not in there]


def _as_tensors(dataset) -> tuple[Tensor, np.ndarray]:
    images = torch.as_tensor(dataset.data)
    images = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2)
    return images.contiguous(), np.asarray(dataset.targets, dtype=np.int64)


# A mirrored digit is another digit, and AutoAugment's policies were not searched for grey images. The look-alikes
# follow the MNIST map of Patrini et al. (2017), from whom Appendix E takes the setting.
DatasetSpec(
    "digits",
    Constants((0.3053,), (0.3758,)),
    Recipe(1, False, False, None),
    ViewRecipe(0.6, False, 0.4, 0.0, 0.0),
    load=_digits,
    look_alikes={"2": "7", "3": "8", "5": "6", "6": "5", "7": "1"},
    presets={"smoke": {}, "quick": WARM_START},
    models=("small_cnn", "small_cnn"),
).register()

DatasetSpec(
    **_of_torchvision("fashion_mnist", "FashionMNIST/raw", FashionMNIST),
    constants=Constants((0.2860,), (0.3530,)),
    recipe=Recipe(2, True, True, None),
    views=ViewRecipe(0.2, True, 0.4, 0.0, 0.0),
    # This project's own choice.
    look_alikes={
        "T-shirt/top": "Shirt", "Pullover": "Coat", "Coat": "Pullover", "Sneaker": "Sandal",
        "Ankle boot": "Sneaker",
    },
    presets={"quick": WARM_START, "smoke": {}},
).register()  # fmt: skip

# Batches as in Table 4, views as in Chen et al. (2020), appendix B.9: no blur, strength 0.5.
_CIFAR = dict(
    recipe=Recipe(4, True, True, CIFAR_POLICY),
    views=ViewRecipe(0.2, True, 0.4, 0.1, 0.2),
    noise_types=("symmetric", "asymmetric", "human", "file"),
)

DatasetSpec(
    **_of_torchvision("cifar10", "cifar-10-batches-py", datasets.CIFAR10),
    **_CIFAR,
    constants=Constants((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    look_alikes={"truck": "automobile", "bird": "airplane", "deer": "horse", "cat": "dog", "dog": "cat"},
    presets={"quick": {}, "smoke": {}, "small": {}, "paper": {}},
).register()

# Each class turns into the next of its superclass, circularly.
DatasetSpec(
    **_of_torchvision("cifar100", "cifar-100-python", datasets.CIFAR100),
    **_CIFAR,
    constants=Constants((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    look_alikes={
        name: group[(i + 1) % len(group)]
        for group in CIFAR100_SUPERCLASSES.values()
        for i, name in enumerate(group)
    },
    presets={"quick": WARM_START, "smoke": {}, "small": {}, "paper": {"model": "resnet50"}},
    models=("resnet_narrow", "resnet50"),
).register()

# Table 4's values. Its images are standardised by ImageNet's constants, which its start is used to.
DatasetSpec(
    "clothing1m",
    IMAGENET,
    Recipe(0, False, True, IMAGENET_POLICY),
    prepare=prepare_clothing1m,
    folder="clothing1m",
    noise_types=("real",),
    presets={
        "paper": dict(
            noise_type="real", model="resnet50_imagenet", start="imagenet", n_clean=None, epochs=3,
            batch_size=1024, clean_batch_size=1024, lr=0.1, teacher_lr=0.1, schedule="lr_step",
        ),
        "smoke": dict(
            noise_type="real", n_clean=None, epochs=2, batch_size=16, clean_batch_size=8, schedule="lr_step"
        ),
    },
    notebook="11_clothing1m",
).register()  # fmt: skip
