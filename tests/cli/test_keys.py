from pathlib import Path

import pytest

from app.access.auth import KeyRing
from app.errors import AuthenticationError
from app.storage.database import Database
from tests.cli.conftest import Run


def test_keys_are_created_listed_and_revoked(fewstroke: Run, tmp_path: Path) -> None:
    here = {"FEWSTROKE_DATA_DIR": str(tmp_path)}
    made = fewstroke("keys", "create", "guest", "--per-minute", 6, "--units", 5000, **here)
    assert made.returncode == 0, made.stderr
    token = made.stdout.strip()
    keys = KeyRing(Database(f"sqlite:///{tmp_path}/fewstroke.db"))
    caller = keys.identify(token)
    assert (caller.name, caller.is_admin, caller.is_limited) == ("guest", False, True)
    shown = fewstroke("keys", "list", **here).stdout
    assert caller.id in shown
    assert "guest" in shown
    assert token not in shown
    assert fewstroke("keys", "revoke", caller.id, **here).returncode == 0
    with pytest.raises(AuthenticationError):
        keys.identify(token)
    assert "revoked" in fewstroke("keys", "list", **here).stdout
    wrong = fewstroke("keys", "revoke", "000000000000", **here)
    assert wrong.returncode == 2
    assert caller.id in wrong.stderr
