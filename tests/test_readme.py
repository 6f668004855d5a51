"""The README is true, and the pages that it leads to: recipes run as they stand, commands work, names exist.

Recipes talk to the scripted provider, to which the SDKs' own environment variables point. What a block
cannot show (somebody who calls the web application, the events that must come of it) is in `RECIPES`.
The recipes of `docs/by-hand.md` need other servers: `environments/test_elsewhere.py` runs them.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kafka_cluster import Cluster
from postgres import running
from receivers import Collector, serving

import cmdrdata_transport
from cmdrdata_transport import Tracker, UsageEvent, configure, default_tracker, uninstrument
from cmdrdata_transport import tracker as tracker_module
from cmdrdata_transport.cli.app import app
from cmdrdata_transport.counters import WARNINGS
from cmdrdata_transport.demo.calls import EVERY_SDK
from cmdrdata_transport.demo.loopback import Answer, Call, Loopback
from cmdrdata_transport.demo.provider import Provider
from cmdrdata_transport.ledger import Ledger
from cmdrdata_transport.providers import PROVIDERS
from cmdrdata_transport.providers.openai import ENDPOINTS
from cmdrdata_transport.providers.own import WORDS, from_toml
from cmdrdata_transport.providers.table import Provider as ProviderTable
from cmdrdata_transport.remedies import REMEDIES
from cmdrdata_transport.sinks import http
from cmdrdata_transport.sinks.kafka import target as kafka
from cmdrdata_transport.sinks.otlp import target as otlp
from cmdrdata_transport.testing import capture_usage

pytestmark = pytest.mark.usefixtures("one_certificate")

ROOT = Path(__file__).parent.parent
PAGES = {
    page: page.read_text("utf-8") for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
README = PAGES[ROOT / "README.md"]
PACKAGE = ROOT / "cmdrdata_transport"


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block: its page, the heading above it, its language, its text."""

    page: Path
    heading: str
    language: str
    text: str


def blocks() -> Iterator[Block]:
    """Every fenced block of every page."""
    fences = re.compile(
        r"^#+ (?P<heading>[^\n]+)$|^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
    )
    for page, text in PAGES.items():
        heading = ""
        for match in fences.finditer(text):
            if match["heading"]:
                heading = match["heading"]
            else:
                yield Block(page=page, heading=heading, language=match["language"], text=match["text"])


BLOCKS = tuple(blocks())

SHOWN = tuple(block for block in BLOCKS if block.language == "python" and block.page.name != "by-hand.md")
"""The recipes that talk to the scripted provider."""

Namespace = dict[str, Any]


def nothing(_: Namespace) -> None:
    """The block does everything itself."""


def call_fastapi(names: Namespace) -> None:
    """Two customers call both endpoints."""
    from fastapi.testclient import TestClient  # noqa: PLC0415 - costs a second, and one test needs it

    with TestClient(names["app"]) as browser:
        for path, customer in (("/ask", "acme"), ("/stream", "globex")):
            answer = browser.post(path, params={"question": "?"}, headers={"X-Customer": customer})
            assert (answer.status_code, bool(answer.text)) == (200, True)
        assert browser.portal is not None
        browser.portal.call(names.pop("async_client").close)


def call_flask(names: Namespace) -> None:
    """Two customers call, on one thread, and then something that is nobody's."""
    browser = names["app"].test_client()
    for customer in ("acme", "globex"):
        answer = browser.post("/ask", data="?", headers={"X-Customer": customer})
        assert (answer.status_code, bool(answer.text)) == (200, True)
    names["client"].responses.create(model="gpt-5-mini", input="?")


def invoke(names: Namespace) -> None:
    """The function is called by two customers, one after the other."""
    for customer in ("acme", "globex"):
        assert names["handler"]({"customer": customer, "question": "?"}, None)


def deliver_beside(_: Namespace) -> None:
    """The sidecar runs until all is delivered."""
    with subprocess.Popen([sys.executable, "-m", "cmdrdata_transport", "drain", "--follow"]) as sidecar:
        assert default_tracker().flush(60)
        sidecar.terminate()
        assert sidecar.wait(60) == 0


