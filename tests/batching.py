"""A provider with a batch interface, whose clock a test turns: each look at a job takes it some hours further."""

import json
import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from serving import Served, answer, prompt_of

NOT_FOUND = answer('{"error": {"message": "No such thing"}}', "404 Not Found")
Fate = Callable[["AtProvider"], None]


@dataclass
class AtProvider:
    """A job as its provider has it."""

    name: str
    file: str
    lines: list[dict]
    made: float
    hours: float = 20.0
    """Until it ends."""
    end: str = "completed"
    """Its status then."""
    answers: int = 10**9
    """How many of its questions are answered at most."""
    results: list[tuple[str, dict]] | None = None
    errors: list[dict] = field(default_factory=list)
    lost: bool = False
    """Whether nothing is known of it from then on."""


@dataclass
class Provider(Served):
    """Answers files of questions when their time has come, and loses or cuts short what a test says.

    Attributes:
        clock: In hours.
        fates: What becomes of each job, in the order in which they are made; further ones are completed.
        answers: How often each prompt was answered in a job.
        lines: How often each prompt was in a file that became a job.
        calls: Every request but the chats.
        shuffles: The order of results.
    """

    clock: float = 0.0
    step: float = 7.0
    fates: list[Fate] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    jobs: dict[str, AtProvider] = field(default_factory=dict)
    answers: Counter[str] = field(default_factory=Counter)
    lines: Counter[str] = field(default_factory=Counter)
    calls: list[str] = field(default_factory=list)
    shuffles: random.Random = field(default_factory=lambda: random.Random(3))
    extra_lines: list[str] = field(default_factory=list)
    made: list[str] = field(default_factory=list)
    hidden: int = 0
    """For so many looks a job is not found, though the list has it."""

    async def responds(self, method: str, path: str, content: bytes) -> bytes | None:
        place, _, query = path.removeprefix("/v1/").partition("?")
        if place == "chat/completions":
            return await self.chat(json.loads(content))
        self.calls.append(f"{method} {place}")
        match method, *place.split("/"):
            case "POST", "files":
                return self._upload(content)
            case "POST", "batches":
                return self._make(json.loads(content))
            case "GET", "batches":
                page, more = self._page(query)
                return answer(json.dumps({"data": [self._told(job) for job in page], "has_more": more}))
            case "GET", "batches", name:
                return self._look(name)
            case "GET", "files", name, "content":
                return await self._results(name)
            case "DELETE", "files", name:
                del self.files[name]
                return answer("{}")
        return await super().responds(method, path, content)

    def _upload(self, content: bytes) -> bytes:
        assert b'name="purpose"\r\n\r\nbatch\r\n' in content
        (body,) = re.findall(rb'name="file".*?\r\n\r\n(.*?)\r\n--', content, re.DOTALL)
        name = f"file-{len(self.calls)}"
        self.files[name] = body
        return answer(json.dumps({"id": name}))

    def _make(self, wanted: dict) -> bytes:
        assert wanted["endpoint"] == "/v1/chat/completions" and wanted["completion_window"] == "24h"
        lines = [json.loads(line) for line in self.files[wanted["input_file_id"]].splitlines()]
        job = AtProvider(f"batch_{len(self.made)}", wanted["input_file_id"], lines, self.clock)
        fate = self.fates.pop(0) if self.fates else lambda job: None
        fate(job)
        self.jobs[job.name] = job
        self.made.append(job.name)
        self.lines.update(prompt_of(line["body"]) for line in lines)
        return answer(json.dumps(self._told(job)))

    def _look(self, name: str) -> bytes:
        self.clock += self.step
        job = self.jobs.get(name)
        if self.hidden:
            self.hidden -= 1
            return NOT_FOUND
        if job is None or (job.lost and self._has_ended(job)):
            self.jobs.pop(name, None)
            return NOT_FOUND
        return answer(json.dumps(self._told(job)))

    def _page(self, query: str) -> tuple[list[AtProvider], bool]:
        """Two jobs, from the newest on, and whether there are more."""
        jobs, after = [*reversed(self.jobs.values())], query.partition("&after=")[2]
        left = jobs[[job.name for job in jobs].index(after) + 1 :] if after else jobs
        return left[:2], len(left) > 2

    def _has_ended(self, job: AtProvider) -> bool:
        return self.clock >= job.made + job.hours

    def _told(self, job: AtProvider) -> dict:
        told = {"id": job.name, "input_file_id": job.file, "status": "in_progress", "request_counts": None}
        if self._has_ended(job):
            told["status"] = job.end
            if job.end == "failed":
                told["errors"] = {"data": job.errors}
            else:
                told |= {"output_file_id": f"out-{job.name}", "error_file_id": f"err-{job.name}"}
        return told

    async def _results(self, name: str) -> bytes:
        which, _, job_name = name.partition("-")
        job = self.jobs[job_name]
        if job.results is None:
            job.results = [
                await self._result(line, late=number >= job.answers) for number, line in enumerate(job.lines)
            ]
            self.shuffles.shuffle(job.results)
        texts = [json.dumps(row) for of, row in job.results if of == which]
        return answer("\n".join([*texts, *self.extra_lines]) + "\n", kind="application/jsonl")

    async def _result(self, line: dict, *, late: bool) -> tuple[str, dict]:
        if late:
            error = {"code": "batch_expired", "message": "This request could not be executed in time."}
            return "err", {"custom_id": line["custom_id"], "response": None, "error": error}
        sent = await self.script(line["body"], 0)
        head, _, body = sent.partition(b"\r\n\r\n")
        status = int(head.split()[1])
        self.answers[prompt_of(line["body"])] += status == 200
        told = {"status_code": status, "body": json.loads(body)}
        return "out" if status == 200 else "err", {"custom_id": line["custom_id"], "response": told}
