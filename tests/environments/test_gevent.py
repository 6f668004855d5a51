"""Programs whose threads are greenlets: gevent has put its own in place of sockets, threads and sleep.

First of all, as it should be, or late, after this library was imported: so does gunicorn where it loads
the application before it forks. Runs where gevent and gunicorn are installed: `run.py` says where.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from fleet import LEDGER, PRELOADED, WORKERS, fleet

from cmdrdata_transport.adopting import drain
from cmdrdata_transport.demo.loopback import Loopback
from cmdrdata_transport.demo.provider import Provider
from cmdrdata_transport.ledger import Ledger
from cmdrdata_transport.segments import segments

PATCH = "from gevent import monkey\nmonkey.patch_all()\n"

SETTING_UP = """
import gevent, json, os, sys, time
from gevent.pool import Pool
from openai import OpenAI
from cmdrdata_transport import configure, customer_context, get_customer_context, tracked_http_client
options = json.loads(sys.argv[1])
ASK = {"model": "gpt-5", "messages": [{"role": "user", "content": "Hello"}]}
USAGE = {"include_usage": True}
"""

CALLS = """
tracker = configure(**options)
client = OpenAI(api_key="k", http_client=tracked_http_client("openai"))
seen = []

def call(number):
    customer = f"customer-{number % 5}"
    with customer_context(customer):
        gevent.sleep(0.001 * (number % 3))
        seen.append((customer, client.chat.completions.create(**ASK).id))
        for chunk in client.chat.completions.create(**ASK, stream=True, stream_options=USAGE):
            gevent.sleep(0)
            assert get_customer_context() == customer
        seen.append((customer, chunk.id))

def call_at_once(number):
    pool = Pool(10)
    for each in range(number):
        pool.spawn(call, each)
    pool.join(raise_error=True)
"""


BEATS = """
def longest_pause(seconds):
    moments = [time.monotonic()]
    while moments[-1] - moments[0] < seconds:
        time.sleep(0.01)
        moments.append(time.monotonic())
    return max(after - before for before, after in zip(moments, moments[1:]))
"""


def run(code: str, home: Path, *, url: str = "", late: bool = False, **options: Any) -> list[Any]:
    """Run a program that gevent has patched; the lines of JSON that it prints."""
    parts = (SETTING_UP, PATCH) if late else (PATCH, SETTING_UP)
    done = subprocess.run(
        [sys.executable, "-c", "".join(parts) + dedent(code), json.dumps({"home": str(home), **options})],
        capture_output=True,
        env={**os.environ, "OPENAI_BASE_URL": f"{url}/v1"},
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()]


def told(home: Path) -> Counter[tuple[str | None, str | None]]:
    """Customer and answer of each event of the ledger."""
    with Ledger.open(LEDGER, home=home) as ledger:
        return Counter((entry.event.customer_id, entry.event.response_id) for entry in ledger.events())


@pytest.fixture
def url() -> Any:
    """A provider on this machine."""
    with Loopback(Provider(seed=1, gzipped=0.3)) as server:
        yield server.url


@pytest.mark.parametrize("late", [False, True], ids=["first", "late"])
@pytest.mark.parametrize("durability", ["process", "fsync"])
@pytest.mark.parametrize("delivery", ["background", "flush", "external"])
def test_each_greenlet_has_a_customer_of_its_own(
    tmp_path: Path, url: str, delivery: str, durability: str, *, late: bool
) -> None:
    """Calls of many greenlets at once, whole and streamed, are each in the ledger once, with its customer."""
    [seen] = run(
        CALLS
        + """
call_at_once(40)
if options["delivery"] == "flush":
    assert tracker.flush(30)
print(json.dumps(seen))  # and it just ends
""",
        tmp_path,
        url=url,
        late=late,
        sinks=[LEDGER],
        delivery=delivery,
        durability=durability,
    )
    if delivery == "external":
        drain(tmp_path, environ={})
    assert len(seen) == 80
    assert told(tmp_path) == Counter(map(tuple, seen))
    assert segments(tmp_path / "journal") == []


@pytest.mark.parametrize("late", [False, True], ids=["first", "late"])
@pytest.mark.parametrize("delivery", ["background", "flush"])
def test_a_slow_sink_holds_up_no_greenlet(tmp_path: Path, delivery: str, *, late: bool) -> None:
    """While a sink waits others run, also those that flush; each says that all is delivered."""
    [[flushed, got, beats]] = run(
        """
        got, beats = [], []

        def collect(events):
            before = len(beats)
            time.sleep(0.5)
            got.extend(events)
            beats.append(None)
            ran.append(len(beats) - before)

        def beat():
            while True:
                time.sleep(0.01)
                beats.append(None)

        ran = []
        tracker = configure(sinks=[collect], **options)
        for _ in range(20):
            tracker.record(provider="x-ai", usage={"input_tokens": 1}, customer_id="acme")
        gevent.spawn(beat)
        flushing = [gevent.spawn(tracker.flush, 30) for _ in range(3)]
        gevent.joinall(flushing)
        print(json.dumps([[each.value for each in flushing], len(got), min(ran)]))
        """,
        tmp_path,
        late=late,
        delivery=delivery,
    )
    assert (flushed, got) == ([True] * 3, 20)
    assert beats > 2


def test_a_ledger_that_is_locked_holds_up_no_greenlet(tmp_path: Path) -> None:
    """SQLite waits for a lock in C, five seconds: in a thread of its own."""
    [[delivered, longest]] = run(
        BEATS
        + """
