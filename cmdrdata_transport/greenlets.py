"""Where gevent has made greenlets of threads: whoever waits in C there has all of them wait.

So what waits in C, for a driver or a disk, is called in a thread that is one still. Everywhere else it is
called in the thread at hand. Never imports gevent: where threads are greenlets it is there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def apart(call: Callable[..., T], *arguments: Any) -> T:
    """What `call` returns, or raises; other greenlets run meanwhile, other threads do anyway."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched("threading"):
        return call(*arguments)
    try:
        result = sys.modules["gevent"].get_hub().threadpool.spawn(call, *arguments)
    except RuntimeError:  # an interpreter that is going down starts no thread
        return call(*arguments)
    returned: T = result.get()
    return returned
