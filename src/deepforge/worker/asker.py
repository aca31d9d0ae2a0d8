"""Asking the server for jobs, in a thread."""

from __future__ import annotations

import queue
import threading
import time
import traceback
from typing import Any, Dict, Tuple

from deepforge.worker.server import Line, Token
from deepforge.worker.trouble import Refused, Trouble

WAIT_S = 25  # how long the server may keep a question that it has no job for
SILENCE_S = 60.0


class Asker(threading.Thread):
    """Sends one question at a time and puts the answer among the events."""

    def __init__(
        self, url: str, token: Token, events: "queue.SimpleQueue[Tuple[str, Any]]"
    ) -> None:
        super().__init__(name="asker", daemon=True)
        self._line = Line(url, token, silence_s=SILENCE_S)
        self._events = events
        self.offers = False
        self.asked_at = 0.0
        self._questions: "queue.SimpleQueue[Tuple[Dict[str, Any], Dict[str, str]]]" = (
            queue.SimpleQueue()
        )
        self.start()

    def ask(self, question: Dict[str, Any], *, waits: bool) -> None:
        self.offers = bool(question["availableProcesses"])
        self.asked_at = time.monotonic()
        self._questions.put((question, {"Prefer": "wait=%d" % WAIT_S} if waits else {}))

    def run(self) -> None:
        while True:
            question, headers = self._questions.get()
            answer: Any
            try:
                answer = self._line.ask("POST", "/rest/executor/worker", question, headers)
                if not isinstance(answer.get("jobsToStart"), list):
                    raise Trouble("what answers is no server of jobs", answered=True)
            except (Trouble, Refused) as error:
                answer = error
            except Exception as error:  # ours: the worker must not go deaf
                traceback.print_exc()
                answer = Trouble("%s: %s" % (type(error).__name__, error))
            self._events.put(("answer", (self, answer)))
