"""The bar as a reader of a log file and a reader at a terminal see it."""

import io
import itertools
from types import SimpleNamespace

import pytest

from emlc_lib.runtime.progress import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(params=["log", "terminal"])
def stream(request, monkeypatch):
    stream = Terminal() if request.param == "terminal" else io.StringIO()
    # Not sys.stderr itself, which pytest exchanges between a fixture and its test.
    monkeypatch.setattr("emlc_lib.runtime.progress.sys", SimpleNamespace(stderr=stream))
    return stream


@pytest.fixture
def clock(monkeypatch):
    """tqdm's clock, advancing four seconds whenever it is read."""
    ticks = itertools.count(0, 4)
    monkeypatch.setattr("tqdm.std.time", lambda: next(ticks))


def test_values_pass_through(stream):
    assert list(progress(iter("abc"), total=3, desc="letters")) == ["a", "b", "c"]
    assert "letters: 100%" in stream.getvalue()
    assert "3/3" in stream.getvalue()


def test_hidden(stream, capsys):
    assert list(progress(range(50), total=50, desc="hidden", show=False)) == list(range(50))
    assert stream.getvalue() == ""
    assert capsys.readouterr() == ("", "")


def test_nothing_goes_to_standard_output(stream, capsys):
    list(progress(range(3), total=3))
    assert stream.getvalue()
    assert capsys.readouterr().out == ""


def test_resumed(stream):
    """A run that goes on from step 4 of 10 starts at 40 %."""
    list(progress(range(4, 10), total=10, initial=4))
    percentage, _, counts = stream.getvalue().strip().splitlines()[0].split("|")
    assert percentage.strip() == "40%"
    assert "4/10" in counts
    assert "10/10" in stream.getvalue()


@pytest.mark.parametrize("stream", ["terminal"], indirect=True)
def test_a_terminal_is_updated_in_place(stream):
    list(progress(range(3), total=3))
    assert "\r" in stream.getvalue()
    assert stream.getvalue().count("\n") == 1


@pytest.mark.parametrize("stream", ["log"], indirect=True)
class TestLog:
    def test_whole_lines(self, stream):
        list(progress(range(1000), total=1000, desc="emlc"))
        text = stream.getvalue()
        assert "\r" not in text
        assert text.endswith("\n")
        lines = text.splitlines()
        assert all(line.startswith("emlc:") and line == line.strip() for line in lines)
        assert all(line.isascii() and len(line) <= 100 for line in lines)
        assert "1000/1000" in lines[-1]

    def test_a_fast_loop_writes_few_lines(self, stream):
        """It ends before ten seconds: one line at the start and one at the end."""
        list(progress(range(1000), total=1000))
        assert len(stream.getvalue().splitlines()) == 2

    def test_a_slow_loop_writes_lines_with_rate_and_eta(self, stream, clock):
        """Steps of four seconds and more: a line at most every third step, and not only at the end."""
        list(progress(range(30), total=30))
        lines = stream.getvalue().splitlines()
        # The first and the last line come in any case.
        assert 5 <= len(lines) <= 30 // 3 + 2
        assert all("s/it]" in line and "<" in line for line in lines[1:])
        steps = [int(line.split("/30")[0].split()[-1]) for line in lines]
        assert steps == sorted(steps)
        assert (steps[0], steps[-1]) == (0, 30)
        assert all(later - step >= 3 for step, later in itertools.pairwise(steps[:-1]))
