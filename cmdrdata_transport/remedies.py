"""What to do about each loss that is counted: the README's words, for whoever reads a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

REMEDIES: Mapping[str, str] = {
    "unattributed": "customer_context(), or customer_id= on the client",
    "skipped_no_customer": "customer_context(), or customer_id= on the client",
    "bad_attribution": "Make headers with tracking_headers()",
    "metadata_truncated": "Less metadata",
    "signed_headers": "customer_context() there",
    "unparsed": "Report it, with the host that the log names",
    "undecodable": "Report it, with the host that the log names",
    "too_large": "Report it, with the host that the log names",
    "bad_counts": "Nothing: it is the provider's",
    "missing": "include_usage=True for chat streams of OpenAI-like servers",
    "injections_refused": "include_usage=False there",
    "usage_shown": "include_usage=False, and ask for usage yourself",
    "internal_errors": "Report it, please",
    "journal_failed": "Make room",
    "journal_full": "Look at the sink that is behind: cmdrdata-transport stats",
    "sync_failed": "Look at the disk",
    "files_closed": "Close files before the first call, or in the child of a fork",
    "temporary_home": "Make CMDRDATA_HOME writable",
    "segment_blocked": "Make room",
    "segment_removed": "Leave home to this library; drain --forget and prune make room",
    "memory_dropped": "Make room, or CMDRDATA_HOME writable, sooner",
    "conflicts": "Nothing: it is the provider's",
    "job_not_kept": "Make CMDRDATA_HOME writable",
    "seen_unknown": "Make CMDRDATA_HOME writable",
    "ledger_corrupt": "doctor says what to type",
    "torn": "Look at the disk; replay --torn sends what can be read; remove what nothing can be read of",
    "rejected": "See dead/ in home: event and reason. Put it right, then cmdrdata-transport replay",
    "unavailable": "Look at the sink; the log, or cmdrdata-transport drain, says which and why",
    "unauthorized": "Put the key, the password or the rights right; the log says which sink, and why",
}
"""By the name of what was counted."""


def of_damaged_ledger(file: Path, sink: str, error: Exception) -> str:
    """What to do about a ledger's file that cannot be read; `sink` is where its events are to come back."""
    return (
        f"{file}: {error}. If it stays so, move it away and another is begun; what can be read of it "
        f"comes back by cmdrdata-transport replay --from-ledger --ledger FILE --sink {sink}"
    )
