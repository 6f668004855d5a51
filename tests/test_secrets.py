"""What is secret about a sink is nowhere where somebody might read it, and is found where it is needed."""

from __future__ import annotations

import base64
import gc
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from receivers import Api, serving

from cmdrdata_transport import Tracker
from cmdrdata_transport.doctor import examine
from cmdrdata_transport.sinks import open_sink
from cmdrdata_transport.sinks.http import HttpOutlet
from cmdrdata_transport.sinks.kafka import KafkaOutlet
from cmdrdata_transport.sinks.otlp import OtlpOutlet

SECRET = "open-sesame"

NOBODY = "127.0.0.1:1"
"""Where no receiver is."""

SINKS = (
    f"kafka://zoo:{SECRET}@{NOBODY}/usage?timeout=1",
    f"otlp+http://zoo:{SECRET}@{NOBODY}",
    f"http://{NOBODY}/in?token={SECRET}",
)

ENVIRON = {
    "CMDRDATA_SINKS": " ".join(SINKS),
    "CMDRDATA_API_KEY": SECRET,
    "CMDRDATA_KAFKA_USERNAME": "zoo",
    "CMDRDATA_KAFKA_PASSWORD": SECRET,
    "OTEL_EXPORTER_OTLP_HEADERS": f"api-key={SECRET}",
}

FORMS = [SECRET, base64.b64encode(f"zoo:{SECRET}".encode()).decode()]


def shown(text: str) -> list[str]:
    """The secrets that a text shows."""
    return [form for form in FORMS if form in text]


def everything_in(home: Path) -> str:
    """All bytes of all files, and their names."""
    files = [path for path in home.rglob("*") if path.is_file()]
    assert files
    return "".join(str(path) + path.read_bytes().decode("latin-1") for path in files)


@pytest.mark.slow
def test_what_is_secret_is_shown_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in the log at its most talkative, nor in home, in `stats`, `doctor` or `drain`, or by `repr`."""
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)
    tracker = Tracker(home=tmp_path)
    with caplog.at_level(logging.DEBUG):
        tracker.record(provider="x-ai", usage={"input_tokens": 1}, customer_id="acme")
        assert not tracker.flush(1)
        tracker.close(0.1)
    assert {"unavailable"} <= tracker.stats().keys()
    assert caplog.records
    said = [caplog.text, repr(tracker), repr(vars(tracker)), repr(tracker.stats()), repr(examine(tmp_path))]
    del tracker
    gc.collect()
    for command in (["stats"], ["drain", "--timeout", "1"]):
        done = subprocess.run(
            [sys.executable, "-m", "cmdrdata_transport", *command],
            capture_output=True,
            text=True,
            env={**os.environ, "CMDRDATA_HOME": str(tmp_path), "COLUMNS": "500"},
            check=False,
        )
        said.append(done.stdout + done.stderr)
    assert [form for text in said for form in shown(text)] == []
    assert shown(everything_in(tmp_path)) == []


def test_a_receiver_that_quotes_what_it_was_sent_is_not_quoted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in a dead letter nor in the log is anything of its answer, whatever its status."""
    monkeypatch.setenv("CMDRDATA_API_KEY", SECRET)
    with serving(Api()) as api, caplog.at_level(logging.DEBUG):
        api.words = f"no such key: {SECRET}".encode()
        api.answers.extend([(401, {}), (500, {}), (422, {})])
        tracker = Tracker([api.url], home=tmp_path)
        tracker.record(provider="x-ai", usage={"input_tokens": 1}, customer_id="acme")
        assert tracker.flush(60)
        tracker.close()
    assert {"unauthorized", "unavailable", "rejected"} <= tracker.stats().keys()
    assert all(f"Bearer {SECRET}" == headers["Authorization"] for _, headers, _ in api.calls)
    assert shown(caplog.text + everything_in(tmp_path)) == []


def kafka_login(outlet: KafkaOutlet) -> object:
    """What the brokers are shown."""
    return outlet._target.settings.get("sasl.password")


def otlp_login(outlet: OtlpOutlet) -> object:
    """What the receiver is shown."""
    return outlet._target.headers["logs"].get("authorization")


def http_login(outlet: HttpOutlet) -> object:
    """What the receiver is shown."""
    return outlet._target.url.partition("token=")[2]


@pytest.mark.parametrize(
    ("spec", "login", "found"),
    [
        (SINKS[0], kafka_login, SECRET),
        (SINKS[1], otlp_login, f"Basic {FORMS[1]}"),
        (SINKS[2], http_login, SECRET),
    ],
)
def test_who_drains_finds_what_is_secret_in_the_environment(
    tmp_path: Path, spec: str, login: Callable[[Any], object], found: str
) -> None:
    """A journal names a sink without it: it is the one of `CMDRDATA_SINKS`, with all that stands there."""
    identity = open_sink(spec, home=tmp_path, environ={}).identity
    assert shown(identity) == []
    assert login(open_sink(identity, home=tmp_path, environ={})) != found
    assert login(open_sink(identity, home=tmp_path, environ={"CMDRDATA_SINKS": " ".join(SINKS)})) == found
