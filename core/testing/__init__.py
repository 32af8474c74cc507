"""Test a plugin without a model and without sockets: `from core.testing import PluginHarness`.

A session is held with the service's own code, from the request to the last event; only the model and the network are
replaced. This is a whole test, for pytest with pytest-asyncio:

    import numpy as np
    from core.testing import PluginHarness
    import shout

    async def test_the_agent_is_louder():
        async with PluginHarness(shout) as harness, harness.session() as session:
            answer = await session.exchange(np.full(1920, 0.25, np.float32))
            assert np.allclose(answer, 0.5, atol=1e-4)

- `PluginHarness`: a host with one plugin, an engine and the app around them. `harness.host` calls single hooks.
- `SessionDriver`: one session; the test sends the caller's frames and gets the agent's frames, the events, and how the
  session ended. `session.control` does what another plugin would, such as `caller_said`.
- `EchoEngine`: an engine that answers each frame with the same frame, with faults on demand.
- `EventRecorder`: a plugin that keeps every event.

Nothing in `core` imports this package.
"""

from core.testing.echo_engine import VOICES, EchoCall, EchoEngine, EngineFaults
from core.testing.event_recorder import EventRecorder
from core.testing.harness import PluginHarness
from core.testing.session_driver import SessionClosedError, SessionDriver

__all__ = [
    "VOICES",
    "EchoCall",
    "EchoEngine",
    "EngineFaults",
    "EventRecorder",
    "PluginHarness",
    "SessionClosedError",
    "SessionDriver",
]
