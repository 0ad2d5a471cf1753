"""The models of a run: loaded on demand, with the answers so far, and described in the manifest of the stage."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

from parityalign import engines
from parityalign.config import Hosting, LoadingSettings, RaySettings, RunConfig, backend_of, is_path, split_model
from parityalign.core import (
    ANSWERS,
    HALF_WRITTEN,
    SERVERS,
    Artifact,
    Decoding,
    Described,
    Model,
    Request,
    RunFolder,
    Task,
    ThisMachine,
    Work,
    WorkFailed,
    Workplace,
    content_id,
    room_for_pictures,
)
from parityalign.engines import AnswerStore, CachedModel, Cluster, ModelToLoad, RemoteModel, Replicas
from parityalign.models import (
    asked_with,
    fingerprint,
    give_back_memory,
    load_model,
    model_folder,
    shares_of_machine,
    stored_parameters,
)
from parityalign.pipeline.engine_parity import compare_engines
from parityalign.pipeline.old_answers import Known, Old, holds_old_answers, read_old_answers, remember_served

_SECOND: Final = "second_teacher"
_Role = Literal["teacher", "second_teacher", "before", "after"]
"""Whose answers: one of the teachers', or the student's before or after training."""
_THEN = ", then "
_NO_TASKS: Mapping[str, Task] = MappingProxyType({})


class Ahead(NamedTuple):
    """Questions that are about to be asked."""

    model: str
    role: _Role
    missing: int
    """How many will be asked."""
    total: int
    """With those whose answers are kept."""
    remote: bool
    """Whether by a server of somebody, who may charge for it."""
    waiting: int = 0
    """How many of those without an answer are at the provider already."""


class Lacking(Exception):
    """In a dry run: something would be asked.

    Attributes:
        ahead: What.
    """

    def __init__(self, ahead: Ahead) -> None:
        super().__init__(f"{ahead.missing} of {ahead.total} questions to {ahead.model} are not answered")
        self.ahead = ahead


class _Unloaded(NamedTuple):
    """A model in a dry run, of which nothing is known but its spec."""

    name: str
    special_tokens: frozenset[str] = frozenset()

    def generate(self, requests: Sequence[Request], _decoding: Decoding) -> list[str]:
        """Never called: a dry run ends before."""
        raise ValueError(f"{len(requests)} questions to {self.name} in a dry run")


class RunModels:
    """The models of one run, one in memory at a time."""

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        ahead: Callable[[Ahead], None],
        *,
        tasks: Mapping[str, Task] = _NO_TASKS,
        tell: Callable[[str], None] = lambda line: None,
        dry: bool = False,
    ) -> None:
        """Loads nothing yet.

        Args:
            config: The configuration.
            folder: The run folder; the answer store lies there unless the configuration names another file.
            ahead: Called before a model is asked; it may raise to prevent that.
            tasks: By name; decide which answers of an old run folder are still answers.
            tell: Called with what servers that are started do.
            dry: The store is only looked at, and no model is loaded; raises `Lacking` where one would be asked.
        """
        self._config = config
        self._ahead = ahead
        self._tasks = tasks
        self._tell = tell
        self._dry = dry
        self._folder = folder
        self._stage = ""
        self._artifact: Artifact | None = None
        self._made: list[CachedModel] = []
        self._remote: dict[tuple[str, LoadingSettings], RemoteModel] = {}
        self._facts: dict[str, Mapping[str, str]] = {}

    @cached_property
    def store(self) -> AnswerStore:
        """The answer store."""
        path = self._place_of_store()
        store = AnswerStore(path, run=self._folder.id, read_only=self._dry)
        if self._dry and self._is_old(path):
            self._read_old(store)
        return store

    def carry_over(self) -> int:
        """Begins the store of a run folder that has none with the answers in its files, before one is replaced.

        Returns:
            How many there were; 0 where there is a store already.
        """
        path = self._place_of_store()
        if not self._is_old(path):
            return 0
        part = path.with_name(path.name + HALF_WRITTEN)  # in its place when it is whole
        for each in (part, *(part.with_name(part.name + end) for end in ("-wal", "-shm"))):
            each.unlink(missing_ok=True)
        with closing(AnswerStore(part, run=self._folder.id)) as store:
            count = self._read_old(store)
        if part.with_name(f"{part.name}-wal").exists():  # SQLite says nothing where it cannot put all in one file
            raise WorkFailed(f"cannot write the answer store {path}: is the disk full?\nThen run the same command.")
        part.replace(path)
        return count

    def _place_of_store(self) -> Path:
        return self._config.answers or self._folder.path / ANSWERS

    def _is_old(self, store: Path) -> bool:
        return not store.exists() and holds_old_answers(self._folder.path)

    def _read_old(self, store: AnswerStore) -> int:
        remember_served(store, self._folder.path, self._config)
        models: dict[str, Known] = {}
        for role, known in (("teacher", self.teacher_fingerprint), ("student", self.student_fingerprint)):
            spec, loading = getattr(self._config, role), getattr(self._config.loading, role)
            if not backend_of(spec).remote:
                models[role] = Known(known, known)
            elif "#" in spec:
                models[role] = Known(
                    known, _as_identity(split_model(spec)[1], asked_with(loading, self._config.server))
                )
        return read_old_answers(store, Old(self._folder.path, self._tasks, models))

    @cached_property
    def teacher(self) -> CachedModel:
        """The teacher."""
        return self._cached(self._config.teacher, self._config.loading.teacher, "teacher")

    @cached_property
    def student(self) -> CachedModel:
        """The student as it was before levelling."""
        return self._cached(self._config.student, self._config.loading.student, "before")

    @cached_property
    def second_teacher(self) -> CachedModel | None:
        """The second teacher, if the run has one."""
        spec = self._config.second_teacher
        return self._cached(spec, self._config.loading.second_teacher, _SECOND) if spec else None

    def trained(self, student: Artifact) -> CachedModel:
        """A student that this run has trained, loaded as the student before."""
        loading = self._config.loading.student.for_own_folder()
        return self._cached(f"hf:{student.path}", loading, "after", student.digest)

    @cached_property
    def teacher_fingerprint(self) -> str:
        """The teacher's fingerprint; computed once, since a model may be large."""
        return self._fingerprint(self._config.teacher, self._config.loading.teacher)

    @cached_property
    def student_fingerprint(self) -> str:
        """The original student's fingerprint."""
        return self._fingerprint(self._config.student, self._config.loading.student)

    @cached_property
    def second_fingerprint(self) -> str:
        """The second teacher's fingerprint; empty if there is none."""
        spec = self._config.second_teacher
        return self._fingerprint(spec, self._config.loading.second_teacher) if spec else ""

    def _fingerprint(self, spec: str, loading: LoadingSettings) -> str:
        return fingerprint(spec, loading, self._config.server, self._config.engine)

    def begin(self, stage: str, artifact: Artifact) -> None:
        """From now on models are asked for this stage, and its artifact's manifest records how they ran."""
        self._stage, self._artifact = stage, artifact
        self.store.begin_stage(stage)
        artifact.also = lambda: self._asked_elsewhere(stage)

    def close(self) -> None:
        """Lets go of the models and closes the store."""
        self.free()
        if self._cluster:
            self._cluster.close()
        if "store" in vars(self):
            self.store.close()

    def _cached(self, spec: str, loading: LoadingSettings, role: _Role, digest: str = "") -> CachedModel:
        identity = digest or self._identity(spec, loading, role)
        backend = backend_of(spec)

        def before(missing: int, total: int, waiting: int) -> None:
            ahead = Ahead(spec, role, missing, total, backend.connect is not None, waiting)
            if self._dry:
                raise Lacking(ahead)
            self._ahead(ahead)
            self._remember(role)  # it may be in memory since an earlier stage

        load = lambda: self._load(spec, loading, role)  # noqa: E731
        thinking = loading.thinking_tokens
        shows = backend.shows and not thinking  # as in RunConfig.shows
        to_ask = None if backend.remote or self._dry else partial(self._load_to_ask, spec, loading, role)
        made = CachedModel(
            identity, load, self.store, load_to_ask=to_ask, shows=shows, thinking_tokens=thinking, before=before
        )
        self._made.append(made)
        return made

    def _identity(self, spec: str, loading: LoadingSettings, role: _Role) -> str:
        """What a model is, by content; one at an address is what its server calls it."""
        if backend_of(spec).connect is None:
            own = {"teacher": self.teacher_fingerprint, _SECOND: self.second_fingerprint}
            return own.get(role) or self.student_fingerprint
        name = self.store.place_of(split_model(spec)[1])
        if "#" not in name:
            name = self._load(spec, loading, role).name
        return _as_identity(name, asked_with(loading, self._config.server))

    def _load(self, spec: str, loading: LoadingSettings, role: _Role) -> Model:
        """Loads a model after freeing the others, so that two need not fit into memory."""
        backend = backend_of(spec)
        if self._dry and backend.connect is None:
            return _Unloaded(spec)
        if backend.connect is None:
            self.free()
        if backend.remote:
            return self._connected(spec, loading, role)
        model = load_model(spec, loading)
        if isinstance(model, Described):
            self._note_facts(role, loading, model.facts)
        return model

    def _load_to_ask(self, spec: str, loading: LoadingSettings, role: _Role, batches: int) -> Model:
        """Loads a model to be asked so many batches: into this process, one for each GPU, or those of a cluster."""
        if self._cluster and self._is_within_reach(spec):
            self.free()
            nodes = self._cluster.workplace(self._on_node(spec, loading, self._cluster), loading.replicas)
            return self._replicas(spec, loading, role, batches, nodes, " on Ray")
        count = loading.processes if backend_of(spec).hub else loading.replicas or 1
        shares = shares_of_machine(count) if count != 1 else []
        if len(shares) < 2:
            return self._load(spec, loading, role)
        self.free()
        room = room_for_pictures()
        to_load = ModelToLoad(spec, loading, len(shares), (room.folder, room.most) if room else None)
        workplace = ThisMachine(partial(engines.load_and_answer, to_load), shares)
        return self._replicas(spec, loading, role, batches, workplace)

    def _replicas(
        self, spec: str, loading: LoadingSettings, role: _Role, batches: int, workplace: Workplace[Any], where: str = ""
    ) -> Replicas:
        """The model with a replica in each place."""
        replicas = Replicas(spec, workplace, self._tell, batches)
        name, count = replicas.name, workplace.places  # when one is ready, what it says of itself is known
        self._tell(f"{name}: {count} replicas{where}, each in a process of its own")
        if replicas.facts:
            self._note_facts(role, loading, {**replicas.facts, "replicas": f"{count}{where}"})
        return replicas

    @cached_property
    def _cluster(self) -> Cluster | None:
        """The Ray cluster that models are asked on; None: they are asked by processes of this machine."""
        return Cluster(self._config.ray, self._tell) if self._config.ray else None

    def _is_within_reach(self, spec: str) -> bool:
        """Whether the nodes of the cluster can open a model; if not, that is told."""
        location = split_model(spec)[1]
        reached = not is_path(location) or (self._config.ray is not None and self._config.ray.files_are_shared)
        if not reached:
            self._tell(f"{spec} is a folder of this machine: asked here and not on Ray (ray.shared_files)")
        return reached

    def _on_node(self, spec: str, loading: LoadingSettings, cluster: Cluster) -> Work:
        """What a replica does on a node of the cluster, with as many threads for pictures as it has cores."""
        ray, room = self._config.ray or RaySettings(), room_for_pictures()
        threads = max(1, int(ray.cpus)) if loading.workers is None else loading.workers
        kept = (room.folder, room.most) if room and ray.files_are_shared else None
        count = loading.replicas or cluster.joined().room
        to_load = ModelToLoad(spec, loading.model_copy(update={"workers": threads}), count, kept)
        return partial(engines.load_and_answer, to_load)

    def _note_facts(self, role: _Role, loading: LoadingSettings, facts: Mapping[str, str]) -> None:
        self._facts[role] = {**({"commit": loading.commit} if loading.commit else {}), **facts}
        self._remember(role)

    def _connected(self, spec: str, loading: LoadingSettings, role: _Role) -> RemoteModel:
        """A remote model, the same throughout: what is known of its server, such as that it sees pictures, stays so."""
        if (spec, loading) not in self._remote:
            hosting = Hosting(
                self._config.engine, self._folder.path / SERVERS, self._tell, self._config.most_reply_tokens
            )
            server = self._config.server_of("student" if role == "before" or role == "after" else role)
            made = engines.connect(spec, loading, server, self.store, hosting)
            self._remote[spec, loading] = made
            serve = backend_of(spec).serve
            if serve:
                self._facts[role] = {"engine": serve.found(self._config.engine).partition(":")[0]}
                made.before_first(lambda requests: self._describe(spec, loading, role, requests))
        return self._remote[spec, loading]

    def _describe(self, spec: str, loading: LoadingSettings, role: _Role, requests: Sequence[Request]) -> None:
        """Notes for the manifest the engine, the size and, where wanted, whether the model answers as it does here."""
        size = stored_parameters(model_folder(split_model(spec)[1], loading, weights=True))
        self._facts[role] = {**self._facts[role], **({"parameters": str(size)} if size else {})}
        chosen = list({request.image: request for request in requests}.values())[: self._config.engine.compare]
        if chosen:
            served = self._remote[spec, loading]
            equal = compare_engines(spec, loading, served, chosen, self._tell)
            self._facts[role] = {**self._facts[role], **({"greedy answers as here": equal} if equal else {})}
        self._remember(role)

    def free(self) -> None:
        """Lets go of the models: their memory can be used, and servers that the run started are ended."""
        held = [each.free() for each in self._made]
        self.end_servers()
        if any(held):
            give_back_memory()

    def end_servers(self) -> None:
        """Ends the servers that the run started; the next question to their model starts them again."""
        for remote in self._remote.values():
            remote.close()

    def _remember(self, role: _Role) -> None:
        """Has the manifest of this stage say how a model runs, once that is known."""
        facts = self._facts.get(role)
        if not facts or self._artifact is None or self._artifact.finished:
            return
        known = self._artifact.remembered.get("models", {})
        self._artifact.remember(models={**known, role: _in_turn(known.get(role, {}), facts)})

    def _asked_elsewhere(self, stage: str) -> Mapping[str, object]:
        """For the manifest: what servers were asked in a stage, over all resumes and parts; empty if nothing was."""
        of_stage = engines.of_stage(self.store.spent(), stage)
        asked = {name: spent for name, spent in of_stage.items() if spent.requests}
        notes = [engines.in_words(name, spent, self._config.server) for name, spent in asked.items()]
        usages = {name: spent.as_counts() for name, spent in asked.items()}
        return {"servers": usages, "note": "\n".join(notes)} if asked else {}


def _as_identity(name: str, numbers: Mapping[str, object]) -> str:
    """The identity of a remote model with this name, asked with these settings."""
    return content_id(name, json.dumps(numbers, sort_keys=True)) if numbers else name


def _in_turn(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """Merges two descriptions; where they differ, as after a resume on another machine, all values in order."""
    turns = {key: [*before[key].split(_THEN), now[key]] for key in before.keys() & now.keys()}
    return {**before, **now, **{key: _THEN.join(dict.fromkeys(values)) for key, values in turns.items()}}
