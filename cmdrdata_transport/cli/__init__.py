"""The commands: what people type, and what they see.

    app       the commands and their options
    demo      the demo, shown as it runs
    report    sums, as a table, JSON or CSV
    tail      events as they land
    doctor    what `cmdrdata_transport.doctor` found
    drain     delivering what dead processes left
    replay    sending again what sinks have refused, or a ledger's events
    stats     what was counted and what waits, as a table, JSON or OpenMetrics
    keep      removing what is old, or a customer's
    asking    a question before something is done
    bars      how far it is
    view      lines and tables
    when      moments as people type them

Needs typer and rich, the extra `cli`. Nothing here measures or decides anything.
"""

from cmdrdata_transport.cli.app import run

__all__ = ["run"]
