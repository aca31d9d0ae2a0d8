"""The exam of the compute port: how jobs begin and end."""

from __future__ import annotations

import asyncio
import signal
import time
import unittest

from deepforge.compute.port import JobReport, JobRequest, Resources
from deepforge.errors import InvalidRequest
from deepforge.testing.compute_tools import (
    DAEMON,
    Examiner,
    Opener,
    log_of,
    must_be_silent,
    new_key,
    python,
    state_of,
)


class Endings(Examiner):
    """Ends, cancel, at most once, the queue."""

    async def test_check_passes_and_may_be_repeated(self, opener: Opener) -> None:
        async with opener() as adapter:
            await adapter.check()
            await adapter.check()

    # -- how jobs end ----------------------------------------------------------------------

    async def test_exit_code_0_is_reported(self, opener: Opener) -> None:
        async with opener() as adapter:
            report = await self.run(adapter, "")
            assert report == JobReport("exited", 0, "normal", report.message)

    async def test_exit_code_3_is_reported(self, opener: Opener) -> None:
        async with opener() as adapter:
            report = await self.run(adapter, "raise SystemExit(3)")
            assert report == JobReport("exited", 3, "normal", report.message)

    async def test_exit_code_255_is_reported(self, opener: Opener) -> None:
        async with opener() as adapter:
            report = await self.run(adapter, "import os; os._exit(255)")
            assert report == JobReport("exited", 255, "normal", report.message)

    async def test_a_job_killed_by_a_signal_has_its_negative_number(self, opener: Opener) -> None:
        async with opener() as adapter:
            code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
            report = await self.run(adapter, code)
            assert report == JobReport("exited", -signal.SIGKILL, "signal", report.message)

    async def test_a_job_past_its_time_limit_is_ended(self, opener: Opener) -> None:
        async with opener() as adapter:
            if not adapter.capabilities.walltime:
                raise unittest.SkipTest("walltime is not declared")
            began = time.monotonic()
            report = await self.run(
                adapter, "import time; time.sleep(600)", resources=Resources(walltime_s=0.5)
            )
            assert report.state == "exited"
            assert report.reason == "walltime"
            assert report.exit_code != 0
            assert time.monotonic() - began >= 0.5

    async def test_a_job_within_its_time_limit_ends_normally(self, opener: Opener) -> None:
        async with opener() as adapter:
            report = await self.run(adapter, "", resources=Resources(walltime_s=60))
            assert (report.exit_code, report.reason) == (0, "normal")

    async def test_a_program_that_does_not_exist_is_refused_or_fails(self, opener: Opener) -> None:
        async with opener() as adapter:
            request = JobRequest(new_key(), ("/no/such/program",))
            try:
                handle = await adapter.submit(request)
            except InvalidRequest:
                return
            report = await self.ended(adapter, handle)
            assert report.state == "exited"
            assert report.exit_code != 0

    async def test_states_only_move_forward(self, opener: Opener) -> None:
        async with opener() as adapter:
            handle = await adapter.submit(python("import time; time.sleep(0.2)"))
            seen = [await state_of(adapter, handle)]
            deadline = time.monotonic() + self.within_s
            while seen[-1].state in ("queued", "running") and time.monotonic() < deadline:
                await self.pause(adapter)
                seen.append(await state_of(adapter, handle))
            seen.append(await state_of(adapter, handle))
            order = ["queued", "running", "exited"]
            places = [order.index(report.state) for report in seen]
            assert places == sorted(places)
            assert seen[-1].exit_code == 0

    # -- cancel ----------------------------------------------------------------------------

    async def test_cancel_ends_a_running_job(self, opener: Opener) -> None:
        async with opener() as adapter:
            self.needs_cancel(adapter)
            handle = await adapter.submit(python("import time; print('up'); time.sleep(600)"))
            await self.running(adapter, handle)
            await adapter.cancel([handle])
            assert (await self.ended(adapter, handle)).state == "cancelled"

    async def test_cancel_right_after_submit_ends_the_job(self, opener: Opener) -> None:
        async with opener() as adapter:
            self.needs_cancel(adapter)
            handle = await adapter.submit(python("import time; time.sleep(600)"))
            await adapter.cancel([handle])
            assert (await self.ended(adapter, handle)).state == "cancelled"

    async def test_cancel_ends_a_job_that_ignores_it(self, opener: Opener) -> None:
        async with opener() as adapter:
            self.needs_cancel(adapter)
            code = (
                "import signal, time\n"
                "for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):\n"
                "    signal.signal(number, signal.SIG_IGN)\n"
                "print('up')\n"
                "time.sleep(600)"
            )
            handle = await adapter.submit(python(code))
            await self.printed(adapter, handle, b"up")
            await adapter.cancel([handle])
            assert (await self.ended(adapter, handle)).state == "cancelled"

    async def test_cancel_of_a_finished_job_changes_nothing(self, opener: Opener) -> None:
        async with opener() as adapter:
            handle = await adapter.submit(python("raise SystemExit(3)"))
            before = await self.ended(adapter, handle)
            await adapter.cancel([handle])
            assert await state_of(adapter, handle) == before

    async def test_cancel_of_unknown_jobs_is_fine_and_may_be_repeated(self, opener: Opener) -> None:
        async with opener() as adapter:
            unknown = await self.unknown(adapter)
            await adapter.cancel([unknown])
            await adapter.cancel([unknown, unknown])
            await adapter.cancel([])

    async def test_cancel_ends_descendants_too(self, opener: Opener) -> None:
        async with opener() as adapter:
            self.needs_cancel(adapter)
            self.needs_daemons(adapter)
            handle = await adapter.submit(python(DAEMON + "time.sleep(600)"))
            await self.printed(adapter, handle, b"tick")
            await adapter.cancel([handle])
            assert (await self.ended(adapter, handle)).state == "cancelled"
            await must_be_silent(adapter, handle)

    async def test_what_an_ended_job_left_behind_is_ended(self, opener: Opener) -> None:
        async with opener() as adapter:
            self.needs_daemons(adapter)
            handle = await adapter.submit(python(DAEMON + "time.sleep(0.1); sys.exit(3)"))
            report = await self.ended(adapter, handle)
            assert report.exit_code == 3
            await must_be_silent(adapter, handle)

    # -- at most once ----------------------------------------------------------------------

    async def test_the_same_key_runs_once(self, opener: Opener) -> None:
        async with opener() as adapter:
            request = python("print('ran')")
            first = await adapter.submit(request)
            second = await adapter.submit(request)
            assert first == second
            await self.ended(adapter, first)
            assert await adapter.submit(request) == first
            assert (await state_of(adapter, first)).state == "exited"
            if adapter.capabilities.log != "none":
                assert (await log_of(adapter, first)).split() == [b"ran"]

    async def test_the_same_key_from_many_at_once_runs_once(self, opener: Opener) -> None:
        async with opener() as one, opener() as other:
            request = python("print('ran')")
            handles = await asyncio.gather(
                *(adapter.submit(request) for adapter in (one, other, one, other, other))
            )
            assert all(handle == handles[0] for handle in handles)
            await self.ended(one, handles[0])
            if one.capabilities.log != "none":
                assert (await log_of(other, handles[0])).split() == [b"ran"]

    async def test_keys_are_compared_exactly(self, opener: Opener) -> None:
        async with opener() as adapter:
            base = new_key().ljust(62, "x")
            codes = {base: 4, base + "y": 5, base + "z": 6}
            handles = [
                await adapter.submit(python(f"raise SystemExit({code})", key=key))
                for key, code in codes.items()
            ]
            reports = [await self.ended(adapter, handle) for handle in handles]
            assert [report.exit_code for report in reports] == list(codes.values())

    # -- the queue -------------------------------------------------------------------------

    async def test_never_more_than_the_slots_run_and_the_first_come_first(
        self, opener: Opener
    ) -> None:
        async with opener() as adapter:
            slots = self.needs_slots(adapter)
            code = "import time; print(time.time()); time.sleep(0.2); print(time.time())"
            handles = [await adapter.submit(python(code)) for _ in range(3 * slots)]
            assert (await state_of(adapter, handles[-1])).state == "queued"
            for handle in handles:
                await self.ended(adapter, handle)
            spans = [
                (float(first), float(last))
                for first, last in [(await log_of(adapter, one)).split() for one in handles]
            ]
            begins = [first for first, _ in spans]
            for place, first in enumerate(begins):
                at_once = sum(begin <= first < end for begin, end in spans)
                assert at_once <= slots, "more jobs than slots run"
                # a job that was started earlier may still be on its way to its first print
                overtaken = sum(earlier > first for earlier in begins[:place])
                assert overtaken < slots, "a later job was started first"

    async def test_cancel_of_a_queued_job_means_it_never_runs(self, opener: Opener) -> None:
        async with opener() as adapter:
            slots = self.needs_slots(adapter)
            sleepers = [
                await adapter.submit(python("import time; time.sleep(600)")) for _ in range(slots)
            ]
            waiting = await adapter.submit(python("print('ran')"))
            assert (await state_of(adapter, waiting)).state == "queued"
            await adapter.cancel([waiting])
            assert (await self.ended(adapter, waiting)).state == "cancelled"
            await adapter.cancel(sleepers)
            for handle in sleepers:
                await self.ended(adapter, handle)
            assert await log_of(adapter, waiting) == b""
            assert (await state_of(adapter, waiting)).state == "cancelled"
