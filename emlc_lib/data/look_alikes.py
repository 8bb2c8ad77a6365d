"""Which class asymmetric noise turns a class into (Appendix E)."""

from __future__ import annotations

import numpy as np


# Appendix E for CIFAR-10. Digits follow the MNIST map of Patrini et al. (2017), from whom Appendix E takes
# the setting; the Fashion-MNIST pairs are this project's own choice of look-alikes.
ASYMMETRIC_MAPS: dict[str, dict[str, str]] = {
    "cifar10": {"truck": "automobile", "bird": "airplane", "deer": "horse", "cat": "dog", "dog": "cat"},
    "digits": {"2": "7", "3": "8", "5": "6", "6": "5", "7": "1"},
    "fashion_mnist": {
        "T-shirt/top": "Shirt",
        "Pullover": "Coat",
        "Coat": "Pullover",
        "Sneaker": "Sandal",
        "Ankle boot": "Sneaker",
    },
}

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


def successor_classes(dataset: str, classes: list[str]) -> np.ndarray:
    """(C,) int64: the class that asymmetric noise turns each class of ``dataset`` into; itself if none.

    CIFAR-10 has Appendix E's map; in CIFAR-100 each class turns into the next of its superclass, circularly.
    """
    if dataset == "cifar100":
        pairs = {
            name: group[(i + 1) % len(group)]
            for group in CIFAR100_SUPERCLASSES.values()
            for i, name in enumerate(group)
        }
    elif dataset in ASYMMETRIC_MAPS:
        pairs = ASYMMETRIC_MAPS[dataset]
    else:
        raise ValueError(f"noise_type: no asymmetric class map is defined for the data set {dataset!r}")
    index = {name: i for i, name in enumerate(classes)}
    return np.array([index[pairs.get(name, name)] for name in classes])
