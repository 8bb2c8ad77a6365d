"""What 11_clothing1m shows beside a run: learning rates by epochs, corrected labels of some images."""

import numpy as np
import pytest
import torch
from clothing1m_config import config_of

from emlc_lib import prepare, run
from emlc_lib.experiments.clothing1m import compare_plans, correct_some, milestone_rates, rate_plans


def test_three_epochs_and_five_begin_alike():
    plans = rate_plans([3, 5])
    assert {n: len(rates) for n, rates in plans.items()} == {3: 3 * 976, 5: 5 * 976}
    np.testing.assert_array_equal(plans[5][: 3 * 976], plans[3])
    table = compare_plans(plans, 976)
    assert table["at 0.1"].tolist() == [976, 976]
    assert table["distance"].tolist() == [1.2, 1.4]  # one epoch at the full rate, two and four at a tenth
    assert table.loc["3 epochs", "hours, k = 1"] == 11.0


def test_milestones_that_are_text_are_none():
    assert milestone_rates("1,5", 3, 2).tolist() == [0.1] * 6
    assert milestone_rates([1], 3, 2) == pytest.approx([0.1] * 2 + [0.01] * 4)


@pytest.mark.slow
def test_some_images_are_spread_over_the_list(clothing1m, tmp_path, monkeypatch):
    monkeypatch.setenv("EMLC_DATA", str(clothing1m[0]))
    config = config_of(n_noisy=15, batch_size=7, clean_batch_size=4, epochs=1)
    data = prepare(config)
    finished = run(config, data=data, root=tmp_path, show=False)
    table, images = correct_some(finished, data, most=6)
    assert table["index"].tolist() == [0, 3, 6, 9, 12]
    assert torch.equal(images, data.noisy_images[torch.tensor([0, 3, 6, 9, 12])])
    given = np.array(data.classes)[data.noisy_labels[::3]]
    assert (table["given_label"] == given).all()
    assert sorted(table["rank"]) == [1, 2, 3, 4, 5]