import sqlite3
tracker = configure(**options)
tracker.record(provider="x-ai", usage={"input_tokens": 1}, customer_id="acme")
assert tracker.flush(30)
other = sqlite3.connect(options["home"] + "/usage.db", isolation_level=None)
other.execute("BEGIN IMMEDIATE")
tracker.record(provider="x-ai", usage={"input_tokens": 1}, customer_id="acme")
longest = longest_pause(4)
other.execute("ROLLBACK")
print(json.dumps([tracker.flush(30), longest]))
""",
        tmp_path,
        sinks=[LEDGER],
    )
    assert delivered
    assert longest < 3


def test_brokers_that_are_away_hold_up_no_greenlet(tmp_path: Path) -> None:
    """Kafka's driver waits in C as well, and as long as a batch may take."""
    [longest] = run(
        BEATS
        + """
tracker = configure(**options)
tracker.record(provider="x-ai", usage={"input_tokens": 1}, customer_id="acme")
print(longest_pause(8), flush=True)
os._exit(0)
""",
        tmp_path,
        sinks=["kafka://127.0.0.1:1/usage?insecure=1"],
    )
    assert longest < 3


@pytest.mark.parametrize("ends", ["os._exit(0 if tracker.flush(30) else 1)", "sys.exit(0)"])
def test_a_forked_child_goes_on_as_its_parent_does(tmp_path: Path, url: str, ends: str) -> None:
    """It has its parent's greenlets, those that deliver too; each one's calls are there once all the same."""
    seen = run(
        CALLS
        + f"""
call_at_once(10)
children = []
for _ in range(3):
    call_at_once(10)
    pid = os.fork()
    if not pid:
        seen.clear()
        client = OpenAI(api_key="k", http_client=tracked_http_client("openai"))
        for each in range(5):
            call(each)
        os.write(1, json.dumps(seen).encode() + b"\\n")
        {ends}
    children.append(pid)
for pid in children:
    assert os.waitpid(pid, 0)[1] == 0
os.write(1, json.dumps(seen).encode() + b"\\n")
""",
        tmp_path,
        url=url,
        sinks=[LEDGER],
        durability="fsync",
    )
    assert len(seen) == 4
    drain(tmp_path, environ={})
    assert told(tmp_path) == Counter(tuple(each) for program in seen for each in program)


def test_a_stream_that_is_left_early_is_read_on_by_a_greenlet(tmp_path: Path, url: str) -> None:
    """`on_early_close="drain"` works where threads are greenlets."""
    run(
        CALLS
        + """
with customer_context("acme"):
    for _ in range(5):
        with client.chat.completions.create(**ASK, stream=True, stream_options=USAGE) as stream:
            next(iter(stream))
gevent.sleep(0.5)
assert tracker.flush(30)
""",
        tmp_path,
        url=url,
        sinks=[LEDGER],
        on_early_close="drain",
    )
    with Ledger.open(LEDGER, home=tmp_path) as ledger:
        assert [entry.event.usage_status for entry in ledger.events()] == ["complete"] * 5


# --- and killed -------------------------------------------------------------------------------------

GREENLETS = """
import gevent

def work():
    with tracked_http_client() as client:
        while True:
            use(client)

gevent.joinall([gevent.spawn(work) for _ in range(5)])
"""


def test_killed_greenlets_lose_nothing(tmp_path: Path) -> None:
    """A patched program is killed at moments of chance, beside a receiver that fails."""
    with fleet(tmp_path, seed=1, failing=True, durability="fsync") as made:
        made.first = PATCH
        made.kill_whole(GREENLETS, times=10)
        made.check()


@pytest.mark.parametrize("how", ["anew", "preloaded and patched late", "preloaded and patched first"])
def test_killed_gunicorn_workers_lose_nothing(tmp_path: Path, how: str) -> None:
    """`gunicorn -k gevent`, whose workers load the application anew, or have it of a master that used it."""
    (tmp_path / "gunicorn.conf.py").write_text(PATCH if how.endswith("first") else "")
    options = ["--preload"] if how.startswith("preloaded") else []

    def gunicorn(listening: int) -> list[str]:
        where = ["--bind", f"fd://{listening}", "--log-level", "critical", "--workers", "3"]
        return ["-m", "gunicorn", "application:app", "-k", "gevent", *options, *where]

    with fleet(tmp_path, seed=2, failing=True) as made:
        made.serve(WORKERS + (PRELOADED if options else ""), gunicorn, times=10)
        made.check()
