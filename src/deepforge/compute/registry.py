"""The compute adapters of this package, and how one is opened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deepforge import plugins, settings
from deepforge.compute.client import ComputeClient
from deepforge.compute.port import Host
from deepforge.plugins import AdapterInfo

MEMORY = AdapterInfo(
    id="memory",
    title="Memory",
    summary="Jobs of this process alone, forgotten when it ends. For tests.",
    settings="deepforge.compute.memory:MemorySettings",
    adapter="deepforge.compute.memory:MemoryCompute",
    on_server=True,
)

SERVER = AdapterInfo(
    id="server",
    title="Server Compute",
    summary="Jobs on the server's own machine, a bounded number at once.",
    settings="deepforge.compute.server.adapter:ServerSettings",
    adapter="deepforge.compute.server.adapter:ServerCompute",
    on_server=True,
)

SCISERVER = AdapterInfo(
    id="sciserver",
    title="SciServer Compute",
    summary="Batch jobs in containers of a SciServer site, in your name.",
    settings="deepforge.compute.sciserver.adapter:SciServerComputeSettings",
    adapter="deepforge.compute.sciserver.adapter:SciServerCompute",
    account=("site", "username"),
)

WORKER = AdapterInfo(
    id="worker",
    title="WebGME Worker",
    summary="Jobs on machines of your own, whose workers ask for them.",
    settings="deepforge.compute.worker:WorkerSettings",
    adapter="deepforge.compute.worker:WorkerCompute",
)


def open_compute(
    name: str, adapter_id: str, values: Mapping[str, Any], host: Host
) -> ComputeClient:
    """Make the client of one connection from its settings. It connects when it is entered or used.

    Raises `NotFound` for an adapter that is not installed, `ConfigError` naming the settings that
    are wrong.
    """
    info = plugins.adapter("compute", adapter_id)
    adapter = info.adapter_class()(settings.build(info.settings_class(), values), host)
    return ComputeClient(adapter, name)
