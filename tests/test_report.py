"""The page of labels to check: its counts by hand, its escapes, and that it needs nothing else."""

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
from PIL import Image

from emlc_lib.estimator.report import pair_counts, report


def table():
    return pd.DataFrame(
        {
            "path": ["a.png", "<b>&.png", "c.png", "d.png", "e.png"],
            "given_label": ["cat", "cat", "cat", "dog & co", None],
            "corrected_label": ["dog & co", "dog & co", "cat", "cat", "cat"],
            "probability": [0.9, 0.8, 0.7, 0.6, 1.0],
            "gate": [0.1, 0.2, 0.9, 0.3, np.nan],
            "rank": pd.array([1, 2, 4, 3, pd.NA], dtype="Int64"),
        }
    )


def test_pairs_are_counted_most_frequent_first():
    found = pair_counts(table()).to_dict("list")
    assert found == {"given_label": ["cat", "dog & co"], "corrected_label": ["dog & co", "cat"], "images": [2, 1]}
    assert pair_counts(table()[2:3]).empty
    assert pair_counts(table().assign(verified=[True, False, False, True, True]))["images"].tolist() == [1]


class Page(HTMLParser):
    """What a browser would find."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.sources, self.text = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_is_whole_and_escaped(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a.png", "<b>&.png", "d.png"):
        Image.fromarray(rng.integers(0, 256, (300, 20, 3), dtype=np.uint8)).save(tmp_path / name)
    suspicious = table().dropna(subset="rank").nsmallest(3, "rank")
    text = report(table(), suspicious, tmp_path)
    page = Page(text)
    assert page.tags.count("img") == page.tags.count("figure") == 3
    assert "script" not in page.tags
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.sources)
    assert not re.search(r"https?:|@import|url\(", text)
    words = " ".join(page.text)
    assert "<b>&.png" in words  # as a name, not as a tag
    assert "1. given cat , proposes dog & co (90%), gate 0.10 a.png" in " ".join(words.split())
    assert "5 images; the network proposes to change 3 labels." in words
    to_fill_in = words[words.index("behind the comma.") :].split()[3:]
    assert to_fill_in == ["a.png,", "<b>&.png,", "d.png,"]
