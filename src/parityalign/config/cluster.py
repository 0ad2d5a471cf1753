"""Settings of a Ray cluster; `schema.py` joins them with the others."""

from pydantic import Field, field_validator

from parityalign.config.base import Auto, Settings


class RaySettings(Settings):
    """A Ray cluster whose nodes hold the replicas of the models; no answer hangs on these settings."""

    address: str | None = Field(default=None, min_length=1)
    """Of a cluster that is there and that this machine is a node of: `HOST:PORT`, or `auto` for the one that runs on
    this machine. None: a cluster of this machine alone, which ends with the command."""
    cpus: float = Field(default=1.0, gt=0, le=1024)
    """Cores of a replica."""
    gpus: Auto[float] = Field(default=None, ge=0, le=1024)
    """GPUs of a replica; two replicas share one at 0.5. `auto`: one if a node has one, else none."""
    shared_files: bool = False
    """Whether all nodes see models, pictures and the run folder under the paths that this machine has for them. Else
    pictures are sent, and a model that is a folder is asked on this machine alone. Without `address` they do."""
    timeout: float = Field(default=120.0, gt=0)
    """Seconds until a cluster that does not answer is given up."""
    room_timeout: float = Field(default=600.0, gt=0)
    """Seconds until replicas for which no node has room are given up, while there is none at all."""

    @field_validator("address")
    @classmethod
    def _of_a_node(cls, address: str | None) -> str | None:
        if address and address != "auto":
            host, colon, port = address.rpartition(":")
            if "://" in address or not (host and colon and port.isdecimal() and 0 < int(port) < 2**16):
                raise ValueError(
                    f"is {address!r}, which is no HOST:PORT of a cluster's head, such as 10.0.0.1:6379. Ray's clients "
                    "(ray://) are not supported: run parityalign on a node of the cluster"
                )
        return address

    @property
    def files_are_shared(self) -> bool:
        """Whether paths of this machine hold on all nodes."""
        return self.shared_files or self.address is None
