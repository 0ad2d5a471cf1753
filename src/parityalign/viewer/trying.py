"""One's own picture and question to a run's models: pictures are checked like any other, models load on request."""

from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock

from parityalign.core import UserError
from parityalign.data import image_id, open_picture
from parityalign.pipeline import Said, TriedModels, try_model
from parityalign.viewer.watching import WatchedRun

MAX_BYTES = 32 * 2**20
"""Of a picture that is sent."""
_KEPT = 20
"""Pictures that are kept, the last ones."""


class Trials:
    """The models of one run at a time, and the pictures that were sent."""

    def __init__(self) -> None:
        self._scratch = TemporaryDirectory(prefix="parityalign-pictures-")
        self._sending = Lock()
        self._asking = Lock()  # from the choice of models to their answer: another run's request would close them
        self._asked: tuple[object, TriedModels] | None = None

    def keep(self, content: bytes) -> str:
        """Keeps a picture, by its identity.

        Raises:
            Unfit: It is no usable picture.
            OSError: The disk refused.
        """
        open_picture(content)
        name = image_id(content)
        with self._sending:
            self._write(self._folder / name, content)
            for old in sorted(self._folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)[:-_KEPT]:
                old.unlink()
        return name

    def picture(self, name: str) -> Path | None:
        """The file of a picture that was sent; None if there is none of that identity."""
        return next((path for path in self._folder.iterdir() if path.name == name), None)

    def ask(self, run: WatchedRun, who: str, picture: Path, question: str, task: str) -> Said:
        """Asks a model; another one's request waits, and one of another run lets go of this run's models."""
        with self._asking:
            return try_model(lambda: self._models_of(run), who, picture, question, task)

    def close(self) -> None:
        """Lets go of everything."""
        with self._asking, self._sending:
            if self._asked:
                self._asked[1].close()
            self._scratch.cleanup()

    @staticmethod
    def _write(path: Path, content: bytes) -> None:
        try:
            path.write_bytes(content)
        except OSError:
            path.unlink(missing_ok=True)  # half a picture has another identity
            raise

    def _models_of(self, run: WatchedRun) -> TriedModels:
        if run.config is None:
            raise UserError("the run's configuration cannot be read, so its models are not known. Repair its run.yaml")
        if self._asked and self._asked[0] == run.config:
            return self._asked[1]
        if self._asked:
            self._asked[1].close()
        models = TriedModels(run.config)
        self._asked = (run.config, models)
        return models

    @property
    def _folder(self) -> Path:
        return Path(self._scratch.name)
