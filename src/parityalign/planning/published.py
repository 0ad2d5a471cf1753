"""Tables of published models (architectures without weights) and of devices, for plans."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import yaml

from parityalign.core import UserError, did_you_mean

_FOLDER = Path(__file__).parent / "published"
_GIGA = 1e9


class Device(NamedTuple):
    """A machine to run models on."""

    name: str
    operations: float
    """Peak floating-point operations per second, in the precision of inference."""
    memory: float
    """Bytes."""
    bandwidth: float
    """Memory bandwidth in bytes per second."""
    is_gpu: bool = True


def device(name: str) -> Device:
    """A device of the table.

    Raises:
        UserError: It is not in the table.
    """
    table = _devices()
    if name not in table:
        raise UserError(f"there is no device {name!r} in the table. {did_you_mean(name, list(table))}")
    return table[name]


def device_called(driver_name: str, memory: float) -> Device | None:
    """The device with this driver name; of several the one whose memory (bytes) is nearest."""
    called = {key: str(facts["name"]).split() for key, facts in _table().items()}
    words = driver_name.replace("-", " ").split()
    fitting = [_devices()[key] for key, name in called.items() if all(word in words for word in name)]
    # The longest matching name is the most specific.
    return min(fitting, key=lambda found: abs(found.memory - memory), default=None)


def architecture(location: str) -> Path | None:
    """The folder of a published model's configuration, for a hub id or for a folder named like the model."""
    known = {model.relative_to(_FOLDER).as_posix(): model for model in models()}
    wanted = Path(location).name.removesuffix("-hf")
    by_name = [model for model in models() if model.name.removesuffix("-hf") == wanted]
    is_path = location.startswith((".", "/", "~"))
    return known.get(location) or (by_name[0] if is_path and by_name else None)


def models() -> list[Path]:
    """The folders of all published architectures in the table."""
    return sorted(path.parent for path in _FOLDER.glob("*/*/config.json"))


def _devices() -> dict[str, Device]:
    def number(facts: Mapping[str, object], key: str) -> float:
        return float(str(facts[key])) * _GIGA

    return {
        name: Device(name, number(facts, "teraflops") * 1e3, number(facts, "memory"), number(facts, "bandwidth"))
        for name, facts in _table().items()
    }


def _table() -> dict[str, dict[str, object]]:
    table: dict[str, dict[str, object]] = yaml.safe_load((_FOLDER / "devices.yaml").read_text(encoding="utf-8"))
    return table
