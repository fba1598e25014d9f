"""One live trial: a server, a driver that pushes, kills on the way, and further sessions until the spool is empty."""

from __future__ import annotations

import random
import signal
import time
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from tests.chaos.hooks import LIVE_PHASES, Kill, killed, write_kills
from tests.chaos.live_made import PUSH, RUN, SERIES, Script
from tests.chaos.live_oracle import MORE, LiveOracle, SpoolWatch, read_log
from tests.chaos.server import HOLD, Faults
from tests.chaos.trial import KEY, LEASE_S, Process, Server, TrialResult, signal_all, start_module

DELIVERIES = 5
TRIAL_TIMEOUT_S = 120.0
PACE_S = 0.02
MANY = ("chunk_packed", "chunk_put", "chunk_spooled", "chunk_read", "ChunkConfirmed_committed")
DIRECT = (("chunk_put", "live_packer"), ("chunk_put", "timeseries_streamer"))
STREAMS = (RUN, PUSH, SERIES)
ACTORS = ("live_packer", "rheed_streamer", "timeseries_streamer", "live_dispatcher", "aggregator")
DIRECT_FOR_S = (0.0, 0.5, 1.0)

Scenario = Literal["kills", "frozen", "two scripts", "theft"]


def direct_for_s(seed: int) -> float:
    """Return how long a seed's direct deliveries may take; 0: everything goes by the spool."""
    return DIRECT_FOR_S[seed % len(DIRECT_FOR_S)]


def planned_live_kills(seed: int) -> list[Kill]:
    """One to four kills; every phase gets its turn as the seeds go round, the rest is drawn."""
    dice = random.Random(seed)
    phases = [phase for phase in LIVE_PHASES if direct_for_s(seed) > 0 or phase not in DIRECT]
    kills = []
    for turn in range(dice.randint(1, 4)):
        event, role = phases[(seed * 3 + 5 * turn) % len(phases)] if turn < 2 else dice.choice(phases)
        target = dice.choices(["self", "driver", "server", dice.choice(ACTORS)], [5, 2, 2, 3])[0]
        if event == "Sealed_committed":
            nth = dice.randrange(3)
        else:
            nth = dice.randrange(6 if (event, role) in DIRECT else 12) if event in MANY else dice.randrange(2)
        kills.append(Kill(event, nth, target, role))
    return kills


def planned_faults(seed: int, script: Script) -> Faults:
    """Return what the wire does besides its dice.

    It stands still twice, but not in every fifth seed; it refuses a chunk in every fourth.
    """
    dice = random.Random(seed + 7)
    return Faults(
        freeze_at=() if seed % 5 == 1 else (dice.randrange(30, 70), dice.randrange(90, 130)),
        freeze_s=1.6,
        refuse=(script.chunks - 2,) if seed % 4 == 3 else (),
    )