def call_the_test(names: Namespace) -> None:
    """Run the test that is shown, as pytest would."""
    with capture_usage() as events:
        names["test_acme_pays"](events)


@contextmanager
def nowhere() -> Iterator[str]:
    """The block needs no server of its own."""
    yield ""


@contextmanager
def brokers() -> Iterator[str]:
    """Kafka, in which the one event is."""
    cluster = Cluster()
    yield cluster.hosts
    (message,) = cluster.read(1)
    assert message.key() == b"acme"
    cluster.close()


@contextmanager
def database() -> Iterator[str]:
    """A PostgreSQL, in which the one event is."""
    with running() as server:
        name = server.new_database()
        yield server.url(name).removeprefix("postgresql://")
        with server.connect(name) as connection:
            told = connection.execute("SELECT customer_id, usage_status FROM usage_events").fetchall()
        assert told == [("acme", "complete")]


@contextmanager
def collector() -> Iterator[str]:
    """A receiver of OTLP, which has the one event, and its tokens."""
    with serving(Collector()) as server:
        yield server.url.rpartition("/")[2]
        assert len(server.ids()) == 1
        tokens = server.points("gen_ai.client.token.usage")
        assert [labels["gen_ai.token.type"] for labels, _ in tokens] == ["input", "output"]


def billed_once(names: Namespace) -> None:
    """The reader has the event."""
    (event,) = names["billed"].values()
    assert (event["customer_id"], event["usage_status"]) == ("acme", "complete")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What else is done with a block, and the events that must be in the ledger then, in any order.

    An event is told as "customer, requested model, usage_status", and its metadata if it has any.
    `claimed`: only the hosts of tables are metered, so a table has to name this one. `server` is what
    the block reaches `at` an address, which is not there.
    """

    events: tuple[str, ...]
    then: Callable[[Namespace], None] = nothing
    claimed: bool = False
    server: Callable[[], AbstractContextManager[str]] = nowhere
    at: str = ""


HERE = ProviderTable(id="openai", hosts=("127.0.0.1",), endpoints=ENDPOINTS)


RECIPES = {
    "cmdrdata-transport": Recipe(
        events=('acme gpt-5 complete {"feature": "chat"}', "globex gpt-5-mini complete")
    ),
    "OpenAI": Recipe(
        events=(
            "acme gpt-5 complete",
            "acme gpt-5 complete",
            "acme text-embedding-3-small complete",
        )
    ),
    "Anthropic": Recipe(events=("acme claude-haiku-4-5 complete",) * 2),
    "Google": Recipe(
        events=(
            "acme gemini-2.5-flash complete",
            "acme gemini-2.5-flash complete",
            "acme gemini-embedding-001 complete",
        )
    ),
    "Groq": Recipe(events=("acme llama-3.3-70b-versatile complete",) * 2),
    "Objects that exist already": Recipe(
        events=("acme claude-haiku-4-5 complete", "acme gemini-2.5-flash complete")
    ),
    "Every client of a process": Recipe(events=("acme gpt-5-mini complete",), claimed=True),
    "Async": Recipe(events=("acme gpt-5-mini complete", "globex gpt-5-mini complete")),
    "FastAPI": Recipe(
        events=(
            'acme gpt-5-mini complete {"app": "zoo"}',
            'globex gpt-5-mini complete {"app": "zoo"}',
        ),
        then=call_fastapi,
    ),
    "Flask": Recipe(
        events=(
            'acme gpt-5-mini complete {"app": "zoo"}',
            'globex gpt-5-mini complete {"app": "zoo"}',
            "nobody gpt-5-mini complete",
        ),
        then=call_flask,
    ),
    "One call, or one copy of a client": Recipe(
        events=(
            'acme gpt-5-mini complete {"feature": "export"}',
            "globex gpt-5-mini complete",
            "initech gemini-2.5-flash complete",
        )
    ),
    "Functions, threads, and calls that are nobody's": Recipe(
        events=(
            'acme gpt-5-mini complete {"job": "report"}',
            "globex gpt-5-mini complete",
            "house gpt-5-mini complete",
        )
    ),
    "Your own sink": Recipe(events=("acme gpt-5-mini complete",)),
    "Other clients, other servers": Recipe(events=("acme llama-3.3-70b-versatile complete",)),
    "By hand": Recipe(events=("acme amazon.nova-pro-v1:0 complete",)),
    "Tests of your application": Recipe(events=(), then=call_the_test),
    "PostgreSQL": Recipe(events=(), server=database, at="meter:secret@localhost/usage"),
    "Kafka": Recipe(
        events=("acme gpt-5-mini complete",), then=billed_once, server=brokers, at="localhost:9092"
    ),
    "OpenTelemetry": Recipe(events=("acme gpt-5-mini complete",), server=collector, at="localhost:4318"),
    "AWS Lambda and the like": Recipe(
        events=("acme gpt-5-mini complete", "globex gpt-5-mini complete"), then=invoke
    ),
    "A sidecar": Recipe(events=("acme gpt-5-mini complete",), then=deliver_beside),
}
"""By the heading above the block."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's machine, whose providers are here, and whose default tracker is new."""
    for name in list(os.environ):
        if name.startswith("CMDRDATA_"):
            monkeypatch.delenv(name)
    with Loopback(Provider(seed=1)) as server:
        for name, value in {
            "CMDRDATA_HOME": str(tmp_path / "home"),
            "OPENAI_BASE_URL": f"{server.url}/v1",
            "OPENAI_API_KEY": "none",
            "ANTHROPIC_BASE_URL": server.url,
            "ANTHROPIC_API_KEY": "none",
            "GOOGLE_GEMINI_BASE_URL": server.url,
            "GEMINI_API_KEY": "none",
            "GROQ_BASE_URL": server.url,
            "GROQ_API_KEY": "none",
        }.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(tracker_module, "_default", None)
        configure()
        yield tmp_path / "home"
        uninstrument()


