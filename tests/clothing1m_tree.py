"""A made-up tree of Clothing1M's layout with generated images."""

from PIL import Image

from emlc_lib import make_config
from emlc_lib.clothing1m_folder import PARTS

SIZES = {"noisy_train": 42, "clean_train": 30, "clean_val": 14, "clean_test": 15}


def colour(label, i):
    return (18 * label, 255 - 18 * label, (37 * i) % 256)


def write_tree(folder, annotations="."):
    """Images have the colour of their class and number; a third of the clean ones have both labels."""
    text = {name: [] for name in ("noisy_label_kv", "clean_label_kv")}
    number = 0
    for part, size in SIZES.items():
        keys = []
        for i in range(size):
            # The published names have commas in them.
            key, label = f"images/{number % 10}/{number % 7:02d}/{number},{7 * number}.jpg", i % 14
            (folder / key).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (30 + i, 40), colour(label, number)).save(folder / key, quality=95)
            text[f"{PARTS[part]}_label_kv"].append(f"{key} {label}")
            if part != "noisy_train" and i % 3 == 0:
                text["noisy_label_kv"].append(f"{key} {(label + (i % 2)) % 14}")
            keys.append(key)
            number += 1
        text[f"{part}_key_list"] = keys
    (folder / annotations).mkdir(exist_ok=True)
    for name, lines in text.items():
        (folder / annotations / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return {part: text[f"{part}_key_list"] for part in SIZES}


def config_of(**changes):
    return make_config(**{"dataset": "clothing1m", "preset": "smoke", "device": "cpu"} | changes)
