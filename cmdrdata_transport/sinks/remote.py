"""What a receiver beyond this process means: which host is this machine, and how long an answer may take.

And by which files TLS knows whom to trust, and who we are; and where it is said what is secret.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from urllib.parse import SplitResult, parse_qsl, urlsplit

from cmdrdata_transport.errors import TrackingSetupError

TIMEOUT_SECONDS = 10.0
"""How long one POST may take to connect, and to answer."""

LONGEST_TIMEOUT_SECONDS = 300.0

TLS_FILES = ("ca", "cert", "key")
"""Options of a URL that name a file in PEM: the authorities that we trust, our certificate, its key."""


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def refuse_torn_login(url: SplitResult) -> None:
    """Raise `TrackingSetupError` where a piece of a password has become another part of the URL."""
    if "@" in url.path + url.query or url.fragment:  # never to be shown
        raise TrackingSetupError("in a password write %2F for /, %3F for ?, %23 for #, and %40 for @")


def options_of(url: SplitResult, known: Sequence[str], where: str) -> dict[str, str]:
    """What stands behind the question mark. Raises `TrackingSetupError` for a name that is none of these."""
    options = dict(parse_qsl(url.query, keep_blank_values=True))
    if unknown := set(options).difference(known):
        raise TrackingSetupError(f"{where}: there is no ?{min(unknown)}=; there are {', '.join(known)}")
    return options


def timeout_of(text: str | None, where: str) -> float:
    """The seconds that `?timeout=` asks for, or ours. Raises `TrackingSetupError`."""
    if text is None:
        return TIMEOUT_SECONDS
    try:
        timeout = float(text)
    except ValueError:
        timeout = 0.0
    if not 0.0 < timeout <= LONGEST_TIMEOUT_SECONDS:
        raise TrackingSetupError(
            f"{where}: write ?timeout=5 for five seconds; it is at most {LONGEST_TIMEOUT_SECONDS:.0f}"
        )
    return timeout


def tls_files_of(
    options: Mapping[str, str], where: str, known: Mapping[str, tuple[str, str]] | None = None
) -> dict[str, str]:
    """The files that `TLS_FILES` name, by option. Each is read once, to see that it is what it should be.

    `known` has, by option, a variable of the environment and the file that it names, for want of the option.

    Raises:
        TrackingSetupError: one is not there, or is of another kind; or a key has no certificate.
    """
    said = {**(known or {}), **{name: (f"?{name}=", options[name]) for name in TLS_FILES if name in options}}
    if not said:
        return {}
    import ssl  # noqa: PLC0415 - a hundredth of a second of import, for those who name a file

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    files = {name: path for name, (_, path) in said.items()}
    if "key" in files and "cert" not in files:
        raise TrackingSetupError(
            f"{where}: {said['key'][0]} is the key of a certificate: name that with ?cert="
        )
    for name, (by, path) in said.items():
        try:
            with open(path, "rb"):  # noqa: PTH123 - it says in the error what it was given
                pass
            if name == "ca":
                context.load_verify_locations(path)
            elif name == "cert":
                context.load_cert_chain(path, files.get("key"), password="")
        except ssl.SSLError:
            raise TrackingSetupError(f"{where}: {path} ({by}) {_NONE[name]}") from None
        except OSError as error:
            raise TrackingSetupError(f"{where}: {path} ({by}): {error.strerror}") from None
    return files


_NONE = {
    "ca": "holds no certificate in PEM",
    "cert": "holds no certificate in PEM with its key, which may be in a file of its own (?key=)",
}


def spelled_out(
    url: SplitResult, environ: Mapping[str, str], identity_of: Callable[[SplitResult], str]
) -> SplitResult:
    """The URL as one of `CMDRDATA_SINKS` has it, if that is the same sink with what is secret.

    A journal names a sink by its identity, which has no password; whoever drains it may know one.
    """
    for spec in environ.get("CMDRDATA_SINKS", "").split():
        with suppress(TrackingSetupError, ValueError):
            other = urlsplit(spec)
            if other.scheme == url.scheme and identity_of(other) == url.geturl():
                return other
    return url
