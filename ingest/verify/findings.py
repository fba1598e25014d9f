"""What a verification says: differences by kind, and one report a stream. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ingest.errors import IngestError

__all__ = ["Difference", "Kind", "Status", "StreamReport", "worst"]

Kind = Literal[
    "uncommitted",
    "manifest",
    "settings",
    "attributes",
    "metadata",
    "time",
    "frame_index",
    "value",
    "missing object",
    "extra object",
    "torn",
    "checksum",
    "frames",
    "lost frame",
    "missing chunk",
    "extra chunk",
    "source",
    "not checked",
]
Status = Literal["verified", "repaired", "different", "missing", "unreadable"]


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as it should be; small, and pickles.

    Attributes
    ----------
    kind : str
        What sort of thing.
    message : str
        For people: what is there, and what should be.
    object : str or None
        The object of the lake that it is about.
    chunk : int or None
        The chunk.
    frame : int or None
        The first frame, counted from the stream's first.
    can_mend : bool
        Whether the source can set it right.
    """

    kind: Kind
    message: str
    object: str | None = None
    chunk: int | None = None
    frame: int | None = None
    can_mend: bool = True

    def document(self) -> dict[str, Any]:
        """Return it as JSON values; what it is not about is left out."""
        about = {"object": self.object, "chunk": self.chunk, "frame": self.frame}
        said = {name: value for name, value in about.items() if value is not None}
        return {"kind": self.kind, **said, "message": self.message}


@dataclass
class StreamReport:
    """What was found of one stream, and what was done about it.

    Attributes
    ----------
    destination : str
        Where the stream is.
    source : str or None
        What it was compared with; None: its own manifest.
    data_id : str or None
        The stream; None: there is none.
    status : str
        ``"verified"``, ``"repaired"``, ``"different"``, ``"missing"`` or ``"unreadable"``.
    chunks, frames, points : int
        Checked, good or not.
    n_bytes : int
        Of the decoded frames or points that were checked.
    differences : list of Difference
        Those that are left.
    repaired : list of Difference
        Those that were there.
    findings : list of str
        What is odd and no difference.
    seconds : float
        How long it took.
    error, hint : str or None
        Why it is not verified as a whole, and what would work.
    """

    destination: str
    source: str | None = None
    data_id: str | None = None
    status: Status = "verified"
    chunks: int = 0
    frames: int = 0
    points: int = 0
    n_bytes: int = 0
    differences: list[Difference] = field(default_factory=list)
    repaired: list[Difference] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    seconds: float = 0.0
    error: str | None = None
    hint: str | None = None

    def fail(self, error: IngestError, status: Status = "unreadable") -> StreamReport:
        """Say that it could not be verified, and why."""
        self.status, self.error, self.hint = status, str(error), error.hint
        return self

    def conclude(self, left: Sequence[Difference], repaired: Sequence[Difference] = ()) -> StreamReport:
        """Set what is left and what was repaired, and the status that follows."""
        self.differences, self.repaired = list(left), list(repaired)
        self.status = "different" if left else ("repaired" if repaired else "verified")
        if left and all(found.kind == "not checked" for found in left) and self.n_bytes == 0:
            self.status = "unreadable"
        return self


def worst(differences: Sequence[Difference], shown: int) -> list[str]:
    """Return differences as lines for people: the first few of each kind, and how many more there are."""
    kinds: dict[str, list[Difference]] = {}
    for found in differences:
        kinds.setdefault(found.kind, []).append(found)
    lines: list[str] = []
    for kind, same in kinds.items():
        lines += [f"{kind}: {found.message}" for found in same[:shown]]
        if len(same) > shown:
            lines.append(f"{kind}: {len(same) - shown} more")
    return lines
