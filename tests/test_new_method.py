"""A method is one file: one that this project does not know is trained, stored, read back and tabulated."""

import importlib.util

import pytest

from emlc_lib import ConfigError, find_runs, make_config, run
from emlc_lib.experiments.figures.style import method_name
from emlc_lib.experiments.tables import accuracy_table
from emlc_lib.methods import METHODS

SOURCE = '''
"""Cross-entropy on noisy labels, each smoothed."""

from pydantic import Field
from torch.nn import functional as F

from emlc_lib.methods.base import Method, MethodParameters


class Smoothed(Method, name="smoothed", label="label smoothing"):
    presets = {"smoke": {"smoothed_share": 0.2}}

    class Parameters(MethodParameters):
        smoothed_share: float = Field(0.1, ge=0, lt=1)

    def step(self, t):
        batch = self.batches.noisy(t)
        share = self.config.smoothed_share
        loss = F.cross_entropy(self.logits(batch.x), batch.given, label_smoothing=share)
        self.descend("student", [loss], t)
        return {"student_loss": loss.detach()}
'''


@pytest.fixture
def smoothed(tmp_path):
    file = tmp_path / "smoothed.py"
    file.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("smoothed", file)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    yield
    del METHODS["smoothed"]


def test_a_new_method_is_one_file(smoothed, tmp_path):
    asked = {"dataset": "digits", "method": "smoothed", "epochs": 2, "noise": 0.2, "device": "cpu"}
    config = make_config(**asked)
    assert config.smoothed_share == 0.2
    made = run(config, root=tmp_path / "runs", show=False)
    (read,) = find_runs(tmp_path / "runs", method="smoothed")
    assert read.config == config
    assert read.result == made.result
    assert accuracy_table([read])["method"].tolist() == ["smoothed"]
    assert method_name("smoothed", 1) == "label smoothing"
    assert make_config(**asked, smoothed_share=0.3).name != config.name
    with pytest.raises(ConfigError, match=r"^smoothed_share: is a parameter of method smoothed, not of emlc"):
        make_config(dataset="digits", smoothed_share=0.3)
