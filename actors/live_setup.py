"""What the actors of a live session are made from, and what travels between them: small values that pickle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from actors.handles import NamedHandle
from actors.options import NAMESPACE, actor_name
from ingest.destinations import is_lake
from ingest.failover import FailoverOptions
from ingest.journal.live import account_of
from ingest.retry import RetryPolicy
from ingest.shard import DEFAULT_LEVEL
from ingest.spool import Spool, SpoolLimits
from ingest.telemetry import Secret, Telemetry
from ingest.wire.models import ChunkMetadata

__all__ = ["FramesOrder", "LiveOptions", "LiveSetup", "spool_folder"]


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """How a live session works.

    Attributes
    ----------
    packers : int
        Packers of frames; 0: one for each processor, up to 4.
    orders_per_packer : int
        Chunks that one packer has at once.
    lease_s : float
        How long a dead session's lease lasts.
    direct_for_s : float
        How long a direct delivery may take before the chunk is spooled.
    scan_s : float
        Between two looks for streams that other sessions left behind.
    adopts : bool
        Whether those are delivered, too.
    level : int
        zstd level.
    drain_retry : RetryPolicy
        How a call of the spool's delivery is tried; after that it is tried again, reported as stalled meanwhile.
    spool_limits : SpoolLimits
        How large the spool may become.
    failover : FailoverOptions or None
        Where what is in the spool waits while the destination is away; None: in the spool.
    """

    packers: int = 0
    orders_per_packer: int = 2
    lease_s: float = 10.0
    direct_for_s: float = 1.0
    scan_s: float = 2.0
    adopts: bool = True
    level: int = DEFAULT_LEVEL
    drain_retry: RetryPolicy = field(default_factory=lambda: RetryPolicy(first_s=0.25, max_s=2.0, retry_for_s=5.0))
    spool_limits: SpoolLimits = field(default_factory=SpoolLimits)
    failover: FailoverOptions | None = None


@dataclass(frozen=True)
class LiveSetup:
    """Who a live session is.

    Attributes
    ----------
    session_id : str
        Names its actors and its leases.
    destination : str
        Canonical URL of a platform or a lake.
    api_key : Secret or None
        A platform's, inline, never in a runtime_env; None: a lake needs none.
    state_dir : str
        Folder of the journal and the spool, on the producer's node.
    spool_dir : str or None
        Another folder for spools than the state folder's.
    options : LiveOptions
        How it works.
    telemetry : callable
        Makes each actor's telemetry, inside it.
    """

    session_id: str
    destination: str
    api_key: Secret | None
    state_dir: str
    spool_dir: str | None = None
    options: LiveOptions = field(default_factory=LiveOptions)
    telemetry: Callable[[str], Telemetry] | None = None

    @property
    def account(self) -> str:
        """What names destination and key without showing the key; of a lake the destination alone."""
        return account_of(self.destination, self.api_key)

    @property
    def is_lake(self) -> bool:
        """Whether it goes into a lake, and not to a platform."""
        return is_lake(self.destination)

    def telemetry_of(self, role: str) -> Telemetry:
        """Return the telemetry of an actor of a role."""
        return Telemetry() if self.telemetry is None else self.telemetry(role)

    def handle(self, role: str) -> NamedHandle:
        """Return a handle on one of the session's named actors."""
        return NamedHandle(actor_name(self.session_id, role), NAMESPACE)

    @property
    def spool_folder(self) -> Path:
        """Where the account's spool is."""
        return spool_folder(self.spool_dir or Path(self.state_dir) / "spool", self.destination, self.api_key)

    def spool(self) -> Spool:
        """Return the account's spool; nothing is opened yet."""
        return Spool(self.spool_folder, self.destination, self.options.spool_limits)


def spool_folder(spools: str | Path, destination: str, api_key: Secret | None) -> Path:
    """Return the folder of an endpoint's and key's spool, below that of all spools."""
    return Path(spools) / account_of(destination, api_key)


@dataclass(frozen=True, slots=True)
class FramesOrder:
    """What a packer needs to carry one pushed chunk, besides its frames.

    Attributes
    ----------
    key, data_id : str
        The stream in the journal and at its destination.
    epoch : int
        Of the session's lease.
    seq : int
        In which order it was pushed.
    index : int
        The chunk.
    meta : ChunkMetadata
        What the platform is told of it.
    """

    key: str
    data_id: str
    epoch: int
    seq: int
    index: int
    meta: ChunkMetadata
