from __future__ import annotations

import subprocess
import sys

import pytest

from deepforge.errors import ConfigError, NotFound
from deepforge.plugins import AdapterInfo, adapters
from deepforge.settings import declared
from deepforge.storage.registry import open_storage


def test_the_storages_that_come_with_us_are_found_and_load() -> None:
    found = [one for one in adapters("storage") if isinstance(one, AdapterInfo)]

    assert {"local", "memory", "s3"} <= {one.id for one in found}
    for info in found:
        assert info.adapter_class().capabilities
        assert all(one.sentence.endswith(".") for one in declared(info.settings_class()))


async def test_an_opened_storage_knows_its_name() -> None:
    async with open_storage("mine", "memory", {"shelf": "registry"}) as client:
        ref = await client.put_bytes("key", b"x")

    assert ref.storage == "mine"


async def test_unknown_storages_and_wrong_settings_are_refused() -> None:
    with pytest.raises(NotFound, match="no storage adapter 'tape'"):
        async with open_storage("mine", "tape", {}):
            pass
    with pytest.raises(ConfigError, match="endpoint_url is required"):
        async with open_storage("mine", "s3", {}):
            pass


def test_listing_storages_loads_nothing_heavy() -> None:
    code = "import sys, deepforge.storage.registry; print({'obstore', 'httpx'} & set(sys.modules))"
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout

    assert output == b"set()\n"
