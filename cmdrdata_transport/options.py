"""What a tracker can be told, and where it looks for what it was not told: in the environment.

Knows every option and every `CMDRDATA_` variable by its name, and says what to type where one cannot work.
Does not know what is done with them.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from cmdrdata_transport.attribution import check_customer, check_metadata
from cmdrdata_transport.delivery import Mode
from cmdrdata_transport.errors import AttributionError, TrackingSetupError
from cmdrdata_transport.event import UsageEvent, decode
from cmdrdata_transport.journal import LEAST_JOURNAL_BYTES
from cmdrdata_transport.meter import IncludeUsage
from cmdrdata_transport.providers import PROVIDERS
from cmdrdata_transport.providers.own import checked, from_toml
from cmdrdata_transport.providers.table import Provider
from cmdrdata_transport.sinks import Sink
from cmdrdata_transport.syncing import Durability

DEFAULT_LEDGER = "sqlite:///usage.db"

DEFAULT_API = "https://api.cmdrdata.ai/api/events"

Receiver = Sink | Callable[[list[UsageEvent]], object]


def is_on(value: str | None) -> bool:
    """Whether an environment variable switches something on."""
    return value is not None and value.strip().lower() not in ("", "0", "false", "no", "off")


def state_directory() -> Path:
    """Where this user's programs keep what they have to keep."""
    from platformdirs import user_state_path  # noqa: PLC0415 - only where no home is given

    return user_state_path("cmdrdata-transport")


def environment_sinks(environ: Mapping[str, str]) -> Iterable[str | Receiver]:
    """The sinks of `CMDRDATA_SINKS`; else the ledger, and the cmdrdata API when there is a key."""
    if listed := environ.get("CMDRDATA_SINKS", "").split():
        return listed
    sinks = [DEFAULT_LEDGER]
    if environ.get("CMDRDATA_API_KEY"):
        sinks.append(environ.get("CMDRDATA_URL") or DEFAULT_API)
    return sinks


def says_where(environ: Mapping[str, str]) -> str:
    """What an error of one of these sinks begins with: the variable that names it."""
    for name in ("CMDRDATA_SINKS", "CMDRDATA_URL"):
        if environ.get(name, "").strip():
            return f"{name}: "
    return ""


def own_providers(
    given: Iterable[Provider | str | os.PathLike[str]], environ: Mapping[str, str]
) -> tuple[Provider, ...]:
    """The tables that are given, in Python or as files of TOML, and those of `CMDRDATA_PROVIDERS`."""
    if isinstance(given, str | os.PathLike | Provider) or not hasattr(given, "__iter__"):
        raise TrackingSetupError(f"providers= takes a list, not {given!r}; write providers=[...]")
    tables: list[Provider] = []
    named = environ.get("CMDRDATA_PROVIDERS")
    for number, each in enumerate((*given, *((named,) if named else ()))):
        if isinstance(each, str | os.PathLike):
            tables += _from_file(each)
        else:
            tables.append(checked(each, f"providers[{number}]"))
    return tuple(tables)


