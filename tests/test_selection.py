"""What a run leaves out, and that it says so."""

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.slow

TESTS = """
import pytest
from hypothesis import given, strategies

inputs = []

@given(strategies.integers())
def generated(number):
    inputs.append(number)

def test_quick():
    generated()
    print(len(inputs), "inputs")

@pytest.mark.training
def test_long():
    pass

@pytest.fixture
def browser():
    return None

def test_page(browser):
    pytest.skip("Chromium is not installed")
"""
LEFT_OUT = "2 tests were left out, as they take long (1 training, 1 browser): `uv run pytest --all` runs them too."


@pytest.fixture
def tests(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A folder with a quick test, one that is marked, and one that uses a browser and is skipped."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p tests.selection --strict-markers")
    pytester.makepyfile(TESTS)
    return pytester


@pytest.mark.parametrize("processes", ["0", "2"])
def test_what_takes_long_is_left_out_and_told(tests: pytest.Pytester, processes: str) -> None:
    done = tests.runpytest_subprocess("-n", processes, "-rP")
    assert done.ret == 0
    assert done.parseoutcomes()["passed"] == 1
    assert "25 inputs" in done.stdout.str()
    assert LEFT_OUT in done.outlines


@pytest.mark.parametrize("chosen", [["--all"], ["."], ["-mtraining or not training"], ["-ktest_"], [".", "-n2"]])
def test_whoever_chooses_gets_all(tests: pytest.Pytester, chosen: list[str]) -> None:
    outcomes = (done := tests.runpytest_subprocess(*chosen, "-rP")).parseoutcomes()
    assert (outcomes["passed"], outcomes["skipped"]) == (2, 1)
    assert "100 inputs" in done.stdout.str()
    assert "left out" not in done.stdout.str()


def test_a_skip_is_a_failure_where_all_is_there(tests: pytest.Pytester) -> None:
    done = tests.runpytest_subprocess("--all", "--no-skips")
    assert done.ret == 1
    done.stdout.fnmatch_lines(["*test_page*", "Skipped: Chromium is not installed"])
    assert done.parseoutcomes()["failed"] == 1
