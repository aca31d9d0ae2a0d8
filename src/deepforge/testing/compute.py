"""The exam of the compute port: what every adapter must do, against the real service.

With pytest, subclass and give one fixture:

    class TestMyCompute(ComputeContract):
        @pytest.fixture
        def open_adapter(self, tmp_path: Path) -> OpenAdapter:
            return lambda: MyCompute(MySettings(...), Host(tmp_path))

Every call of it opens one more adapter on the same settings and the same host. Without pytest,
`await examine(open_adapter)`. Tests are chosen by what `capabilities` declares. The jobs are small
Python programs; they print, and the exam reads `log` (an adapter without a log is asked less).
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import itertools
import json
import os
import secrets
import signal
import time
import traceback
import unittest
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from deepforge.compute.port import (
    PYTHON,
    ComputeAdapter,
    JobHandle,
    JobReport,
    JobRequest,
    Resources,
)
from deepforge.errors import InvalidRequest

OpenAdapter = Callable[[], ComputeAdapter]

_DEFAULT = Resources()

_DAEMON = """
import os, sys, time
def tick():
    while True:
        os.write(1, b"tick\\n")
        time.sleep(0.02)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        tick()
    os._exit(0)
os.wait()
"""


class ComputeContract:
    """Subclass it, give the fixture `open_adapter`, and all tests apply."""

    slots: ClassVar[int | None] = None
    """How many jobs run at once on what `open_adapter` opens. None: the queue is not examined."""
    ends_daemons: ClassVar[bool] = True
    """Whether descendants are found that left the job's session. The port asks for it; an adapter
    that cannot do it must say so in its documentation."""
    within_s: ClassVar[float] = 30.0
    """How long a trivial job may take from submit to its report."""

    async def test_check_passes_and_may_be_repeated(self, open_adapter: OpenAdapter) -> None:
        async with open_adapter() as adapter:
            await adapter.check()
            await adapter.check()

    # -- how jobs end ----------------------------------------------------------------------

    async def test_exit_code_0_is_reported(self, open_adapter: OpenAdapter) -> None:
        async with open_adapter() as adapter:
            report = await self._run(adapter, "")
            assert report == JobReport("exited", 0, "normal", report.message)

    async def test_exit_code_3_is_reported(self, open_adapter: OpenAdapter) -> None:
        async with open_adapter() as adapter:
            report = await self._run(adapter, "raise SystemExit(3)")
            assert report == JobReport("exited", 3, "normal", report.message)

    async def test_exit_code_255_is_reported(self, open_adapter: OpenAdapter) -> None:
        async with open_adapter() as adapter:
            report = await self._run(adapter, "import os; os._exit(255)")
            assert report == JobReport("exited", 255, "normal", report.message)

    async def test_a_job_killed_by_a_signal_has_its_negative_number(
        self, open_adapter: OpenAdapter
    ) -> None:
        async with open_adapter() as adapter:
            code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
            report = await self._run(adapter, code)
            assert report == JobReport("exited", -signal.SIGKILL, "signal", report.message)

    async def test_a_job_past_its_time_limit_is_ended(self, open_adapter: OpenAdapter) -> None:
        async with open_adapter() as adapter:
            if not adapter.capabilities.walltime:
                raise unittest.SkipTest("walltime is not declared")
            began = time.monotonic()
            report = await self._run(
                adapter, "import time; time.sleep(600)", resources=Resources(walltime_s=0.5)
            )
            assert report.state == "exited"
            assert report.reason == "walltime"
            assert report.exit_code != 0
            assert time.monotonic() - began >= 0.5

    async def test_a_job_within_its_time_limit_ends_normally(
        self, open_adapter: OpenAdapter
    ) -> None:
        async with open_adapter() as adapter:
            report = await self._run(adapter, "", resources=Resources(walltime_s=60))
            assert (report.exit_code, report.reason) == (0, "normal")

    async def test_a_program_that_does_not_exist_is_refused_or_fails(
        self, open_adapter: OpenAdapter
    ) -> None:
        async with open_adapter() as adapter:
            request = JobRequest(new_key(), ("/no/such/program",))
            try:
                handle = await adapter.submit(request)
            except InvalidRequest:
                return
            report = await self._ended(adapter, handle)
            assert report.state == "exited"
            assert report.exit_code != 0

    async def test_states_only_move_forward(self, open_adapter: OpenAdapter) -> None:
        async with open_adapter() as adapter:
            handle = await adapter.submit(python("import time; time.sleep(0.2)"))
            seen = [await _poll(adapter, handle)]
            deadline = time.monotonic() + self.within_s
            while seen[-1].state in ("queued", "running") and time.monotonic() < deadline:
                await self._pause(adapter)
                seen.append(await _poll(adapter, handle))
            seen.append(await _poll(adapter, handle))
            order = ["queued", "running", "exited"]
            places = [order.index(report.state) for report in seen]
            assert places == sorted(places)
            assert seen[-1].exit_code == 0

    # -- cancel ----------------------------------------------------------------------------

    async def test_cancel_ends_a_running_job(self, open_adapter: OpenAdapter) -> None:
        async with open_adapter() as adapter:
            self._needs_cancel(adapter)
            handle = await adapter.submit(python("import time; print('up'); time.sleep(600)"))
            await self._running(adapter, handle)
            await adapter.cancel([handle])
            assert (await self._ended(adapter, handle)).state == "cancelled"

    async def test_cancel_right_after_submit_ends_the_job(self, open_adapter: OpenAdapter) -> None:
        async with open_adapter() as adapter:
            self._needs_cancel(adapter)
            handle = await adapter.submit(python("import time; time.sleep(600)"))
            await adapter.cancel([handle])
            assert (await self._ended(adapter, handle)).state == "cancelled"

    async def test_cancel_ends_a_job_that_ignores_it(self, open_adapter: OpenAdapter) -> None:
        async with open_adapter() as adapter:
            self._needs_cancel(adapter)
            code = (
                "import signal, time\n"
                "for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):\n"
                "    signal.signal(number, signal.SIG_IGN)\n"
                "print('up')\n"
                "time.sleep(600)"
            )
            handle = await adapter.submit(python(code))
            await self._printed(adapter, handle, b"up")
            await adapter.cancel([handle])
            assert (await self._ended(adapter, handle)).state == "cancelled"

    async def test_cancel_of_a_finished_job_changes_nothing(
        self, open_adapter: OpenAdapter
    ) -> None:
        async with open_adapter() as adapter:
            handle = await adapter.submit(python("raise SystemExit(3)"))
            before = await self._ended(adapter, handle)
            await adapter.cancel([handle])
            assert await _poll(adapter, handle) == before

    async def test_cancel_of_unknown_jobs_is_fine_and_may_be_repeated(
        self, open_adapter: OpenAdapter
    ) -> None:
        async with open_adapter() as adapter:
            unknown = await self._unknown(adapter)
            await adapter.cancel([unknown])
            await adapter.cancel([unknown, unknown])
            await adapter.cancel([])

    async def test_cancel_ends_descendants_too(self, open_adapter: OpenAdapter) -> None:
        async with open_adapter() as adapter:
            self._needs_cancel(adapter)
            self._needs_daemons(adapter)
            handle = await adapter.submit(python(_DAEMON + "time.sleep(600)"))
            await self._printed(adapter, handle, b"tick")
            await adapter.cancel([handle])
            assert (await self._ended(adapter, handle)).state == "cancelled"
            await _assert_silent(adapter, handle)

    async def test_what_an_ended_job_left_behind_is_ended(self, open_adapter: OpenAdapter) -> None:
        async with open_adapter() as adapter:
            self._needs_daemons(adapter)
            handle = await adapter.submit(python(_DAEMON + "time.sleep(0.1); sys.exit(3)"))
            report = await self._ended(adapter, handle)
            assert report.exit_code == 3
            await _assert_silent(adapter, handle)

    # -- at most once ----------------------------------------------------------------------

    async def test_the_same_key_runs_once(self, open_adapter: OpenAdapter) -> None:
        async with open_adapter() as adapter:
            request = python("print('ran')")
            first = await adapter.submit(request)
            second = await adapter.submit(request)
            assert first == second
            await self._ended(adapter, first)
            assert await adapter.submit(request) == first
            assert (await _poll(adapter, first)).state == "exited"
            if adapter.capabilities.log != "none":
                assert (await _log(adapter, first)).split() == [b"ran"]

    async def test_the_same_key_from_many_at_once_runs_once(
        self, open_adapter: OpenAdapter
    ) -> None:
        async with open_adapter() as one, open_adapter() as other:
            request = python("print('ran')")
            handles = await asyncio.gather(
                *(adapter.submit(request) for adapter in (one, other, one, other, other))
            )
            assert all(handle == handles[0] for handle in handles)
            await self._ended(one, handles[0])
            if one.capabilities.log != "none":
                assert (await _log(other, handles[0])).split() == [b"ran"]

    async def test_keys_are_compared_exactly(self, open_adapter: OpenAdapter) -> None:
        async with open_adapter() as adapter:
            base = new_key().ljust(62, "x")
            codes = {base: 4, base + "y": 5, base + "z": 6}
            handles = [
                await adapter.submit(python(f"raise SystemExit({code})", key=key))
                for key, code in codes.items()
            ]
            reports = [await self._ended(adapter, handle) for handle in handles]
            assert [report.exit_code for report in reports] == list(codes.values())

    # -- poll and handles ------------------------------------------------------------------

    async def test_fifty_handles_are_answered_in_order(self, open_adapter: OpenAdapter) -> None:
        async with open_adapter() as adapter:
            unknown = await self._unknown(adapter)
            real = [
                await adapter.submit(python(f"raise SystemExit({number})")) for number in range(10)
            ]
            for handle in real:
                await self._ended(adapter, handle)
            handles = [real[place // 5] if place % 5 == 0 else unknown for place in range(50)]
            reports = await adapter.poll(handles)
            expected = [place // 5 if place % 5 == 0 else None for place in range(50)]
            assert [report.exit_code for report in reports] == expected
            assert {report.state for report in reports} == {"exited", "missing"}

    async def test_poll_of_nothing_is_nothing(self, open_adapter: OpenAdapter) -> None:
        async with open_adapter() as adapter:
            assert await adapter.poll([]) == []

    async def test_an_unknown_job_is_missing(self, open_adapter: OpenAdapter) -> None:
        async with open_adapter() as adapter:
            unknown = await self._unknown(adapter)
            assert (await _poll(adapter, unknown)).state == "missing"
            assert await _log(adapter, unknown) == b""

    async def test_a_handle_works_in_another_adapter_as_json(
        self, open_adapter: OpenAdapter
    ) -> None:
        async with open_adapter() as first:
            text = json.dumps(await first.submit(python("print('hello'); raise SystemExit(7)")))
        async with open_adapter() as second:
            handle: JobHandle = json.loads(text)
            assert (await self._ended(second, handle)).exit_code == 7
            if second.capabilities.log != "none":
                assert await _log(second, handle) == b"hello\n"

    async def test_jobs_go_on_when_the_adapter_is_closed(self, open_adapter: OpenAdapter) -> None:
        async with open_adapter() as first:
            handle = await first.submit(python("import time; time.sleep(0.3); raise SystemExit(5)"))
        await asyncio.sleep(0.1)
        async with open_adapter() as second:
            assert (await self._ended(second, handle)).exit_code == 5

    # -- what the command gets -------------------------------------------------------------

    async def test_files_arrive_whole_whatever_their_names(self, open_adapter: OpenAdapter) -> None:
        files = {
            "plain.txt": b"plain",
            "empty": b"",
            "with space and 'quotes\".txt": b"quotes",
            "line\nbreak": b"newline",
            "émoji 🦀.bin": bytes(range(256)),
            "-dash $HOME `id`;": b"shell",
            "below/deep/er.txt": b"nested",
            "big.bin": bytes(range(256)) * 4096,
        }
        code = (
            "import hashlib, os\n"
            "for folder, _, names in os.walk('.'):\n"
            "    for name in names:\n"
            "        path = os.path.join(folder, name)\n"
            "        with open(path, 'rb') as file:\n"
            "            print(hashlib.sha256(file.read()).hexdigest(), ascii(path[2:]))\n"
        )
        async with open_adapter() as adapter:
            self._needs_log(adapter)
            handle = await adapter.submit(python(code, files=files))
            assert (await self._ended(adapter, handle)).exit_code == 0
            found = set((await _log(adapter, handle)).decode().splitlines())
            assert {f"{_sha256(data)} {name!a}" for name, data in files.items()} <= found

    async def test_each_job_has_a_folder_of_its_own(self, open_adapter: OpenAdapter) -> None:
        code = "import os; print(os.listdir('.')); open('trace', 'w').close()"
        async with open_adapter() as adapter:
            self._needs_log(adapter)
            for _ in range(2):
                handle = await adapter.submit(python(code))
                await self._ended(adapter, handle)
                assert b"trace" not in await _log(adapter, handle)

    async def test_arguments_arrive_as_they_are(self, open_adapter: OpenAdapter) -> None:
        words = ("a b", "", 'it\'s "quoted"', "$HOME `id` ; | > *", "new\nline", "\\", "🦀", "-x")
        async with open_adapter() as adapter:
            self._needs_log(adapter)
            code = "import sys; print(ascii(tuple(sys.argv[1:])))"
            handle = await adapter.submit(JobRequest(new_key(), (PYTHON, "-c", code, *words)))
            await self._ended(adapter, handle)
            assert (await _log(adapter, handle)).decode().strip() == ascii(words)

    async def test_standard_input_is_empty(self, open_adapter: OpenAdapter) -> None:
        async with open_adapter() as adapter:
            report = await self._run(adapter, "import sys; sys.exit(len(sys.stdin.read()))")
            assert report.exit_code == 0

    async def test_our_own_environment_stays_here(self, open_adapter: OpenAdapter) -> None:
        secret = secrets.token_hex(16)
        code = (
            "import os\n"
            "print(dict(os.environ))\n"
            "if os.path.exists('/proc/self/environ'):\n"
            "    print(open('/proc/self/environ', 'rb').read())\n"
            "    print(open(f'/proc/{os.getppid()}/environ', 'rb').read())\n"
        )
        os.environ["DEEPFORGE_EXAM_SECRET"] = secret
        try:
            async with open_adapter() as adapter:
                self._needs_log(adapter)
                handle = await adapter.submit(python(code))
                assert (await self._ended(adapter, handle)).exit_code == 0
                printed = await _log(adapter, handle)
        finally:
            del os.environ["DEEPFORGE_EXAM_SECRET"]
        assert b"PATH" in printed
        assert secret.encode() not in printed

    # -- log -------------------------------------------------------------------------------

    async def test_the_log_has_output_and_errors(self, open_adapter: OpenAdapter) -> None:
        async with open_adapter() as adapter:
            self._needs_log(adapter)
            code = "import os; os.write(1, b'out\\n'); os.write(2, b'err\\n')"
            handle = await adapter.submit(python(code))
            await self._ended(adapter, handle)
            assert await _log(adapter, handle) == b"out\nerr\n"

    async def test_the_log_is_given_from_any_byte(self, open_adapter: OpenAdapter) -> None:
        async with open_adapter() as adapter:
            self._needs_log(adapter)
            handle = await adapter.submit(python("import os; os.write(1, b'0123456789')"))
            await self._ended(adapter, handle)
            assert await _log(adapter, handle, start=4) == b"456789"
            assert await _log(adapter, handle, start=10) == b""
            assert await _log(adapter, handle, start=1000) == b""

    async def test_the_log_may_hold_any_bytes(self, open_adapter: OpenAdapter) -> None:
        async with open_adapter() as adapter:
            self._needs_log(adapter)
            handle = await adapter.submit(python("import os; os.write(1, bytes(range(256)))"))
            await self._ended(adapter, handle)
            assert await _log(adapter, handle) == bytes(range(256))

    async def test_a_long_log_is_whole(self, open_adapter: OpenAdapter) -> None:
        async with open_adapter() as adapter:
            self._needs_log(adapter)
            handle = await adapter.submit(python("for n in range(200000): print(n)"))
            await self._ended(adapter, handle)
            printed = await _log(adapter, handle)
            assert printed == b"".join(b"%d\n" % number for number in range(200000))

    async def test_the_log_can_be_read_while_the_job_runs(self, open_adapter: OpenAdapter) -> None:
        async with open_adapter() as adapter:
            if adapter.capabilities.log != "live":
                raise unittest.SkipTest("a live log is not declared")
            code = "import os, time; os.write(1, b'up'); time.sleep(600)"
            handle = await adapter.submit(python(code))
            await self._printed(adapter, handle, b"up")
            assert (await _poll(adapter, handle)).state == "running"
            await adapter.cancel([handle])
            await self._ended(adapter, handle)

    # -- release ---------------------------------------------------------------------------

    async def test_release_may_be_repeated(self, open_adapter: OpenAdapter) -> None:
        async with open_adapter() as adapter:
            handle = await adapter.submit(python("raise SystemExit(3)"))
            before = await self._ended(adapter, handle)
            await adapter.release(handle)
            await adapter.release(handle)
            assert await _poll(adapter, handle) in (before, JobReport("missing"))
            await adapter.release(await self._unknown(adapter))

    async def test_release_does_not_touch_a_running_job(self, open_adapter: OpenAdapter) -> None:
        async with open_adapter() as adapter:
            code = "import time; time.sleep(0.5); open('still', 'w').close(); raise SystemExit(6)"
            handle = await adapter.submit(python(code))
            await self._running(adapter, handle)
            await adapter.release(handle)
            assert (await self._ended(adapter, handle)).exit_code == 6

    # -- refusals --------------------------------------------------------------------------

    async def test_a_plain_request_is_not_refused(self, open_adapter: OpenAdapter) -> None:
        async with open_adapter() as adapter:
            assert list(adapter.why_not(python(""))) == []

    async def test_gpus_are_refused_where_there_are_none(self, open_adapter: OpenAdapter) -> None:
        async with open_adapter() as adapter:
            if adapter.capabilities.gpus:
                raise unittest.SkipTest("gpus are declared")
            refusals = adapter.why_not(python("", resources=Resources(gpus=1)))
            assert [refusal.part for refusal in refusals] == ["resources.gpus"]

    # -- the queue -------------------------------------------------------------------------

    async def test_never_more_than_the_slots_run_and_the_first_come_first(
        self, open_adapter: OpenAdapter
    ) -> None:
        async with open_adapter() as adapter:
            slots = self._needs_slots(adapter)
            code = "import time; print(time.time()); time.sleep(0.2); print(time.time())"
            handles = [await adapter.submit(python(code)) for _ in range(3 * slots)]
            assert (await _poll(adapter, handles[-1])).state == "queued"
            for handle in handles:
                await self._ended(adapter, handle)
            spans = [
                (float(first), float(last))
                for first, last in [(await _log(adapter, one)).split() for one in handles]
            ]
            begins = [first for first, _ in spans]
            # within one round of the slots, which process reaches its print first is chance
            rounds = [begins[place : place + slots] for place in range(0, len(begins), slots)]
            assert all(max(a) < min(b) for a, b in itertools.pairwise(rounds))
            for first, _ in spans:
                at_once = sum(begin <= first < end for begin, end in spans)
                assert at_once <= slots

    async def test_cancel_of_a_queued_job_means_it_never_runs(
        self, open_adapter: OpenAdapter
    ) -> None:
        async with open_adapter() as adapter:
            slots = self._needs_slots(adapter)
            sleepers = [
                await adapter.submit(python("import time; time.sleep(600)")) for _ in range(slots)
            ]
            waiting = await adapter.submit(python("print('ran')"))
            assert (await _poll(adapter, waiting)).state == "queued"
            await adapter.cancel([waiting])
            assert (await self._ended(adapter, waiting)).state == "cancelled"
            await adapter.cancel(sleepers)
            for handle in sleepers:
                await self._ended(adapter, handle)
            assert await _log(adapter, waiting) == b""
            assert (await _poll(adapter, waiting)).state == "cancelled"

    # -- helpers ---------------------------------------------------------------------------

    async def _run(
        self, adapter: ComputeAdapter, code: str, *, resources: Resources = _DEFAULT
    ) -> JobReport:
        return await self._ended(adapter, await adapter.submit(python(code, resources=resources)))

    async def _ended(self, adapter: ComputeAdapter, handle: JobHandle) -> JobReport:
        """Poll until the job is over, and see that it stays so."""
        deadline = time.monotonic() + self.within_s
        while True:
            report = await _poll(adapter, handle)
            if report.state not in ("queued", "running"):
                assert await _poll(adapter, handle) == report, "a final report changed"
                return report
            assert time.monotonic() < deadline, f"still {report.state} after {self.within_s:.0f} s"
            await self._pause(adapter)

    async def _running(self, adapter: ComputeAdapter, handle: JobHandle) -> None:
        deadline = time.monotonic() + self.within_s
        while (report := await _poll(adapter, handle)).state != "running":
            assert report.state == "queued", f"the job is {report.state}"
            assert time.monotonic() < deadline, "the job does not start"
            await self._pause(adapter)

    async def _printed(self, adapter: ComputeAdapter, handle: JobHandle, text: bytes) -> None:
        """Wait until a running job has printed something; without a live log, until it runs."""
        if adapter.capabilities.log != "live":
            await self._running(adapter, handle)
            return
        deadline = time.monotonic() + self.within_s
        while text not in await _log(adapter, handle):
            assert time.monotonic() < deadline, f"{text!r} was never printed"
            await self._pause(adapter)

    async def _unknown(self, adapter: ComputeAdapter) -> JobHandle:
        """A handle of this adapter whose job nobody knows any more."""
        handle = await adapter.submit(python(""))
        await self._ended(adapter, handle)
        await adapter.release(handle)
        if (await _poll(adapter, handle)).state != "missing":
            raise unittest.SkipTest("the backend does not forget released jobs")
        return handle

    async def _pause(self, adapter: ComputeAdapter) -> None:
        await asyncio.sleep(min(adapter.capabilities.poll_every_s, 0.02))

    def _needs_cancel(self, adapter: ComputeAdapter) -> None:
        if not adapter.capabilities.cancel_running:
            raise unittest.SkipTest("cancel_running is not declared")

    def _needs_log(self, adapter: ComputeAdapter) -> None:
        if adapter.capabilities.log == "none":
            raise unittest.SkipTest("a log is not declared")

    def _needs_daemons(self, adapter: ComputeAdapter) -> None:
        if adapter.capabilities.log != "live" or not self.ends_daemons:
            raise unittest.SkipTest("descendants in sessions of their own are not looked for")

    def _needs_slots(self, adapter: ComputeAdapter) -> int:
        self._needs_log(adapter)
        if self.slots is None:
            raise unittest.SkipTest("the number of slots is not said")
        return self.slots


@dataclass(frozen=True)
class Outcome:
    """How one test of the exam went. `detail` is the reason of a skip or a failure."""

    test: str
    status: str
    """`passed`, `skipped` or `failed`."""
    detail: str = ""


async def examine(
    open_adapter: OpenAdapter, contract: type[ComputeContract] = ComputeContract
) -> list[Outcome]:
    """Take the exam without pytest, test by test, in the order they are written."""
    outcomes = []
    for name, test in inspect.getmembers(contract, inspect.iscoroutinefunction):
        if not name.startswith("test_"):
            continue
        try:
            await test(contract(), open_adapter)
        except unittest.SkipTest as reason:
            outcomes.append(Outcome(name, "skipped", str(reason)))
        except Exception:  # whatever it is, it is this test's result
            outcomes.append(Outcome(name, "failed", traceback.format_exc()))
        else:
            outcomes.append(Outcome(name, "passed"))
    return outcomes


def new_key() -> str:
    """A job key nobody has used."""
    return "exam-" + secrets.token_hex(8)


def python(
    code: str,
    *,
    key: str | None = None,
    files: Mapping[str, bytes] | None = None,
    resources: Resources = _DEFAULT,
) -> JobRequest:
    """A job that runs a few lines of Python."""
    return JobRequest(
        key or new_key(), (PYTHON, "-u", "-c", code), files=files or {}, resources=resources
    )


async def _poll(adapter: ComputeAdapter, handle: JobHandle) -> JobReport:
    reports: Sequence[JobReport] = await adapter.poll([handle])
    assert len(reports) == 1, "one report for each handle"
    return reports[0]


async def _log(adapter: ComputeAdapter, handle: JobHandle, *, start: int = 0) -> bytes:
    return b"".join([chunk async for chunk in adapter.log(handle, start=start)])


async def _assert_silent(adapter: ComputeAdapter, handle: JobHandle) -> None:
    """Nobody who ticks every 20 ms is left."""
    before = len(await _log(adapter, handle))
    await asyncio.sleep(0.3)
    assert len(await _log(adapter, handle)) == before, "something of the job still prints"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
