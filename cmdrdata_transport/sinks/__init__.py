"""Where events go: one module for each kind of sink, imported when one is asked for.

Knows how to open a sink from what a user writes: a URL, an object with `send`, or a function. What
comes back is an outlet, which takes events as the lines of JSON they are in the journal.

Does not know when events are sent, or what happens to those that cannot be: that is delivery's.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from cmdrdata_transport.errors import TrackingSetupError, Unavailable

if TYPE_CHECKING:
    from cmdrdata_transport.event import UsageEvent


@runtime_checkable
class Sink(Protocol):
    """A receiver of events that a user writes; a function that takes the same list will do as well.

    - `send` is called in a thread of ours, by one thread at a time, never in a call to a provider.
    - When it returns, all events of the list are taken. When it raises `Rejected`, they never will be.
      When it raises `Unavailable`, or anything else, it is given them again after a pause.
    - It may be given an event twice, after a crash or a failure: `event_id` tells.
    - Events of an earlier run of the program are delivered to the sink of the same name: `name`, if it
      has such an attribute, else the name of the function or the class.
    """

    def send(self, events: list[UsageEvent], /) -> object:
        """Take the events, or raise."""
        ...


class Outlet(Protocol):
    """A sink, opened. Used by one thread at a time."""

    @property
    def identity(self) -> str:
        """What a journal calls it: the URL without secrets, or `callable:` and the name."""
        ...

    @property
    def batch(self) -> int:
        """How many events one `send` takes at most."""
        ...

    @property
    def keyed(self) -> bool:
        """Whether an event whose id it has is taken without effect, so that it may come again."""
        ...

    def send(self, lines: Sequence[bytes], timeout: float | None = None) -> None:
        """Take the events, in `timeout` seconds at most if the sink can tell.

        Raises:
            Rejected: at least one of them will never be taken.
            Unavailable: not all of them are taken now; `taken` says how many are.
            Exception: none is taken now.
        """
        ...

    def close(self) -> None:
        """Let go of files and connections; `send` may open them again."""
        ...

    def forget(self) -> None:
        """In a forked child: never touch what the parent has open, not even to close it."""
        ...


class Unauthorized(Exception):
    """Marks what an operator must put right, a wrong key say: counted under its own name."""


class Damaged(Unavailable):
    """What a sink of ours keeps is damaged, and can be begun anew.

    `renew` is given what makes the lines that the sink has taken and that the journal still has, each time
    it is called. It sets the damaged one aside, makes another with these lines, and returns what is to be
    told of it; nothing where another process has done that meanwhile.
    """

    def __init__(self, reason: str, renew: Callable[[Callable[[], Iterable[bytes]]], str]) -> None:
        super().__init__(reason)
        self.renew = renew


SCHEMES: Mapping[str, str] = {
    "sqlite": "sqlite",
    "jsonl": "jsonl",
    "https": "http",
    "http": "http",
    "kafka": "kafka",
    "otlp+https": "otlp",
    "otlp+http": "otlp",
    "postgresql": "postgresql",
    "postgres": "postgresql",
}
"""The module that opens a URL, by scheme. Each has `open_url(url, home, environ) -> Outlet`."""

FILES = ("sqlite", "jsonl")
"""Schemes of what is a file, and has no host."""

EXAMPLES: Mapping[str, str] = {
    "sqlite": "sqlite:///usage.db",
    "jsonl": "jsonl:///usage.jsonl",
    "http": "https://host/path",
    "postgresql": "postgresql://user@host/database",
    "kafka": "kafka://broker/topic",
    "otlp": "otlp+https://collector:4318",
}
"""What a URL looks like that each module opens."""

_ALSO_CALLED = {
    "file": "sqlite",
    "pg": "postgresql",
    "pgsql": "postgresql",
    "psql": "postgresql",
    "grpc": "otlp",
    "otel": "otlp",
    "opentelemetry": "otlp",
    "json": "jsonl",
    "ndjson": "jsonl",
}
"""Schemes that people try, and the module that they mean."""

_SEVERAL = re.compile(r"[,;\s]\s*[a-z][a-z0-9+]*://")
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]{0,30}")
_NO_HOST = re.compile(r"""[\s"'<>\\^`{|}]""")


def open_sink(
    spec: str | Sink | Callable[[list[UsageEvent]], object],
    *,
    home: Path,
    environ: Mapping[str, str],
    name: str | None = None,
) -> Outlet:
    """The outlet behind what a user wrote. Opens no file and no connection yet.

    `home` is what relative paths are relative to; `environ` is where keys are looked up; `name` is
    for functions that have none.

    Raises:
        TrackingSetupError: there is no such sink; the message says what to write.
    """
    if not isinstance(spec, str):
        return _open_python(spec, name)
    url = url_of(spec)
    open_url = cast(
        "Callable[[SplitResult, Path, Mapping[str, str]], Outlet]",
        import_module(f".{SCHEMES[url.scheme]}", __name__).open_url,
    )
    return open_url(url, home, environ)