def run(block: Block, then: Callable[[Namespace], None] = nothing, at: str = "", address: str = "") -> None:
    """Run a block as the program that it is, and let go of its clients."""
    names: Namespace = {"__name__": "recipe"}
    # Some recipes name a server of their reader's, which is not there.
    source = block.text.replace("http://127.0.0.1:8000", os.environ["GROQ_BASE_URL"])
    if at:
        assert at in source
        source = source.replace(at, address)
    exec(compile(source, f"README.md: {block.heading}", "exec"), names)
    then(names)
    for value in list(names.values()):
        if hasattr(type(value), "close"):
            value.close()


def told(event: UsageEvent) -> str:
    """An event as `Recipe` tells it."""
    model = event.request_model or event.model
    metadata = f" {json.dumps(dict(event.metadata))}" if event.metadata else ""
    return f"{event.customer_id or 'nobody'} {model} {event.usage_status}{metadata}"


def recorded(home: Path) -> list[str]:
    """What is in the ledger."""
    tracker = default_tracker()
    assert tracker.flush(30)
    tracker.close()
    if not (home / "usage.db").exists():
        return []
    with Ledger.open(home / "usage.db") as ledger:
        return [told(entry.event) for entry in ledger.events()]


@pytest.mark.parametrize("block", SHOWN, ids=lambda block: block.heading)
def test_recipes(block: Block, home: Path) -> None:
    """A recipe runs as it stands, and exactly the events that it promises are in the ledger."""
    recipe = RECIPES[block.heading]
    if recipe.claimed:
        configure(providers=[HERE])
    with recipe.server() as address:
        run(block, recipe.then, recipe.at, address)
        assert sorted(recorded(home)) == sorted(recipe.events)


# --- the first screen ---