def _from_file(file: str | os.PathLike[str]) -> tuple[Provider, ...]:
    try:
        document = tomllib.loads(Path(file).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise TrackingSetupError(f"the providers in {os.fspath(file)!r} cannot be read: {error}") from None
    return from_toml(document, os.fspath(file), PROVIDERS)


def environment_metadata(environ: Mapping[str, str]) -> dict[str, Any]:
    """The metadata of `CMDRDATA_METADATA`."""
    text = environ.get("CMDRDATA_METADATA")
    if not text:
        return {}
    try:
        metadata = decode(text.encode())
    except (ValueError, RecursionError):
        metadata = None
    if not isinstance(metadata, dict):
        raise TrackingSetupError('CMDRDATA_METADATA is not a JSON object; write it like {"region": "eu"}')
    try:
        return check_metadata(metadata)
    except AttributionError as error:
        raise AttributionError(f"CMDRDATA_METADATA: {error}") from None


def environment_customer(environ: Mapping[str, str]) -> str | None:
    """The customer of `CMDRDATA_CUSTOMER_ID`."""
    if not (customer := environ.get("CMDRDATA_CUSTOMER_ID")):
        return None
    try:
        return check_customer(customer)
    except AttributionError as error:
        raise AttributionError(f"CMDRDATA_CUSTOMER_ID: {error}") from None


def home_of(given: str | os.PathLike[str]) -> Path:
    """The directory that is meant."""
    try:
        return Path(given).expanduser().absolute()
    except (TypeError, RuntimeError) as error:
        raise TrackingSetupError(
            f"the home {given!r} means no directory ({error}); give one with home= or CMDRDATA_HOME"
        ) from None


def listed_sinks(sinks: Any) -> Iterable[str | Receiver]:
    """The sinks, if they are a list of them."""
    if isinstance(sinks, str) or not hasattr(sinks, "__iter__"):
        # Which of its kind it is may be secret.
        raise TrackingSetupError(
            f"sinks= takes a list of sinks, not {type(sinks).__name__}; write sinks=[...]"
        )
    listed: Iterable[str | Receiver] = sinks
    return listed


def checked_name(option: str, value: Any) -> str:
    """The name, if it is text."""
    if not isinstance(value, str):
        raise TrackingSetupError(f"{option}= takes a str, not {type(value).__name__}")
    return value


def checked_seconds(value: Any) -> float:
    """The seconds, if they are a number from 0 on."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise TrackingSetupError(f"exit_timeout= takes a number of seconds, not {value!r}")
    return value


def checked_mode(mode: Any, sinks: Iterable[str]) -> Mode:
    """Who delivers, if these sinks can be delivered to that way."""
    if mode not in ("background", "flush", "external"):
        raise TrackingSetupError(f'delivery= takes "background", "flush" or "external", not {mode!r}')
    own = [sink for sink in sinks if sink.startswith("callable:")]
    if mode == "external" and own:
        raise TrackingSetupError(
            f"delivery='external' leaves delivery to another process, which cannot call {own[0]!r}: give "
            "sinks by URL, and no on_event"
        )
    known: Mode = mode
    return known


def checked_durability(durability: Any) -> Durability:
    """What an event survives that is in the journal, if it is one of the two."""
    if durability not in ("process", "fsync"):
        raise TrackingSetupError(f'durability= takes "process" or "fsync", not {durability!r}')
    known: Durability = durability
    return known


def checked_journal_bytes(bound: Any) -> int | None:
    """The bound of the journal, if some events have room in it."""
    if bound is None or (
        isinstance(bound, int) and not isinstance(bound, bool) and bound >= LEAST_JOURNAL_BYTES
    ):
        return bound
    raise TrackingSetupError(
        f"max_journal_bytes= takes a number of bytes from {LEAST_JOURNAL_BYTES} on, or None, not {bound!r}"
    )


def checked_drain(on_early_close: Any, seconds: Any) -> float | None:
    """How long the rest of a stream is read, in seconds; None where it is not."""
    if on_early_close not in ("partial", "drain"):
        raise TrackingSetupError(f'on_early_close= takes "partial" or "drain", not {on_early_close!r}')
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < float("inf"):
        raise TrackingSetupError(f"drain_seconds= takes a number of seconds above 0, not {seconds!r}")
    return seconds if on_early_close == "drain" else None


def checked_lookup(given: Any) -> Callable[[str], str | None] | None:
    """A function from `custom_id` to customer; None where none is given."""
    if isinstance(given, Mapping):
        customers: Mapping[str, str] = given
        return customers.get
    if given is None or (callable(given) and not isinstance(given, type)):
        return cast("Callable[[str], str | None] | None", given)
    raise TrackingSetupError(
        f"batch_customers= takes a mapping from custom_id to customer, or a function, not {given!r}"
    )


def checked_include_usage(value: Any) -> IncludeUsage:
    """One of the three values that the option has."""
    if value is True or value is False or value == "auto":
        return value  # type: ignore[no-any-return]  # it is one of the three
    raise TrackingSetupError(f'include_usage= takes "auto", True or False, not {value!r}')
