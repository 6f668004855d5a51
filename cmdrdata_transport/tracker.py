"""The tracker: where the events of a process go, and the one place that wires the rest together.

Knows configuration, its sources (arguments, then the environment, then the defaults) and lifetime.
Nothing touches the disk and no thread runs before the first metered call. The default tracker is made
from the environment when it is first needed; `configure` puts another in its place.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any, Literal
from uuid import uuid4
from weakref import WeakSet, WeakValueDictionary

from cmdrdata_transport import __version__, forks
from cmdrdata_transport.account import Headers, Request, Settings
from cmdrdata_transport.attribution import Attribution, Defaults, check_customer, check_metadata, resolve
from cmdrdata_transport.counters import Counters
from cmdrdata_transport.delivery import Delivery, Mode
from cmdrdata_transport.errors import TrackingSetupError
from cmdrdata_transport.event import Usage, UsageEvent
from cmdrdata_transport.home import find_home
from cmdrdata_transport.jobs import Jobs
from cmdrdata_transport.journal import Journal
from cmdrdata_transport.meter import IncludeUsage, Meter
from cmdrdata_transport.options import (
    Receiver,
    checked_drain,
    checked_durability,
    checked_include_usage,
    checked_journal_bytes,
    checked_lookup,
    checked_mode,
    checked_name,
    checked_seconds,
    environment_customer,
    environment_metadata,
    environment_sinks,
    home_of,
    is_on,
    listed_sinks,
    own_providers,
    says_where,
    state_directory,
)
from cmdrdata_transport.providers import PROVIDERS
from cmdrdata_transport.providers.routing import Router
from cmdrdata_transport.providers.table import Provider
from cmdrdata_transport.recorder import Recorder
from cmdrdata_transport.sinks import Outlet, open_sink
from cmdrdata_transport.stated import answered_events, stated_event, table_of
from cmdrdata_transport.syncing import Durability
from cmdrdata_transport.tallies import Tallies

EXIT_TIMEOUT = 2.0
"""Seconds that the end of a process may wait for deliveries; what is left is in the journal."""

DRAIN_SECONDS = 30.0


class Tracker:
    """Takes the events of every client that is made with it, keeps them safe, and delivers them.

    `sinks`: URLs, `Sink` objects or functions that are given a list of events; None is what
    `CMDRDATA_SINKS` lists, else the ledger `usage.db` in `home`, and the cmdrdata API when there is a
    `CMDRDATA_API_KEY`. `home`: the directory of the journal; None is `CMDRDATA_HOME`, else the user's
    state directory. `name` and `service` tell trackers and applications apart. `customer_id` and
    `metadata`: for calls that say nothing nearer. `require_customer`: a call without a customer is not
    recorded, instead of recorded without one. `include_usage`: whether streams of chat completions that
    do not ask for their usage are made to, and the answer to that is hidden: "auto" at the hosts of
    providers that take the option, True at other hosts of that shape too, False nowhere.
    `on_early_close`: what becomes of a stream that the application closes before its end: "partial" counts
    what is known, "drain" reads the rest in the background, for at most `drain_seconds`, so that all of
    it is known. The provider goes on generating then, and bills what nobody reads.
    `on_event`: one more function that is given events, on its own thread.
    `batch_customers`: whose the results of a batch are that was made for many: a mapping from `custom_id`
    to customer, or a function; None is the customer who started the batch.
    `unknown_hosts`: whether an answer of a host that no table names counts if it looks like one of
    OpenAI's, Anthropic's or Google's; it is recorded as `openai-compatible` and the like.
    `record_error_messages`: keep providers' error messages, which may repeat what was asked.
    `providers`: tables of your own, or TOML files of them (`providers/own.py` says how they look), and
    those in the file that `CMDRDATA_PROVIDERS` names; they come before ours.
    `delivery`: "background" delivers in threads of its own. "flush" has none, for processes that are
    frozen or whose threads die: `flush()` delivers, at the end of a handler say. "external" only writes the
    journal, for `cmdrdata-transport drain --follow` in another process to deliver.
    `durability`: an event that is recorded survives the death of the process; with "fsync" the failure of
    the machine too, but for the last tenth of a second or so. Nobody waits for it.
    `max_journal_bytes`: a bound for what waits in `home`, of all its processes; None is none. At the bound
    it is the newest events that are not written, counted as `journal_full`; what is written stays.
    `exit_timeout`: the longest that the end of the process waits for deliveries, in seconds.

    Raises:
        TrackingSetupError: a sink or an option that cannot work.
        AttributionError: a customer id or metadata that no event can carry.
    """

    def __init__(
        self,
        sinks: Iterable[str | Receiver] | None = None,
        *,
        home: str | os.PathLike[str] | None = None,
        name: str = "default",
        service: str | None = None,
        customer_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        require_customer: bool = False,
        include_usage: IncludeUsage = "auto",
        on_early_close: Literal["partial", "drain"] = "partial",
        drain_seconds: float = DRAIN_SECONDS,
        on_event: Callable[[list[UsageEvent]], object] | None = None,
        disabled: bool = False,
        record_error_messages: bool = False,
        unknown_hosts: bool = False,
        batch_customers: Mapping[str, str] | Callable[[str], str | None] | None = None,
        providers: Iterable[Provider | str | os.PathLike[str]] = (),
        delivery: Mode = "background",
        durability: Durability = "process",
        max_journal_bytes: int | None = None,
        exit_timeout: float = EXIT_TIMEOUT,
    ) -> None:
        environ = os.environ
        self.name = checked_name("name", name)
        self.disabled = disabled or is_on(environ.get("CMDRDATA_DISABLED"))
        self.include_usage: IncludeUsage = checked_include_usage(include_usage)
        self.exit_timeout = checked_seconds(exit_timeout)
        self.unknown_hosts = unknown_hosts
        self.counters = Counters()
        self.wanted_home = home_of(home or environ.get("CMDRDATA_HOME") or state_directory())
        # Journal and relative sinks alike: where one cannot be written, the other cannot either.
        self.home = find_home(self.wanted_home, self.counters)
        self.defaults = Defaults(
            customer=environment_customer(environ) if customer_id is None else customer_id,
            metadata=environment_metadata(environ) if metadata is None else check_metadata(metadata),
        )
        self.providers = (*own_providers(providers, environ), *PROVIDERS)
        receivers = [*(environment_sinks(environ) if sinks is None else listed_sinks(sinks))]
        if on_event is not None:
            receivers.append(on_event)
        self._outlets = self._open(receivers, says_where(environ) if sinks is None else "")
        self._service = checked_name("service", service or "") or environ.get("CMDRDATA_SERVICE") or None
        # Made here and not at the first call, which several threads may make at once; idle until then.
        self._journal = Journal(
            self.home,
            tracker=self.name,
            service=self._service,
            sinks=self.sinks,
            counters=self.counters,
            max_bytes=checked_journal_bytes(max_journal_bytes),
            external=delivery == "external",
        )
        self._tallies = Tallies(self.home, tracker=self.name, service=self._service, sinks=self.sinks)
        self._delivery = Delivery(
            self._journal,
            self._outlets,
            self.counters,
            mode=checked_mode(delivery, self.sinks),
            durability=checked_durability(durability),
        )
        self._ready_in: int | None = None
        self._key = uuid4().hex
        self.settings = Settings(
            record=self._journal.append,
            count=self.counters.count,
            ready=self._make_ready if self._delivery.delivers else self._make_ready_alone,
            epoch=_current_epoch,
            library_version=__version__,
            jobs=Jobs(self.home, self.counters.count),
            service=self._service,
            drain_seconds=checked_drain(on_early_close, drain_seconds),
            batch_customers=checked_lookup(batch_customers),
            require_customer=require_customer,
            record_error_messages=record_error_messages,
            disabled=self.disabled,
        )
        _trackers.add(self)
        _by_key[self._key] = self

    def record(
        self,
        *,
        provider: str,
        usage: Usage | Mapping[str, int | float],
        model: str | None = None,
        operation: str | None = None,
        event_id: str | None = None,
        response_id: str | None = None,
        customer_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Record a call that no transport can see, by its counts: `usage={"input_tokens": 12}`.

        The same event as of a metered call, with the same attribution: `customer_id` and `metadata`
        here win over the context. `event_id`: an id of yours by which a second telling is known; None
        makes one. Raises `TrackingSetupError` for a unit that there is not, `AttributionError` for a
        customer id or metadata that no event can carry.
        """
        who = self._attribute(customer_id, metadata)
        if who is not None:
            line = stated_event(
                who,
                library_version=__version__,
                service=self._service,
                provider=provider,
                usage=usage,
                event_id=event_id,
                facts={"model": model, "operation": operation, "response_id": response_id},
            )
            self._record_stated([line])

    def record_response(
        self,
        provider: str,
        body: Mapping[str, Any] | bytes | str,
        *,
        model: str | None = None,
        event_id: str | None = None,
        customer_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Record a call that no transport can see, by the provider's own answer: its JSON, parsed or not.

        `model`: the one that was asked for, where the answer names none. Raises what `record` raises,
        and `TrackingSetupError` for a provider without a table and for an answer that states no usage.
        """
        who = self._attribute(customer_id, metadata)
        if who is not None:
            lines = answered_events(
                who,
                library_version=__version__,
                service=self._service,
                table=table_of(provider, self.providers),
                body=body,
                model=None if model is None else checked_name("model", model),
                event_id=event_id,
                report=lambda unit: self.counters.count("bad_counts", f"{provider} {unit}"),
            )
            self._record_stated(lines)

    def _attribute(self, customer_id: str | None, metadata: Mapping[str, Any] | None) -> Attribution | None:
        """For whom; None where nothing is to be recorded."""
        said: dict[str, Any] = {} if customer_id is None else {"customer_id": check_customer(customer_id)}
        if metadata is not None:
            said["metadata"] = check_metadata(metadata)
        settings = self.current_settings()
        who = resolve(None, said or None, self.defaults, self.counters.count)
        if settings.disabled or not who.track:
            return None
        return who if who.customer is not None or settings.records_nobodys() else None

    def _record_stated(self, lines: list[bytes]) -> None:
        settings = self.current_settings()
        settings.ready()
        for line in lines:
            settings.record(line)
            settings.count("events")

    def current_settings(self) -> Settings:
        """What the meters of this tracker go by: its settings, or those of a capture while one lasts."""
        return self.settings if _captured_by is None else _diverted(self.settings, _captured_by)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until every event recorded before now is delivered, or set aside as rejected.

        False when `timeout` seconds did not suffice; the events are safe in the journal all the same.
        """
        return self._delivery.flush(timeout)

    def close(self, timeout: float | None = None) -> None:
        """Flush for at most `timeout` seconds (None: `exit_timeout`), then stop the delivery threads.

        What was not delivered stays in the journal, for the next process. A call that is metered after
        this starts them again.
        """
        self._ready_in = None
        self._delivery.close(self.exit_timeout if timeout is None else timeout)
        if self._delivery.used:
            self._tallies.keep(self.stats(), now=True)

    def stats(self) -> dict[str, int]:
        """Everything counted in this process, by name; a name that is absent has not happened."""
        return self.counters.snapshot()

    @property
    def sinks(self) -> tuple[str, ...]:
        """The identities of the sinks: URLs without secrets, and the names of functions."""
        return tuple(self._outlets)

    def __repr__(self) -> str:
        return f"Tracker(name={self.name!r}, home={str(self.home)!r}, sinks={list(self.sinks)!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Tracker:
        return self

    def __copy__(self) -> Tracker:
        return self

    def __reduce__(self) -> tuple[Callable[[str], Tracker], tuple[str]]:
        # A tracker has threads, locks and keys; a pickled client finds it again, or the default one.
        return _find, (self._key,)

    def _open(self, receivers: Iterable[str | Receiver], where: str) -> dict[str, Outlet]:
        outlets: dict[str, Outlet] = {}
        for each in receivers:
            try:
                outlet = open_sink(each, home=self.home, environ=os.environ)
            except TrackingSetupError as error:
                raise TrackingSetupError(f"{where if isinstance(each, str) else ''}{error}") from None
            if outlet.identity in outlets:
                raise TrackingSetupError(
                    f"{where}the sink {outlet.identity!r} is given twice; its events would be counted twice. "
                    "Give each sink once, and functions different names."
                )
            outlets[outlet.identity] = outlet
        return outlets

    def _make_ready(self) -> None:
        if self._ready_in == _epoch and not forks.unnoticed():
            return
        self._delivery.ensure_running()
        self.counters.keep = self._tallies.keep  # from here on there is something that others may ask for
        self._ready_in = _epoch

    def _make_ready_alone(self) -> None:
        self._make_ready()
        self._delivery.tend()


@dataclass(frozen=True, slots=True, kw_only=True)
class BindingSettings:
    """What one tracked transport was made with. Equal settings meter equally."""

    tracker: Tracker | None = None
    defaults: Defaults
    provider: str | None = None
    include_usage: IncludeUsage | None = None
    any_host: bool = True

    @classmethod
    def checked(
        cls,
        *,
        tracker: Tracker | None,
        customer_id: str | None,
        metadata: Mapping[str, Any] | None,
        provider: str | None,
        include_usage: IncludeUsage | None,
        any_host: bool,
    ) -> BindingSettings:
        """The settings, or an error that says what to type instead."""
        if tracker is not None and not isinstance(tracker, Tracker):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TrackingSetupError(f"tracker= takes a Tracker, not {type(tracker).__name__}")
        Router((tracker or default_tracker()).providers, provider=provider)
        return cls(
            tracker=tracker,
            defaults=Defaults(
                customer=customer_id, metadata={} if metadata is None else check_metadata(metadata)
            ),
            provider=provider,
            include_usage=None if include_usage is None else checked_include_usage(include_usage),
            any_host=any_host,
        )


class Binding:
    """Ties one transport to its tracker, and follows when the default tracker is replaced."""

    __slots__ = ("_generation", "_meter", "settings")

    def __init__(self, settings: BindingSettings) -> None:
        self.settings = settings
        self._bind()

    def start(self, request: Request) -> tuple[Recorder | None, Headers | None]:
        """A recorder if this request is metered; and the headers to send, if they must differ."""
        if self._generation is not _generation:
            self._bind()
        return self._meter.start(request)

    def _bind(self) -> None:
        generation = _generation
        settings = self.settings
        tracker = settings.tracker or default_tracker()
        self._meter = Meter(
            tracker.current_settings(),
            Router(
                tracker.providers,
                provider=settings.provider,
                any_host=settings.any_host,
                any_shape=settings.any_host and tracker.unknown_hosts,
            ),
            settings.defaults.over(tracker.defaults),
            include_usage=tracker.include_usage if settings.include_usage is None else settings.include_usage,
        )
        self._generation = generation  # last, so that no other thread takes the former meter for this one

    def __deepcopy__(self, memo: dict[int, Any]) -> Binding:
        return self

    def __reduce__(self) -> tuple[type[Binding], tuple[BindingSettings]]:
        return Binding, (self.settings,)


def default_tracker() -> Tracker:
    """The tracker of clients that were given none, made from the environment when first needed."""
    global _default  # noqa: PLW0603 - the one default lives here
    if _default is None:
        with _making_default:
            if _default is None:
                _default = Tracker()
    return _default


def configure(**options: Any) -> Tracker:
    """Make a `Tracker` with these options the default one, for clients made before and after.

    Events that the former default has recorded are still delivered by it.
    """
    global _default  # noqa: PLW0603 - the one default lives here
    _default = Tracker(**options)
    _change()
    return _default


def capture(record: Callable[[bytes], None] | None) -> Callable[[bytes], None] | None:
    """Send what every tracker would record to `record` instead; None ends that. For `testing`.

    Returns what was there before, to be put back.
    """
    global _captured_by, _captured_jobs  # noqa: PLW0603 - what a capture replaces, for the time being
    previous, _captured_by = _captured_by, record
    _captured_jobs = Jobs(None, _nothing)
    _change()
    return previous


def _change() -> None:
    global _generation  # noqa: PLW0603 - what bindings compare with
    _generation = object()


def _diverted(settings: Settings, record: Callable[[bytes], None]) -> Settings:
    return replace(settings, record=record, jobs=_captured_jobs, ready=_nothing, disabled=False)


def _nothing(*_: object) -> None:
    pass


def _current_epoch() -> int:
    return _epoch


class _Epochs:
    """Counts from one child to the next."""

    def after_fork_in_child(self) -> None:
        """Have every tracker start anew."""
        global _epoch, _making_default  # noqa: PLW0603 - what tells a child from its parent
        _epoch += 1
        _making_default = threading.Lock()  # a thread that is not in the child may have held it


def _close_all() -> None:
    """At exit. Trackers share the time: many whose sinks are dead hold it no longer than one."""
    trackers = list(_trackers)
    began = monotonic()
    for tracker in trackers:
        with suppress(Exception):  # the others are to be closed, too
            tracker.close(max(0.0, tracker.exit_timeout - (monotonic() - began)))


def _find(key: str) -> Tracker:
    return _by_key.get(key) or default_tracker()


_default: Tracker | None = None
_making_default = threading.Lock()
"""Two threads that need the default tracker first would each make one, and flush only theirs."""
_captured_by: Callable[[bytes], None] | None = None
_captured_jobs = Jobs(None, _nothing)
_generation = object()
_epoch = 0
_trackers: WeakSet[Tracker] = WeakSet()
_by_key: WeakValueDictionary[str, Tracker] = WeakValueDictionary()

_epochs = _Epochs()
forks.register(_epochs)
atexit.register(_close_all)
