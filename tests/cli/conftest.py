"""Commands called as a user calls them."""

import sys
from pathlib import Path

import pytest

from gebm_lightning.cli import train


@pytest.fixture
def command(monkeypatch, tmp_path, capsys):
    """`command(train, *arguments) -> (status, stdout, stderr)` in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(module, *arguments):
        monkeypatch.setattr(sys, "argv", ["program", *arguments])
        try:
            module.main()
            status = 0
        except SystemExit as stop:
            status = stop.code or 0
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.fixture
def run(command, smoke):
    """A finished smoke run's folder."""
    status, out, err = command(train, *smoke)
    assert status == 0, err
    return Path(out.strip().splitlines()[-1])
