"""The original's JavaScript client on the original server and on ours, to the same end."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from typing import Any

from interop.webgme.server import Engine, run_script


def test_the_original_client_finds_no_difference(engine: Engine, our_server: str) -> None:
    theirs, ours = use(engine.url), use(our_server)

    for said in (theirs, ours):
        with zipfile.ZipFile(io.BytesIO(base64.b64decode(said.pop("zip")))) as archive:
            said["zipped"] = {one: archive.read(one).decode() for one in archive.namelist()}
        assert said["metadata"].pop("lastModified")
    assert theirs == ours
    assert "some text" == ours["text"] == ours["again"] == ours["zipped"]["copy.txt"]
    assert ("inner", "linked", "missing") == (ours["inner"], ours["linked"], ours["missing"])


def use(url: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(run_script("blob_client.js", url))
    return result
