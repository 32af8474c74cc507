"""Warnings: one raised by our code fails the test, one raised inside a dependency does not."""

import warnings
from types import FunctionType
from typing import Any

import pytest

WARN = "import warnings\ndef call(level): warnings.warn('no longer done', DeprecationWarning, stacklevel=level)"


def function_of(module: str) -> FunctionType:
    """A function that warns, of a module of this name."""
    names: dict[str, Any] = {"__name__": module}
    exec(WARN, names)
    function = names["call"]
    assert isinstance(function, FunctionType)
    return function


@pytest.mark.parametrize(
    "module", ["core", "core.http.app", "plugins.metrics", "benchmarks.load", "training.lm", "tests.x", "modal_app"]
)
def test_our_own_fails(module: str) -> None:
    with pytest.raises(DeprecationWarning, match="no longer done"):
        function_of(module)(1)


@pytest.mark.parametrize("module", ["torch.nn", "starlette", "core_metadata", "pluginsx.y", "asyncio.events"])
def test_a_dependency_s_own_is_only_shown(module: str) -> None:
    with warnings.catch_warnings(record=True) as shown:
        function_of(module)(1)
    assert [str(warning.message) for warning in shown] == ["no longer done"]


def test_one_about_how_we_call_a_dependency_is_ours() -> None:
    """As deprecations are: they are attributed to the caller, here to this test."""
    with pytest.raises(DeprecationWarning, match="no longer done"):
        function_of("torch.nn")(2)
