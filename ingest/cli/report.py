"""What is said of runs at the end: one JSON document, or lines for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ingest.cli.exits import FAILED, OK, PARTIAL
from ingest.cli.planning import Candidate
from ingest.destinations import is_lake
from ingest.journal import StreamRow
from ingest.plan import RunPlan
from ingest.series_plan import SeriesPlan
from ingest.timing import Finding

__all__ = ["RunReport", "document", "exit_code", "finding_lines", "lines", "utc"]

FINDINGS_SHOWN = 5


@dataclass(frozen=True)
class RunReport:
    """What became of one run.

    Attributes
    ----------
    candidate : Candidate
        The run.
    status : str
        ``"complete"``, ``"partial"``, ``"failed"`` or ``"skipped"``.
    row : StreamRow or None
        What the journal says.
    error, hint : str or None
        Why it is not complete, and what would work.
    destination : str or None
        Where to; None: it did not come so far.
    """

    candidate: Candidate
    status: str
    row: StreamRow | None = None
    error: str | None = None
    hint: str | None = None
    destination: str | None = None

    @property
    def seconds(self) -> float:
        """How long it took in this job."""
        row = self.row
        if row is None or row.started_s is None or row.ended_s is None or self.status == "skipped":
            return 0.0
        return max(row.ended_s - row.started_s, 0.0)


def utc(unix_ms: int) -> str:
    """Return a time as ISO 8601 in UTC with milliseconds."""
    return datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def finding_lines(findings: Sequence[Finding], shown: int = FINDINGS_SHOWN) -> list[str]:
    """Return findings as lines, many of one kind as their first few and a count."""
    kinds: dict[str, list[Finding]] = {}
    for finding in findings:
        kinds.setdefault(finding.kind, []).append(finding)
    out = []
    for kind, same in kinds.items():
        for finding in same[:shown]:
            at = "" if finding.frame is None else f" (frame {finding.frame})"
            out.append(f"{kind}{at}: {finding.message}")
        if len(same) > shown:
            out.append(f"{kind}: {len(same) - shown} more")
    return out


def _is_in_lake(report: RunReport) -> bool:
    return report.destination is not None and is_lake(report.destination)


def _time_error_ms(report: RunReport, plan: RunPlan) -> float:
    return 0.0 if _is_in_lake(report) else round(plan.time_error.worst_ms, 3)


def _run(report: RunReport) -> dict[str, Any]:
    plan, row = report.candidate.plan, report.row
    confirmed = row.confirmed if row else 0
    resumed = min(row.resumed, confirmed) if row else 0
    findings = finding_lines(plan.findings if plan else ())
    if row and row.same_as and report.status != "failed":
        findings.append(f"same as {row.same_as}")
    if row and row.note:
        findings.append(row.note)
    if row and row.replaces:
        findings.append(f"replaces {row.replaces}")
    counted = {"frames": plan.frames if isinstance(plan, RunPlan) else 0}
    if isinstance(plan, SeriesPlan):
        counted["points"] = plan.frames
    return {
        "source": report.candidate.path,
        "destination": report.destination,
        "data_id": row.data_id if row else None,
        "status": report.status,
        **counted,
        "fps": plan.settings.fps if isinstance(plan, RunPlan) else None,
        "start_unix_ms_utc": plan.start_unix_ms_utc if plan else None,
        "start_from": plan.start_from if plan else None,
        "max_time_error_ms": _time_error_ms(report, plan) if isinstance(plan, RunPlan) else None,
        "chunks": {
            "total": row.chunks if row else (len(plan.chunks) if plan else 0),
            "confirmed": confirmed,
            "uploaded": confirmed - resumed,
            "resumed": resumed,
            "lost": row.lost if row else 0,
            "parked": row.end.parked if row and row.end else 0,
        },
        "frames_lost": row.frames_lost if row else 0,
        "bytes_in": plan.bytes_in if plan else 0,
        "bytes_out": row.bytes_out if row else 0,
        "seconds": round(report.seconds, 3),
        "findings": findings,
        "error": report.error,
        "hint": report.hint,
    }


def document(reports: Sequence[RunReport], seconds: float) -> dict[str, Any]:
    """Return the job's JSON document (DESIGN.md "Command line")."""
    runs = [_run(report) for report in reports]
    return {
        "runs": runs,
        "totals": {
            "runs": len(runs),
            "complete": sum(run["status"] in ("complete", "skipped") for run in runs),
            # Of runs of which something arrived, now or before.
            "frames": sum(run["frames"] for run in runs if run["chunks"]["confirmed"]),
            "points": sum(run.get("points", 0) for run in runs if run["chunks"]["confirmed"]),
            "bytes_in": sum(run["bytes_in"] for run in runs if run["chunks"]["confirmed"]),
            "bytes_out": sum(run["bytes_out"] for run in runs),
            "seconds": round(seconds, 3),
        },
    }


def lines(reports: Sequence[RunReport], seconds: float) -> list[str]:
    """Return the same for people."""
    out = []
    for report in reports:
        run = _run(report)
        chunks = run["chunks"]
        where = f" -> {report.destination}" if report.destination else ""
        out.append(f"{report.status:<9}{report.candidate.path}{where}")
        if run["data_id"]:
            since = f"from {utc(run['start_unix_ms_utc'])} ({run['start_from']})"
            what = f"{run['points']} points {since}" if "points" in run else f"{run['frames']} frames {since}"
            if run["fps"] is not None:
                error = f"time error <= {run['max_time_error_ms']:.1f} ms"
                what += f" at {run['fps']:.6g} fps, {'each with its own time' if _is_in_lake(report) else error}"
            out.append(f"         {run['data_id']}  {what}")
            parked = f", {chunks['parked']} parked" if chunks["parked"] else ""
            out.append(
                f"         {chunks['confirmed']} of {chunks['total']} chunks confirmed: {chunks['uploaded']} uploaded, "
                f"{chunks['resumed']} resumed, {chunks['lost']} lost{parked}; {run['bytes_in'] / 1e6:.1f} MB in, "
                f"{run['bytes_out'] / 1e6:.1f} MB out, {run['seconds']:.1f} s"
            )
        out += [f"         - {finding}" for finding in run["findings"]]
        if report.error:
            out.append(f"         error: {report.error}")
        if report.hint:
            out.append(f"         hint: {report.hint}")
    totals = document(reports, seconds)["totals"]
    skipped = sum(report.status == "skipped" for report in reports)
    done = " Nothing to do: everything was confirmed before." if skipped == len(reports) else ""
    out.append(
        f"{totals['complete']} of {totals['runs']} runs complete, {totals['frames']} frames, "
        + (f"{totals['points']} points, " if totals["points"] else "")
        + f"{totals['bytes_in'] / 1e6:.1f} MB in {totals['seconds']:.1f} s.{done}"
    )
    return out


def exit_code(reports: Sequence[RunReport]) -> int:
    """Return 0 if all is confirmed, 1 if nothing is, 3 if some is missing."""
    good = sum(report.status in ("complete", "skipped") for report in reports)
    if good == len(reports):
        return OK
    return FAILED if good == 0 and all(report.status == "failed" for report in reports) else PARTIAL
