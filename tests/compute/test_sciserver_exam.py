"""The exam of SciServer Compute: a stand-in in between, which runs the jobs for real."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from compute.sciserver_rig import PASSWORD, USER, opening
from deepforge.testing.compute import ComputeContract, Opener
from deepforge.testing.sciserver import running


class TestSciServerExam(ComputeContract):
    slots = 2

    @pytest.fixture
    def opener(self, tmp_path: Path) -> Iterator[Opener]:
        with running(tmp_path / "site", tick_s=0.01) as site:
            site.users.add_user(USER, PASSWORD)
            for domain in site.state.domains:
                domain.jobs_per_user = self.slots
            yield opening(site, tmp_path)