class LiveTrial:
    """The pieces of one trial."""

    def __init__(self, seed: int, folder: Path, mutant: str, direct_s: float, streams: tuple[str, ...]) -> None:
        self.seed, self.folder, self.mutant, self.direct_s, self.streams = seed, folder, mutant, direct_s, streams
        self.script = Script(seed, generation="metrology" if seed % 2 else "tool-state")
        self.faults = planned_faults(seed, self.script)
        self.watch = SpoolWatch(folder / "state")
        self.drivers = 0
        self.wrong: list[str] = []
        self.ends_s = time.monotonic() + TRIAL_TIMEOUT_S

    def begin(self) -> None:
        self.faults.write(self.folder)
        self.server = Server(self.folder, self.seed)

    def driver(self, name: str, streams: tuple[str, ...] = (), **more: object) -> Process:
        """Start a driver; one without streams delivers what others left."""
        self.drivers += 1
        config: dict[str, object] = {
            "name": name,
            "url": self.server.url,
            "script": asdict(self.script),
            "mutant": self.mutant,
            "streams": streams,
            "deliver": not streams,
            "direct_for_s": self.direct_s,
            "pace_s": PACE_S,
            "rest_s": 0.0,
            "flush": self.seed % 2 == 0,
            "finalize_for_s": 30.0 if self.mutant == "none" else 6.0,
            **more,
        }
        return start_module("tests.chaos.live_driver", self.folder, f"{name}{self.drivers}", config)

    def next_session(self) -> Process:
        """Start what delivers a killed driver's spool: another driver, or in every fourth seed the command line."""
        if self.seed % 4 != 1:
            return self.driver("driver")
        self.drivers += 1
        run = "import sys; from ingest.cli import main; sys.exit(main())"
        where = ("--to", self.server.url, "--state", str(self.folder / "state"), "--retry-for", "20s")
        return Process(self.folder, f"deliver{self.drivers}", "-c", run, "spool", "deliver", *where)

    def wait(self, driver: Process) -> int:
        return driver.wait(self.server, self.ends_s, self.watch.look)

    def wait_for(self, what: str, times: int, limit_s: float = 30.0, log: str = "events.log") -> bool:
        """Wait until a log says something so often; return whether it did."""
        file = self.folder / log
        ends_s = min(self.ends_s, time.monotonic() + limit_s)
        while time.monotonic() < ends_s:
            if file.exists() and file.read_text().count(what) >= times:
                return True
            self.watch.look()
            time.sleep(0.01)
        return False

    def hold(self, on: bool) -> None:
        """Have the wire let no chunk through, or again."""
        if on:
            (self.folder / HOLD).touch()
        else:
            (self.folder / HOLD).unlink(missing_ok=True)

    def finish(self, driver: Process, name: str) -> None:
        """Wait for a driver; if it was killed, for further sessions until nothing is left to deliver."""
        code = self.wait(driver)
        tries = 0
        while code == -signal.SIGKILL and tries < DELIVERIES and time.monotonic() < self.ends_s:
            tries += 1
            code = self.wait(self.next_session())
        if code != 0:
            self.wrong.append(f"{name} does not end well: exit code {code} after {1 + tries} starts")

    # -- what happens --------------------------------------------------------------------------------------------------

    def kills(self) -> None:
        """A script is pushed while everything is killed as planned."""
        self.finish(self.driver("driver", self.streams), "the script")

    def frozen(self) -> None:
        """A session is stopped past its lease with chunks in the spool; another delivers them; the first goes on.

        It is stopped while it pushes, or with odd seeds between its last push and `finalize`.
        """
        self.hold(True)
        if self.seed % 2 == 0:
            first = self.driver("frozen", self.streams)
            self.wait_for(" chunk_spooled ", 12)
        else:
            first = self.driver("frozen", (PUSH, SERIES), rest_s=0.3)
            self.wait_for('"pushed"', 1, log="live.log")
        signal_all(first.tree(), signal.SIGSTOP)
        self.hold(False)
        time.sleep(LEASE_S + 0.3)
        if self.wait(self.driver("driver")) != 0:
            self.wrong.append("the second session does not end well")
        if not self.watch.is_empty():
            self.wrong.append("the second session left something in the spool of a frozen one")
        signal_all(first.tree(), signal.SIGCONT)
        self.finish(first, "the frozen script")

    def two_scripts(self) -> None:
        """A camera's and a log's script share the state folder; the camera's is killed, the log's delivers for it."""
        self.hold(True)
        camera = self.driver("driver", (RUN, PUSH), pace_s=0.05)
        log = self.driver("log", (SERIES,), pace_s=0.15, deliver=True)
        self.wait_for(" chunk_spooled ", 20)
        signal_all([camera.process.pid], signal.SIGKILL)
        self.wait(camera)
        self.hold(False)
        if self.wait(log) != 0:
            self.wrong.append("the log's script does not end well")

    def theft(self) -> None:
        """A session begins while another one works; each minds its own streams, unless it is the mutant."""
        self.hold(True)
        first = self.driver("driver", self.streams, pace_s=0.1)
        self.wait_for(" chunk_spooled ", 8)
        taken = self._events("lease_taken")
        second = self.driver("thief")
        self.wait_for(" lease_taken ", taken + 1, 12.0)
        self.hold(False)
        self.finish(first, "the script")
        if self.wait(second) != 0:
            self.wrong.append("the second session does not end well")

    def _events(self, event: str) -> int:
        return (self.folder / "events.log").read_text().count(f" {event} ")


def run_live_trial(
    seed: int,
    folder: Path,
    *,
    mutant: str = "none",
    kills: list[Kill] | None = None,
    scenario: Scenario = "kills",
    direct_s: float | None = None,
    streams: tuple[str, ...] = STREAMS,
) -> TrialResult:
    """Run one trial and return what the oracle says."""
    began = time.monotonic()
    folder.mkdir(parents=True)
    if direct_s is None:
        direct_s = direct_for_s(seed) if scenario == "kills" else 0.0
    trial = LiveTrial(seed, folder, mutant, direct_s, streams)
    planned = planned_live_kills(seed) if scenario == "kills" else []
    write_kills(folder, planned if kills is None else kills)
    trial.begin()
    try:
        {
            "kills": trial.kills,
            "frozen": trial.frozen,
            "two scripts": trial.two_scripts,
            "theft": trial.theft,
        }[scenario]()
        trial.server.revive()
        wrong = trial.wrong + [f"a driver failed: {text}" for text in read_log(folder).failed]
        oracle = LiveOracle(trial.server.url, KEY, folder, trial.script, trial.faults.refuse, LEASE_S)
        wrong += oracle.differences() + trial.watch.wrong[:MORE]
    finally:
        trial.server.stop()
        trial.watch.close()
    return TrialResult(seed, time.monotonic() - began, killed(folder), trial.drivers, trial.server.starts, wrong)


def live_phase(event: str, role: str) -> tuple[str, str]:
    """Return the phase of a kill by what was seen, and by whom."""
    return (event, role) if (event, role) in LIVE_PHASES else (event, "")
