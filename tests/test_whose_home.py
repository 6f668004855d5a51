"""Commands that are typed by somebody who may not write home, or not read it: none says that it is empty."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from journals import SINK, journal_at, line_of, run

TYPED = """
import json
from typer.testing import CliRunner
from cmdrdata_transport.cli.app import app
for words in (["drain"], ["stats"], ["replay"], ["prune", "--before", "0d"]):  # imported while this user may
    assert CliRunner().invoke(app, [*words, "--home", str(home / "elsewhere")]).exit_code == 0
os.environ.update(CMDRDATA_HOME=str(home / "usage"), TMPDIR=str(home / "tmp"))
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
done = CliRunner().invoke(app, json.loads(sys.argv[2]))
print(json.dumps([done.exit_code, done.stdout, done.stderr]))
"""


@pytest.fixture
def common() -> Iterator[Path]:
    """A directory that every user of this machine may enter, unlike `tmp_path`; two events wait there."""
    with tempfile.TemporaryDirectory() as name:
        common = Path(name)
        common.chmod(0o755)
        (common / "tmp").mkdir()
        (common / "tmp").chmod(0o777)
        (common / "usage").mkdir()
        journal, _ = journal_at(common / "usage")
        for number in range(2):
            journal.append(line_of(number))
        journal.close()
        yield common
        (common / "usage").chmod(0o700)


def typed(common: Path, *words: str) -> tuple[int, str, str]:
    """The code that a command ends with, and what it says, to who has few rights."""
    code, out, err = json.loads(run(TYPED, common, json.dumps(words)))
    return code, out, err


def allow(common: Path, mode: int) -> None:
    """What others may do with home; where nobody is root it is its owner who may do no more."""
    every = [common / "usage", *(common / "usage").rglob("*")]
    for each in reversed(every):
        each.chmod(mode if each.is_dir() else mode & 0o666)
        if os.geteuid() == 0 and each != every[0]:
            os.chown(each, 65534, 65534)


ERASE = ("erase", "--customer", "acme", "--yes")


@pytest.mark.parametrize("words", [("drain",), ERASE, ("prune", "--before", "0d", "--yes")])
def test_a_home_that_may_only_be_read_is_not_said_to_be_empty(common: Path, words: tuple[str, ...]) -> None:
    """A command that would write says that it cannot, and does nothing."""
    allow(common, 0o555)
    code, out, err = typed(common, *words)
    assert (code, out) == (2, "")
    assert f"{common / 'usage'} cannot be written: type this as the user whose files these are" in err


def test_a_home_that_may_only_be_read_is_read(common: Path) -> None:
    """A command that only reads shows what is there: a volume is mounted like that for who reports."""
    allow(common, 0o555)
    code, out, _ = typed(common, "stats", "--format", "json")
    (sink,) = json.loads(out)["sinks"]
    assert (code, sink["sink"], sink["pending_events"]) == (0, SINK, 2)


@pytest.mark.parametrize("words", [("stats",), ERASE])
def test_a_home_that_may_not_be_read_is_not_said_to_be_empty(common: Path, words: tuple[str, ...]) -> None:
    """It says so, whatever was asked."""
    (common / "usage").chmod(0o700 if os.geteuid() == 0 else 0)
    code, out, err = typed(common, *words)
    assert (code, out) == (2, "")
    assert f"{common / 'usage'} cannot be read" in err