def url_of(spec: str) -> SplitResult:
    """The URL of a sink, of a scheme that there is, with a host and a port that there can be.

    Raises:
        TrackingSetupError: it is none; the message says what to write, and shows nothing that may be secret.
    """
    text = spec.strip()
    if text[:1] in ("'", '"'):
        raise TrackingSetupError(
            "a sink's URL is in quotation marks, which are no part of it: leave them out"
        )
    if not text.isprintable():
        raise TrackingSetupError("a sink's URL holds characters that no URL has: type it once more")
    if _SEVERAL.search(text):
        raise TrackingSetupError(
            "several sinks are in one URL: in CMDRDATA_SINKS blanks part them, and no commas; in Python "
            'write sinks=["sqlite:///usage.db", "https://host/path"]'
        )
    scheme = text.partition("://")[0]
    if not _SCHEME.fullmatch(scheme) or scheme == text:
        # It may be anything, a key say that was pasted into the wrong line, and is not shown.
        raise TrackingSetupError(f"a sink's URL begins with its scheme and ://; there are {_every()}")
    if (module := SCHEMES.get(scheme.lower())) is None:
        raise TrackingSetupError(_unknown(scheme))
    url = _split(text)
    if url is None:
        password = ", and in a password %2F for /, %3F for ?, %23 for #, %40 for @" if "@" in text else ""
        raise TrackingSetupError(
            f"a sink's URL has a host or a port that none can have: write {EXAMPLES[module]}{password}"
        )
    if not url.netloc and module in ("http", "otlp"):
        raise TrackingSetupError(f"{url.scheme}:// has no host: write {EXAMPLES[module]}")
    insecure = parse_qs(url.query, keep_blank_values=True).get("insecure", ())
    if module not in FILES and not {"0", "1"}.issuperset(insecure):
        raise TrackingSetupError(f"{url.scheme}://: write ?insecure=1, or leave it out")
    return url


def _split(text: str) -> SplitResult | None:
    """The parts of a URL; None where its host or port can be none."""
    try:
        url = urlsplit(text)
        place = url.netloc.rpartition("@")[2]
        # One PostgreSQL may have several hosts, each with a port; Kafka looks at its brokers itself.
        hosts = place.split(",") if url.scheme in ("postgresql", "postgres") else [place]
        ports = [urlsplit(f"//{each}").port for each in hosts if url.scheme != "kafka"]
    except ValueError:  # which may quote what is secret
        return None
    return None if 0 in ports or _NO_HOST.search(place) else url


def _unknown(scheme: str) -> str:
    first = re.split(r"[^a-z]", scheme.lower())[0]
    meant = {**_ALSO_CALLED, **SCHEMES, **{module: module for module in EXAMPLES}}
    close = get_close_matches(first, meant, 1, 0.75)
    hint = f"did you mean {EXAMPLES[meant[close[0]]]}? There are" if close else "there are"
    return f"no sink is known by the URL scheme {scheme!r}; {hint} {_every()}"


def _every() -> str:
    return f"{', '.join(EXAMPLES.values())}, and functions"


def file_of(url: SplitResult, home: Path) -> Path:
    """The file that `scheme:///relative` or `scheme:////absolute` means.

    Raises:
        TrackingSetupError: it names no file, or says more than that.
    """
    scheme = url.scheme
    name = unquote(url.path[1:], errors="surrogateescape")  # what is no text names a file, too
    if url.netloc or url.query or url.fragment or not name.strip("/") or "\0" in name:
        file = EXAMPLES[scheme].rpartition("/")[2]
        raise TrackingSetupError(
            f"{scheme}: takes a file and nothing else: {scheme}:///{file} with three slashes lies in "
            f"home, {scheme}:////var/lib/{file} with four is absolute"
        )
    path = home / name
    if path.is_dir():
        raise TrackingSetupError(f"{scheme}://{url.path} is a directory: name a file in it")
    if path.parent.is_file():
        raise TrackingSetupError(f"{scheme}://{url.path}: {path.parent} is a file, and no directory")
    return path


def _open_python(spec: Sink | Callable[[list[UsageEvent]], object], name: str | None) -> Outlet:
    from cmdrdata_transport.sinks.python import PythonOutlet  # noqa: PLC0415 - each sink is imported when it is asked for

    send = spec.send if isinstance(spec, Sink) else spec
    if isinstance(spec, type) or not callable(send):
        what = "a class" if isinstance(spec, type) else type(spec).__name__
        raise TrackingSetupError(
            f"a sink is a URL, {EXAMPLES['sqlite']} say, a function or an object with `send`, not {what}"
        )
    if inspect.iscoroutinefunction(send) or inspect.iscoroutinefunction(getattr(send, "__call__", None)):  # noqa: B004
        raise TrackingSetupError(
            "a sink is called in a thread that runs no event loop: give a plain function, "
            "which may hand the events to your loop with asyncio.run_coroutine_threadsafe"
        )
    found = name or getattr(spec, "name", None) or getattr(spec, "__name__", None)
    if found is None and isinstance(spec, Sink):
        found = type(spec).__name__
    if not isinstance(found, str) or found == "<lambda>":
        raise TrackingSetupError(
            "a sink needs a name, by which events that wait for it are found again after a restart: "
            "define it with def, or give it an attribute `name`"
        )
    return PythonOutlet(send, f"callable:{found}")
