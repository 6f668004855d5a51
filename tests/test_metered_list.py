"""The list of what is metered is what the tables say."""

from __future__ import annotations

import re
import tomllib

from metered import README, proofs, rows, written

from cmdrdata_transport.providers import PROVIDERS
from cmdrdata_transport.providers.own import from_toml


def test_the_readme_lists_what_the_tables_meter() -> None:
    """It is made anew, by `python tests/metered.py --write`, when a table or a fixture changes."""
    assert README.read_text("utf-8") == written()


def test_every_shape_is_proven_somewhere() -> None:
    """A shape that no fixture of any provider proves is not in a table."""
    proven = {api for _, api in proofs()}
    assert {api.strip("`") for _, api, *_ in rows()} <= proven


def test_every_provider_is_listed() -> None:
    """No table is without a row."""
    assert {provider for provider, *_ in rows()} == {table.id for table in PROVIDERS}


def test_the_readmes_own_provider_can_be_used() -> None:
    """The TOML that the README shows is taken as it stands."""
    (text,) = re.findall(r"```toml\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    (table,) = from_toml(tomllib.loads(text), "README.md", PROVIDERS)
    assert [endpoint.shape.api for endpoint in table.endpoints if endpoint.shape is not None] == [
        "openai.chat_completions",
        "acme.generate",
    ]
