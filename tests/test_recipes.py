"""The plugins that the recipes show do what the recipes say."""

import re
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from core.errors import RefusedError
from core.testing import PluginHarness, SessionClosedError, SessionDriver
from tests.documents import doc

SILENCE = np.zeros(1920, np.float32)


def shown(recipe: str, folder: Path) -> Path:
    """The plugin that a recipe shows, as a file."""
    (source,) = re.findall(r'```python\n("""plugins/.*?)```', doc(f"recipes/{recipe}"), re.DOTALL)
    path = folder / Path(source.partition(":")[0]).name
    path.write_text(source)
    return path


async def talk_on(session: SessionDriver) -> None:
    """Talk for much longer than the account allows."""
    for _ in range(1000):
        await session.exchange(SILENCE)


async def test_a_call_ends_when_the_account_is_empty(tmp_path: Path) -> None:
    accounts = tmp_path / "accounts.sqlite"
    async with PluginHarness(shown("billing", tmp_path), options={"file": str(accounts)}) as harness:
        with pytest.raises(RefusedError, match="used up") as refused:
            async with harness.session(persona="echo"):
                pass
        assert refused.value.status == 402
        with sqlite3.connect(accounts) as database:
            database.execute("INSERT INTO accounts VALUES ('anonymous', 2.5)")
        database.close()
        async with harness.session(persona="echo") as session:
            with pytest.raises(SessionClosedError, match="Top up your account to go on") as closed:
                await talk_on(session)
        assert closed.value.code == 4010
        assert session.ended is not None
        assert (session.ended.reason, session.ended.detail) == ("plugin", "billing: empty")
        assert session.ended.frames_out >= 50
        with pytest.raises(RefusedError):
            async with harness.session(persona="echo"):
                pass
