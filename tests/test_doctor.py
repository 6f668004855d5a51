"""The doctor: what it finds, and that its proof proves."""

from __future__ import annotations

import io
import json
import os
import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from rich.cells import cell_len
from rich.console import Console
from typer.testing import CliRunner

from cmdrdata_transport.cli.app import app
from cmdrdata_transport.cli.doctor import _conclude, _setup_table
from cmdrdata_transport.counters import WARNINGS, Counters
from cmdrdata_transport.dead_letters import write_dead_letter
from cmdrdata_transport.demo.calls import EVERY_SDK, CalledSdk, SdkCall
from cmdrdata_transport.doctor import LATE_SECONDS, Proofs, examine, installed_sdks, prove
from cmdrdata_transport.event import UsageEvent
from cmdrdata_transport.jobs import Jobs
from cmdrdata_transport.journal import Journal
from cmdrdata_transport.remedies import REMEDIES
from cmdrdata_transport.sinks import open_sink
from cmdrdata_transport.tallies import Tallies

if TYPE_CHECKING:
    from pathlib import Path

LEDGER = "sqlite:///usage.db"
OPENAI = EVERY_SDK[0]
INSTALLED = [sdk for sdk in EVERY_SDK if sdk.installed]
CALLS = 2 * sum(len(sdk.calls) for sdk in INSTALLED)
EVENT = UsageEvent(
    event_id="1",
    timestamp="2026-11-01T12:00:00.000000Z",
    provider="openai",
    usage_status="complete",
    outcome="ok",
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home that the environment configures, and nothing else that it does."""
    for name in [name for name in os.environ if name.startswith("CMDRDATA_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CMDRDATA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path / "home"


def only(call: SdkCall) -> CalledSdk:
    """The openai SDK with one call."""
    return replace(OPENAI, calls=(call,))


def test_the_family_of_each_sdk() -> None:
    """Each installed SDK is named with its version, and the library its own client is of."""
    found = {each.name: each for each in installed_sdks()}
    assert {name: (found[name].library or "").partition(" ")[0] for name in ("openai", "groq")} == {
        "openai": "httpx2",
        "groq": "httpx",
    }
    assert found["anthropic"].advice == 'tracked_http_client("anthropic")'


def test_every_installed_sdk_is_metered(home: Path) -> None:
    """Each call of each SDK, sync and async, is recorded to the token; the home stays untouched."""
    proofs = prove()
    assert len(proofs.calls) == CALLS > 0
    assert [each for each in proofs.calls if not each.metered] == []
    assert proofs.losses == {}
    assert not home.exists()


def test_what_is_not_recorded_is_not_proved(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where tracking is off, every call is found unmetered."""
    monkeypatch.setenv("CMDRDATA_DISABLED", "1")
    proofs = prove([only(OPENAI.calls[0])])
    assert [(each.metered, each.detail) for each in proofs.calls] == [(False, "nothing was recorded")] * 2


def test_a_call_that_fails_is_not_proved(home: Path) -> None:
    """What an SDK raises is told of its call, and the others are made all the same."""

    def fail(client: Any, headers: Any) -> Any:
        raise LookupError("no such model")

    proofs = prove([replace(OPENAI, calls=(SdkCall(name="broken", make=fail), OPENAI.calls[0]))])
    assert [(each.call, each.metered) for each in proofs.calls] == [("broken", False), ("chat", True)] * 2
    assert proofs.calls[0].detail == "the call failed: LookupError: no such model"


def test_where_there_is_no_temporary_directory(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a read-only container: home serves, and nothing of it stays; without it nothing is called."""
    monkeypatch.setattr(tempfile, "tempdir", f"{os.devnull}/none")
    before = sorted(tmp_path.iterdir())
    assert [each.metered for each in prove([only(OPENAI.calls[0])], home=tmp_path).calls] == [True] * 2
    assert sorted(tmp_path.iterdir()) == before
    assert prove([only(OPENAI.calls[0])], home=home).calls == ()
    assert installed_sdks()


def test_an_sdk_that_cannot_be_made_is_not_proved(home: Path) -> None:
    """An SDK whose client can't be made fails for all of its calls, and for them only."""

    def fail(module: Any, url: str, http: Any) -> Any:
        raise TypeError("takes no http_client")

    proofs = prove([replace(OPENAI, connect=fail, calls=OPENAI.calls[:1])])
    assert [(each.asynchronous, each.metered) for each in proofs.calls] == [(False, False), (True, True)]


def test_an_answer_without_usage_proves_nothing(home: Path) -> None:
    """A call that uses nothing is answered with no usage, so nothing can be held against it."""

    def silent(client: Any, headers: Any) -> Any:
        return client.models.list(extra_headers=headers)

    proofs = prove([only(SdkCall(name="silent", make=silent))])
    assert {each.detail for each in proofs.calls} == {"0 answers stated what they used"}


def test_what_is_not_recorded_as_it_was_stated_is_not_proved(home: Path) -> None:
    """An answer read by another provider's table, and so by a wrong rule, is told unit by unit."""
    xai = next(sdk for sdk in EVERY_SDK if sdk.provider == "x-ai")
    proofs = prove([replace(xai, provider="openai", calls=xai.calls[:1])])
    assert [each.metered for each in proofs.calls] == [False] * 2
    assert all("provider_cost is 0." in each.detail for each in proofs.calls)
    assert all("None was recorded" in each.detail for each in proofs.calls)


def test_a_home_that_is_well(home: Path) -> None:
    """A home that is not there yet has nothing in it and no problem; looking does not make it."""
    setup = examine()
    assert (setup.home, setup.sinks) == (home, (LEDGER,))
    assert (setup.pending, setup.dead, setup.torn) == ((), (), ())
    assert setup.problems == ()
    assert not home.exists()


def test_what_a_home_holds(home: Path) -> None:
    """Recorded, pending and rejected events are counted, with what was set aside as damaged."""
    outlet = open_sink(LEDGER, home=home, environ={})
    outlet.send([EVENT.to_json()])
    outlet.close()
    journal = Journal(home, sinks=[LEDGER, "callable:bill"], counters=Counters())
    journal.append(EVENT.to_json())
    journal.append(EVENT.to_json())
    write_dead_letter(home, "callable:bill", EVENT.to_json(), "no such account")
    (home / "journal" / "some-5.torn").write_bytes(b"half a rec")
    setup = examine()
    assert dict(setup.recorded) == {"complete": 1}
    assert {(each.sink, each.events, each.live) for each in setup.pending} == {
        (LEDGER, 2, True),
        ("callable:bill", 2, True),
    }
    assert [(each.sink, each.number) for each in setup.dead] == [("callable:bill", 1)]
    assert [(each.path.name, each.events) for each in setup.torn] == [("some-5.torn", 0)]
    journal.close()
    assert [each.live for each in examine().pending] == [False, False]
    done = CliRunner().invoke(app, ["doctor"])
    for said in (
        "1 events; their usage: 1 complete",
        f"2 events for {LEDGER}: type cmdrdata-transport drain",
        "2 events for callable:bill, which its own program delivers",
        "1 events, by callable:bill (1: no such account), kept in",
        "Put the cause right, then type cmdrdata-transport replay",
        "a piece of the journal, set aside as",
        f"All {CALLS} calls are metered, to the token.",
        "Something waits for you",
    ):
        assert said in done.stdout
    assert done.exit_code == 1
    said = json.loads(CliRunner().invoke(app, ["doctor", "--format", "json"]).stdout)
    assert (said["good"], said["home"], said["recorded"]) == (False, str(home), {"complete": 1})
    assert [(each["sink"], each["events"], each["reasons"]) for each in said["rejected"]] == [
        ("callable:bill", 1, {"no such account": 1})
    ]
    assert {(each["sink"], each["events"], each["live"]) for each in said["pending"]} == {
        (LEDGER, 2, False),
        ("callable:bill", 2, False),
    }
    assert len(said["calls"]) == CALLS
    assert all(each["metered"] for each in said["calls"])


@pytest.mark.parametrize("width", [40, 80, 120])
def test_a_page_is_as_wide_as_the_terminal(home: Path, width: int) -> None:
    """Long names of sinks and files are folded, and nothing of them is left out."""
    sink = f"kafka://{','.join(f'broker-{number}.example.com:9093' for number in range(9))}/usage"
    journal = Journal(home, sinks=[sink], counters=Counters())
    journal.append(EVENT.to_json())
    journal.close()
    write_dead_letter(home, sink, EVENT.to_json(), "a reason that is long " * 10)
    Tallies(home, tracker="default", service=None).keep(dict.fromkeys(WARNINGS, 1), now=True)
    out = Console(width=width, file=io.StringIO(), highlight=False)
    out.print(_setup_table(examine(), installed_sdks()))
    shown = out.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(cell_len, shown.splitlines())) <= width
    for said in (f"1 events for {sink}, which is no sink here", *WARNINGS, *REMEDIES.values()):
        assert "".join(said.split()) in "".join(shown.split())


def test_what_was_counted_and_what_is_awaited(home: Path) -> None:
    """Losses and measures of every process of the home are shown, and jobs that nobody was told of."""
    Tallies(home, tracker="default", service=None).keep({"missing": 2, "injected": 3, "events": 9}, now=True)
    jobs = Jobs(home, lambda *_: None)
    for number in range(12):
        jobs.remember("api.openai.com", f"batch_{number}", {"customer_id": "acme", "provider": "openai"})
    jobs.finish("api.openai.com", "batch_0", "acme", None)
    setup = examine()
    assert dict(setup.counted) == {"missing": 2, "injected": 3, "events": 9}
    assert {each["name"] for each in setup.jobs} == {f"batch_{number}" for number in range(1, 12)}
    shown = " ".join(CliRunner().invoke(app, ["doctor"]).stdout.split())
    assert "2 missing: an answer carried no usage" in shown
    assert "in the last month: 9 events, 3 injected" in shown
    assert "of openai, for acme" in shown
    assert "to do: include_usage=True for chat streams" in shown
    assert "and 6 more" in shown
    assert "boto3" in shown


def test_what_waits_for_long_waits_for_somebody(home: Path) -> None:
    """Whatever keeps a sink from taking events, after an hour the doctor is not content; before, it is."""
    out = Console(width=200, file=io.StringIO())
    for age, good in ((LATE_SECONDS / 2, True), (LATE_SECONDS * 2, False)):
        made = datetime.now(UTC) - timedelta(seconds=age)
        journal = Journal(home, sinks=[LEDGER], counters=Counters())
        journal.append(replace(EVENT, timestamp=f"{made:%Y-%m-%dT%H:%M:%S.%f}Z").to_json())
        journal.close()
        assert _conclude(out, examine(), Proofs(calls=(), losses={})) is good
    out.print(_setup_table(examine(), []))
    shown = out.file.getvalue()  # type: ignore[attr-defined]
    assert shown.count("Something waits for you: see what is pending") == 1
    assert f"what waits for {LEDGER} began 2 h ago" in shown


@pytest.mark.parametrize(
    ("blocks", "files", "says"), [(3, 9, "is full: make room"), (9**9, 0, "has no room for one more file")]
)
def test_a_disk_that_is_full(
    home: Path, monkeypatch: pytest.MonkeyPatch, blocks: int, files: int, says: str
) -> None:
    """It is named, with what becomes of events, whatever a ledger says about it."""
    left = os.statvfs_result((4096, 4096, 9**9, blocks, blocks, 9**9, files, files, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: left)
    (problem,) = examine().problems
    assert problem.startswith(f"the disk that {home} is on {says}")


def test_a_home_that_cannot_be_written(home: Path) -> None:
    """A home below a file is a problem; so is tracking that is switched off."""
    home.write_text("a file")
    setup = examine(home / "below")
    assert setup.problems == (f"{home} cannot be written; events go to a temporary directory, {setup.home}",)


URL = "https://meter.example/in"


@pytest.mark.parametrize(
    ("url", "key", "sinks", "said"),
    [
        (URL, "", "", "CMDRDATA_URL is set, and nothing goes there"),
        (URL, "cmd-1", LEDGER, "CMDRDATA_URL is set, and nothing goes there"),
        ("", "cmd-1", LEDGER, "CMDRDATA_API_KEY is set, and no sink takes it"),
        (URL, "cmd-1", "", ""),
        ("", "cmd-1", f"{LEDGER} {URL}", ""),
    ],
)
def test_a_receiver_that_nothing_goes_to(
    *, home: Path, monkeypatch: pytest.MonkeyPatch, url: str, key: str, sinks: str, said: str
) -> None:
    """A variable that has no effect alone, or beside another: who has set it is told what is missing."""
    for name, value in (("URL", url), ("API_KEY", key), ("SINKS", sinks)):
        monkeypatch.setenv(f"CMDRDATA_{name}", value)
    assert [each.partition(":")[0] for each in examine().problems] == ([said] if said else [])


def test_a_ledger_that_cannot_be_read(home: Path) -> None:
    """A file that is no ledger, in its place, is a problem: nothing can be delivered to it."""
    home.mkdir()
    (home / "usage.db").write_bytes(b"not a database, but long enough to look like one " * 4)
    (problem,) = examine().problems
    assert problem == f"{home / 'usage.db'} cannot be read as a ledger: file is not a database"


def pretend_to_install(place: Path, **requirements: str) -> None:
    """Write down there that these are installed, and what each of them requires."""
    for name, requirement in requirements.items():
        (place / f"{name}-1.0.dist-info").mkdir(parents=True)
        said = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: {requirement}\n"
        (place / f"{name}-1.0.dist-info" / "METADATA").write_text(said)


def test_the_command_says_what_is_wrong(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not metered and why is on the page, and the exit code is not 0."""
    pretend_to_install(tmp_path / "site", voyageai="requests", ollama="httpx>=0.27")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setenv("CMDRDATA_DISABLED", "yes")
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert "NOT METERED: nothing was recorded" in result.stdout
    assert "CMDRDATA_DISABLED is set: nothing is recorded" in result.stdout
    assert f"{CALLS} of {CALLS} calls are not metered." in result.stdout
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["ollama", "1.0", "httpx", "client", "=", "track(ollama.Client())"] in lines
    assert ["voyageai", "1.0", "-", "out", "of", "reach,", "see", "below"] in lines
    assert "voyageai passes its calls through neither httpx nor httpx2" in result.stdout