def stated_by_the_first_screen(call: Call) -> Answer:
    """What OpenAI says to the first block, whatever release of the SDK asks."""
    asked = call.json()
    usage = {
        "input_tokens": 1725 if asked["model"] == "gpt-5" else 640,
        "input_tokens_details": {"cached_tokens": 1024 if asked["model"] == "gpt-5" else 0},
        "output_tokens": 353 if asked["model"] == "gpt-5" else 87,
        "output_tokens_details": {"reasoning_tokens": 192 if asked["model"] == "gpt-5" else 0},
    }
    response = {"id": "resp_1", "model": asked["model"], "output": [], "status": "completed", "usage": usage}
    if not asked.get("stream"):
        return Answer.json(response)
    event = {"type": "response.completed", "sequence_number": 0, "response": response}
    return Answer(
        headers=[("content-type", "text/event-stream")],
        body=f"event: response.completed\ndata: {json.dumps(event)}\n\n".encode(),
    )


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line, as a user types it; not in a terminal."""
    return subprocess.run(
        [sys.executable, "-m", "cmdrdata_transport", *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONUTF8": "1", "COLUMNS": "100"},
        check=False,
    )


def test_the_first_screen(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first block, as a program that runs and ends, and what `report` prints then, to the letter."""
    code, shown = (
        block
        for block in BLOCKS
        if block.heading == "cmdrdata-transport" and block.language in ("python", "console")
    )
    with Loopback(stated_by_the_first_screen) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        subprocess.run([sys.executable, "-c", code.text], check=True, capture_output=True)
    typed, _, printed = shown.text.partition("\n")
    done = command(*typed.removeprefix("$ cmdrdata-transport ").split())
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.rstrip() for line in done.stdout.splitlines() if line.strip()] == [
        line for line in printed.splitlines() if line.strip()
    ]


# --- the names ---

SHELL = "".join(block.text for block in BLOCKS if block.language == "sh")
SOURCES = "".join(path.read_text("utf-8") for path in sorted(PACKAGE.rglob("*.py")))


