"""The jobs that providers of batch interfaces have, as the answer store knows them: whoever comes later finds them."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from parityalign.core import JobForm
from parityalign.engines.spending import Spent
from parityalign.engines.store_file import StoreFile, row_digest


@dataclass(frozen=True)
class OpenJob:
    """Questions that are at a provider."""

    model: str
    """The model's name."""
    file: str
    """The provider's name of the file of questions."""
    questions: Mapping[str, int]
    """Their keys, and how often each has been in a job or asked for nothing before."""
    form: JobForm
    max_new_tokens: int
    made: float
    """When, in seconds since 1970."""
    job: str = ""
    """The provider's name of the job; empty while it is not known whether there is one."""
    told: str = ""
    """How far it is, in the provider's words."""
    done: int = 0
    """Questions with a result, when it was looked at last."""
    run: str = ""
    stage: str = ""


class JobBook:
    """The open jobs in an answer store."""

    def __init__(self, file: StoreFile, run: str, stage: str) -> None:
        """Takes the store's file, and the run and stage by which new jobs are booked."""
        self._file = file
        self._run = run
        self._stage = stage

    def all(self) -> list[OpenJob]:
        """All of them, of every run that shares the store, in the order in which they were made."""
        if self._file.read_only and not self._file.has_table("jobs"):
            return []
        rows = self._file.rows("SELECT * FROM jobs ORDER BY made, file")
        return [_job(row) for *row, digest in rows if digest == row_digest(*row)]

    def holding(self, model: str, keys: Collection[str]) -> list[OpenJob]:
        """Those of a model that hold any of these questions."""
        return [job for job in self.all() if job.model == model and not job.questions.keys().isdisjoint(keys)]

    def waiting(self, keys: Collection[str]) -> int:
        """How many of these questions are in one."""
        return len({*keys} & {key for job in self.all() for key in job.questions})

    def is_own(self, job: OpenJob) -> bool:
        """Whether this run made it; no other process works in its folder."""
        return job.run == self._run

    def held(self, longest_prompt: int) -> Spent:
        """What this run's open jobs will have spent at most, if no prompt is longer than this."""
        held = Spent(longest_prompt=longest_prompt)
        for job in self.all():
            if self.is_own(job):
                prompt, reply = len(job.questions) * longest_prompt, len(job.questions) * job.max_new_tokens
                held += Spent(
                    requests=len(job.questions),
                    prompt_tokens=prompt,
                    completion_tokens=reply,
                    prompt_tokens_in_jobs=prompt,
                    completion_tokens_in_jobs=reply,
                )
        return held

    def keep(self, job: OpenJob) -> None:
        """Notes a job, or how far it is now; on the disk when this returns.

        Raises:
            WorkFailed: The disk refused.
        """
        form = {"sent": job.form.sent, "left_out": job.form.left_out, "max_new_tokens": job.max_new_tokens}
        row = (
            *(job.model, job.file, job.run or self._run, job.stage or self._stage, job.made),
            *(json.dumps(each) for each in (dict(job.questions), form)),
            json.dumps({"job": job.job, "told": job.told, "done": job.done}),
        )
        with self._file.writing() as file:
            file.execute("INSERT OR REPLACE INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (*row, row_digest(*row)))

    def drop(self, job: OpenJob) -> None:
        """Forgets a job: what it answered is kept, or it is gone."""
        with self._file.writing() as file:
            file.execute("DELETE FROM jobs WHERE model = ? AND file = ?", (job.model, job.file))


def _job(row: list[Any]) -> OpenJob:
    model, file, run, stage, made, *texts = row
    questions, form, seen = map(json.loads, texts)
    return OpenJob(
        model,
        file,
        questions,
        JobForm(tuple(form["sent"]), tuple(form["left_out"])),
        form["max_new_tokens"],
        made,
        run=run,
        stage=stage,
        **seen,
    )
