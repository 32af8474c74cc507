"""Which tests run, in how many processes, and on how many generated inputs.

`uv run pytest` leaves out what takes long and says so; `uv run pytest --all` runs everything. Whoever names files, or
chooses by `-m` or `-k`, gets all that was named. Tests of generated inputs try a quarter as many in a plain run.
"""

from collections import Counter
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

MARKS = {
    "browser": "the page in real browsers, in real time",
    "leaks": "calls by the hundred, watched for what they leave behind",
    "modal": "the deployment on Modal, run on this machine",
    "slow": "takes many seconds of a core",
    "training": "nano's training, every stage of it",
}
UNPACKAGED = "wants what no package brings, and is skipped without it; CI leaves it out"
GENERATED_INPUTS = {"quick": 25, "project": 100, "thorough": 1000}
"""For each test, by the names of Hypothesis's profiles."""
for _profile, _count in GENERATED_INPUTS.items():
    settings.register_profile(_profile, deadline=None, max_examples=_count)  # a busy machine is no failure
LEFT_OUT = pytest.StashKey[dict[str, int]]()
"""How many tests of each mark were left out."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--all` and `--no-skips`."""
    parser.addoption("--all", action="store_true", help=f"run all tests, also those marked {', '.join(MARKS)}")
    parser.addoption("--no-skips", action="store_true", help="a test that is skipped has failed: all it needs is here")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marks, see whether anything was chosen, and choose how many inputs are generated."""
    for mark, meaning in MARKS.items():
        config.addinivalue_line("markers", f"{mark}: {meaning}")
    config.addinivalue_line("markers", f"unpackaged: {UNPACKAGED}")
    if files_named(config) or config.option.markexpr or config.option.keyword:
        config.option.all = True
    config.option.loadscopereorder = False  # xdist's own order looks at the number of tests alone
    if not config.option.hypothesis_profile:
        settings.load_profile("project" if config.option.all else "quick")


def files_named(config: pytest.Config) -> bool:
    """Whether files or tests were named."""
    return config.args_source is pytest.Config.ArgsSource.ARGS


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """A process for each core, or none beside this one for a few files: each takes seconds to start."""
    return 0 if files_named(config) else None


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling:
    """Each process takes a file at a time."""
    return ByFile(config, log)


class ByFile(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
    """A file's tests run in one process, and all that have a browser too: two of them are more than two cores can."""

    def _split_scope(self, nodeid: str) -> str:
        file = str(super()._split_scope(nodeid))
        return "tests/browser" if file.startswith("tests/browser/") else file


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what uses a browser, leave out what takes long, unless it was asked for, and order the files."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()) or item.nodeid.startswith("tests/browser/"):
            item.add_marker("browser")
    marks = {item: next(filter(item.get_closest_marker, MARKS), None) for item in items}
    left_out = [] if config.option.all else [item for item, mark in marks.items() if mark]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item, mark in marks.items() if not mark]
    config.stash[LEFT_OUT] = dict(Counter(mark for item in left_out if (mark := marks[item])))
    # The files that take longest begin first, so that none is left to one process when the others are done: those with
    # slow tests, and then those with the most.
    slow = {item.path for item in items if marks[item] not in (None, "training")}
    counts = Counter(item.path for item in items)
    items.sort(key=lambda item: (item.path not in slow, -counts[item.path]))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """One of several processes tells the first what it left out."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = session.config.stash.get(LEFT_OUT, {})


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take what a process left out: all leave out the same."""
    node.config.stash[LEFT_OUT] = getattr(node, "workeroutput", {}).get("left_out", {})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what did not run."""
    left_out = terminalreporter.config.stash.get(LEFT_OUT, {})
    if left_out:
        kinds = ", ".join(f"{count} {mark}" for mark, count in left_out.items())
        terminalreporter.write_line(
            f"{sum(left_out.values())} tests were left out, as they take long ({kinds}): "
            "`uv run pytest --all` runs them too."
        )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """With `--no-skips`, a test that is skipped has failed."""
    report = yield
    fail_if_skipped(item.config, report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Any:
    """With `--no-skips`, so has a file that is skipped as a whole."""
    report = yield
    fail_if_skipped(collector.config, report)
    return report


def fail_if_skipped(config: pytest.Config, report: pytest.TestReport | pytest.CollectReport) -> None:
    """Make a failure of a skip, with its reason."""
    if report.skipped and config.option.no_skips and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        if isinstance(report.longrepr, tuple):
            report.longrepr = report.longrepr[2]