def test_commands(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command line that is shown works; `doctor`, which calls every SDK, is asked for its help."""
    monkeypatch.chdir(tmp_path)
    block = next(block for block in BLOCKS if block.heading == "Anthropic")
    run(block)
    assert recorded(home)
    lines = [line.split() for line in SHELL.splitlines() if line.startswith("cmdrdata-transport ")]
    assert len(lines) >= 5
    for _, *arguments in lines:
        done = command(*arguments, *(["--help"] if arguments == ["doctor"] else []))
        assert (done.returncode, done.stderr) == (0, ""), arguments
        assert done.stdout or "--output" in arguments
    shown = {name for _, name, *_ in lines} | {"demo"}  # which is in a sentence
    assert shown == {each.callback.__name__ for each in app.registered_commands if each.callback}


def test_options_that_are_named() -> None:
    """An option that the text names is one of its command's."""
    named = re.findall(r"cmdrdata-transport (\w+)[^`\n]*? (--\w+)", README)
    assert named
    for name, option in named:
        assert option in command(name, "--help").stdout


def test_what_is_installed() -> None:
    """The extras and the make targets that are named exist."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = set(re.findall(r"cmdrdata-transport\[(\w+)\]", README))
    assert extras
    assert extras <= set(project["optional-dependencies"])
    assert f"Python {project['requires-python'].removeprefix('>=')} or newer" in README
    targets = set(re.findall(r"^make ([\w-]+)", SHELL, re.MULTILINE))
    assert targets
    assert targets <= set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


def test_environment_variables() -> None:
    """The variables that are explained are those that are read."""
    variable = re.compile(r"\bCMDRDATA_[A-Z]+(?:_[A-Z]+)*\b")
    assert set(variable.findall(README)) == set(variable.findall(SOURCES))


def test_options_of_a_tracker() -> None:
    """Each is named, and so can be found."""
    assert [each for each in inspect.signature(Tracker).parameters if f"{each}=" not in README] == []


@pytest.mark.parametrize(
    ("heading", "options"),
    [("HTTP", http.OPTIONS), ("Kafka", kafka.OPTIONS), ("OpenTelemetry", otlp.OPTIONS)],
)
def test_options_of_urls(heading: str, options: tuple[str, ...]) -> None:
    """The options of a sink's URL that are explained are those that it takes."""
    section = PAGES[ROOT / "docs" / "sinks.md"].partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`\?[^|]+) \|", section, re.MULTILINE)
    assert sorted(re.findall(r"`\?(\w+)=", " ".join(rows))) == sorted(options)


def test_counters() -> None:
    """Every count that is worth a warning is explained, and none that there is not."""
    table = README.partition("## Troubleshooting")[2].partition("\n## ")[0]
    names = [row.split("|")[1] for row in re.findall(r"^\|.*", table, re.MULTILINE)]
    explained = set(re.findall(r"`([a-z_]+)`", "".join(names)))
    explained -= {"events"}
    assert set(WARNINGS) <= explained
    for row in re.findall(r"^\|.*", table, re.MULTILINE):
        _, said, _, remedy, _ = row.replace("`", "").split("|")
        for name in WARNINGS.keys() & set(re.findall(r"\w+", said)):
            assert REMEDIES[name] == remedy.strip()
    assert REMEDIES.keys() == WARNINGS.keys()
    assert not [name for name in explained if f'"{name}"' not in SOURCES]


@pytest.mark.parametrize("name", [name for name in cmdrdata_transport.__all__ if name != "__version__"])
def test_public_names(name: str) -> None:
    """Everything public is shown or named."""
    assert re.search(rf"\b{name}\b", README)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links(page: Path) -> None:
    """Links lead somewhere: to a heading of a page, or to a file."""
    for target in re.findall(r"\]\(([^)]+)\)", PAGES[page]):
        file, _, heading = target.partition("#")
        place = (page.parent / file).resolve() if file else page
        assert place.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.+)$", PAGES[place], re.MULTILINE)
            assert heading in {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


def test_every_page_is_led_to() -> None:
    """No page is one that the README does not name."""
    assert {page.name for page in PAGES if page.parent != ROOT} <= set(re.findall(r"\(docs/([^)#]+)", README))


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.language == "toml"], ids=lambda block: block.page.name
)
def test_the_providers_that_are_shown_can_be_used(block: Block) -> None:
    """A file of TOML is taken as it stands."""
    (table,) = from_toml(tomllib.loads(block.text), block.page.name, PROVIDERS)
    assert "openai.chat_completions" in {each.shape.api for each in table.endpoints if each.shape is not None}


def test_every_word_of_a_table_is_explained() -> None:
    """The page on own providers names each word that a table may have, and none that it may not."""
    page = PAGES[ROOT / "docs" / "own-providers.md"]
    rows = re.findall(r"^\| (`[^|]+) \|", page.partition("## The words")[2], re.MULTILINE)
    named = {word for row in rows for word in re.findall(r"`(\w+)`", row)}
    assert named == {word for words in WORDS.values() for word in words} - {"endpoint"}


def test_the_event_that_is_shown() -> None:
    """The example is a whole event of the published format, and has no field that is not in it."""
    [shown] = [block.text for block in BLOCKS if block.language == "json"]
    event = UsageEvent.from_json(shown.encode())
    assert event.extra == {}
    assert event.to_dict() == json.loads(shown)
    usage = event.usage
    assert (usage.input_tokens or 0) + (usage.output_tokens or 0) == usage.total_tokens


def test_every_call_that_leaves_elsewhere_is_named() -> None:
    """An SDK that sends a call later than it is made, or from another thread, is in the table of those."""
    table = README.partition("### Calls whose request leaves in another context")[2].partition("\n## ")[0]
    elsewhere = {
        sdk.sdk or sdk.name for sdk in EVERY_SDK for call in sdk.calls if call.later or call.elsewhere
    }
    assert elsewhere
    assert [name for name in elsewhere if name.removesuffix("-sdk") not in table] == []


def test_every_recipe_is_there() -> None:
    """No expectation is left of a recipe that went."""
    assert {block.heading for block in SHOWN} == set(RECIPES)
