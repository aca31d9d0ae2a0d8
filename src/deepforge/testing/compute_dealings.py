"""The exam of the compute port: what a job gets, and what is told of it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import secrets
import time
import unittest

from deepforge.compute.port import PYTHON, JobHandle, JobReport, JobRequest, Resources
from deepforge.settings import declared
from deepforge.testing.compute_tools import (
    Examiner,
    Opener,
    log_of,
    new_key,
    python,
    state_of,
)


class Dealings(Examiner):
    """Handles, files and arguments, the log, release, refusals."""

    # -- poll and handles ------------------------------------------------------------------

    async def test_fifty_handles_are_answered_in_order(self, opener: Opener) -> None:
        async with opener() as adapter:
            unknown = await self.unknown(adapter)
            real = [
                await adapter.submit(python(f"raise SystemExit({number})")) for number in range(10)
            ]
            for handle in real:
                await self.ended(adapter, handle)
            handles = [real[place // 5] if place % 5 == 0 else unknown for place in range(50)]
            reports = await adapter.poll(handles)
            expected = [place // 5 if place % 5 == 0 else None for place in range(50)]
            assert [report.exit_code for report in reports] == expected
            assert {report.state for report in reports} == {"exited", "missing"}

    async def test_poll_of_nothing_is_nothing(self, opener: Opener) -> None:
        async with opener() as adapter:
            assert await adapter.poll([]) == []

    async def test_an_unknown_job_is_missing(self, opener: Opener) -> None:
        async with opener() as adapter:
            unknown = await self.unknown(adapter)
            assert (await state_of(adapter, unknown)).state == "missing"
            assert await log_of(adapter, unknown) == b""

    async def test_a_handle_works_in_another_adapter_as_json(self, opener: Opener) -> None:
        async with opener() as first:
            text = json.dumps(await first.submit(python("print('hello'); raise SystemExit(7)")))
        async with opener() as second:
            handle: JobHandle = json.loads(text)
            assert (await self.ended(second, handle)).exit_code == 7
            if second.capabilities.log != "none":
                assert await log_of(second, handle) == b"hello\n"

    async def test_jobs_go_on_when_the_adapter_is_closed(self, opener: Opener) -> None:
        async with opener() as first:
            handle = await first.submit(python("import time; time.sleep(0.3); raise SystemExit(5)"))
        await asyncio.sleep(0.1)
        async with opener() as second:
            assert (await self.ended(second, handle)).exit_code == 5

    # -- what the command gets -------------------------------------------------------------

    async def test_files_arrive_whole_whatever_their_names(self, opener: Opener) -> None:
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
        async with opener() as adapter:
            self.needs_log(adapter)
            handle = await adapter.submit(python(code, files=files))
            assert (await self.ended(adapter, handle)).exit_code == 0
            found = set((await log_of(adapter, handle)).decode().splitlines())
            assert {
                f"{hashlib.sha256(data).hexdigest()} {name!a}" for name, data in files.items()
            } <= found

    async def test_each_job_has_a_folder_of_its_own(self, opener: Opener) -> None:
        code = "import os; print(os.listdir('.')); open('trace', 'w').close()"
        async with opener() as adapter:
            self.needs_log(adapter)
            for _ in range(2):
                handle = await adapter.submit(python(code))
                await self.ended(adapter, handle)
                assert b"trace" not in await log_of(adapter, handle)

    async def test_arguments_arrive_as_they_are(self, opener: Opener) -> None:
        words = ("a b", "", 'it\'s "quoted"', "$HOME `id` ; | > *", "new\nline", "\\", "🦀", "-x")
        async with opener() as adapter:
            self.needs_log(adapter)
            code = "import sys; print(ascii(tuple(sys.argv[1:])))"
            handle = await adapter.submit(JobRequest(new_key(), (PYTHON, "-c", code, *words)))
            await self.ended(adapter, handle)
            assert (await log_of(adapter, handle)).decode().strip() == ascii(words)

    async def test_standard_input_is_empty(self, opener: Opener) -> None:
        async with opener() as adapter:
            report = await self.run(adapter, "import sys; sys.exit(len(sys.stdin.read()))")
            assert report.exit_code == 0

    async def test_our_own_environment_stays_here(self, opener: Opener) -> None:
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
            async with opener() as adapter:
                self.needs_log(adapter)
                handle = await adapter.submit(python(code))
                assert (await self.ended(adapter, handle)).exit_code == 0
                printed = await log_of(adapter, handle)
        finally:
            del os.environ["DEEPFORGE_EXAM_SECRET"]
        assert b"PATH" in printed
        assert secret.encode() not in printed

    # -- log -------------------------------------------------------------------------------

    async def test_the_log_has_output_and_errors(self, opener: Opener) -> None:
        async with opener() as adapter:
            self.needs_log(adapter)
            code = "import os; os.write(1, b'out\\n'); os.write(2, b'err\\n')"
            handle = await adapter.submit(python(code))
            await self.ended(adapter, handle)
            assert await log_of(adapter, handle) == b"out\nerr\n"

    async def test_the_log_is_given_from_any_byte(self, opener: Opener) -> None:
        async with opener() as adapter:
            self.needs_log(adapter)
            handle = await adapter.submit(python("import os; os.write(1, b'0123456789')"))
            await self.ended(adapter, handle)
            assert await log_of(adapter, handle, start=4) == b"456789"
            assert await log_of(adapter, handle, start=10) == b""
            assert await log_of(adapter, handle, start=1000) == b""

    async def test_the_log_may_hold_any_bytes(self, opener: Opener) -> None:
        async with opener() as adapter:
            self.needs_log(adapter)
            handle = await adapter.submit(python("import os; os.write(1, bytes(range(256)))"))
            await self.ended(adapter, handle)
            assert await log_of(adapter, handle) == bytes(range(256))

    async def test_a_long_log_is_whole(self, opener: Opener) -> None:
        async with opener() as adapter:
            self.needs_log(adapter)
            handle = await adapter.submit(python("for n in range(50000): print(n)"))
            await self.ended(adapter, handle)
            printed = await log_of(adapter, handle)
            assert printed == b"".join(b"%d\n" % number for number in range(50000))

    async def test_the_log_can_be_read_while_the_job_runs(self, opener: Opener) -> None:
        async with opener() as adapter:
            if adapter.capabilities.log != "live":
                raise unittest.SkipTest("a live log is not declared")
            code = "import os, time; os.write(1, b'up'); time.sleep(600)"
            handle = await adapter.submit(python(code))
            await self.printed(adapter, handle, b"up")
            assert (await state_of(adapter, handle)).state == "running"
            await adapter.cancel([handle])
            await self.ended(adapter, handle)

    async def test_a_live_log_is_read_on_as_it_grows_and_kept_when_its_job_is_ended(
        self, opener: Opener
    ) -> None:
        async with opener() as adapter:
            if adapter.capabilities.log != "live":
                raise unittest.SkipTest("a live log is not declared")
            self.needs_cancel(adapter)
            # A platform that ends a job with SIGINT would else have Python print a traceback.
            code = (
                "import os, signal, time\n"
                "signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
                "for n in range(100): os.write(1, b'%d\\xff\\r' % n); time.sleep(0.003)\n"
                "time.sleep(600)"
            )
            whole = b"".join(b"%d\xff\r" % number for number in range(100))
            handle = await adapter.submit(python(code))
            read, deadline = b"", time.monotonic() + self.within_s
            while len(read) < len(whole):
                assert time.monotonic() < deadline, f"{len(read)} bytes were given, and no more"
                read += await log_of(adapter, handle, start=len(read))
                await self.pause(adapter)
            assert read == whole
            await adapter.cancel([handle])
            await self.ended(adapter, handle)
            assert await log_of(adapter, handle) == whole

    # -- release ---------------------------------------------------------------------------

    async def test_release_may_be_repeated(self, opener: Opener) -> None:
        async with opener() as adapter:
            handle = await adapter.submit(python("raise SystemExit(3)"))
            before = await self.ended(adapter, handle)
            await adapter.release(handle)
            await adapter.release(handle)
            assert await state_of(adapter, handle) in (before, JobReport("missing"))
            await adapter.release(await self.unknown(adapter))

    async def test_release_does_not_touch_a_running_job(self, opener: Opener) -> None:
        async with opener() as adapter:
            code = "import time; time.sleep(0.5); open('still', 'w').close(); raise SystemExit(6)"
            handle = await adapter.submit(python(code))
            await self.running(adapter, handle)
            await adapter.release(handle)
            assert (await self.ended(adapter, handle)).exit_code == 6

    # -- choices and refusals --------------------------------------------------------------

    async def test_choices_are_for_settings_that_there_are(self, opener: Opener) -> None:
        async with opener() as adapter:
            found = await adapter.choices()
        assert set(found) <= {one.name for one in declared(type(adapter.settings))}
        assert bool(found) == adapter.capabilities.choices

    async def test_a_plain_request_is_not_refused(self, opener: Opener) -> None:
        async with opener() as adapter:
            assert list(await adapter.why_not(python(""))) == []

    async def test_gpus_are_refused_where_there_are_none(self, opener: Opener) -> None:
        async with opener() as adapter:
            if adapter.capabilities.gpus:
                raise unittest.SkipTest("gpus are declared")
            refusals = await adapter.why_not(python("", resources=Resources(gpus=1)))
            assert [refusal.part for refusal in refusals] == ["resources.gpus"]
