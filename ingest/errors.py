"""Every error of ours.

::

    IngestError
    +-- SettingsError (ValueError)              what the user asked for cannot be
    |   +-- ArgumentTypeError (TypeError)       an argument of a type that cannot be what it should
    |   +-- ArgumentRangeError (OverflowError)  a negative number where one counts from 0
    +-- SourceError
    |   +-- SourceNotFoundError (FileNotFoundError)
    |   +-- SourceReadError (OSError)           reading failed; trying again may help
    |   +-- SourceFormatError (ValueError)      the file is not what it should be
    |   |   +-- TruncatedSourceError            shorter than its own header says
    |   |   +-- UnclosedSourceError             still being written, or its writer was killed
    |   |   +-- MissingFilterError              an HDF5 filter that is not installed
    |   |   +-- NoFramesError                   nothing in it that could be frames
    |   +-- FrameDataError (ValueError)         frames that no second read will mend
    |   +-- SourceTimeError (ValueError)        when it was recorded is not known
    |   +-- SourceChangedError                  not the file that an earlier job sent
    +-- DestinationError
    |   +-- UnreachableError (ConnectionError)  tried for as long as was asked
    |   +-- RefusedError                        a final answer: the same request gets the same answer
    |   |   +-- AuthenticationError (PermissionError)
    |   |   +-- StreamGoneError                 the platform has closed or failed the stream
    |   |   +-- UnknownNameError (LookupError)  a sample, project or tag that must exist does not
    |   |   +-- MissingObjectError (LookupError)  a lake does not hold the object
    |   |   +-- LakeDamagedError                an object of a lake is not what was written
    |   +-- LinkError                           the stream exists, its sample, project or tags are not linked
    +-- JournalError
    |   +-- JournalCorruptError
    |   +-- JournalWriteError (OSError)         disk full, read-only, permissions
    |   +-- LeaseHeldError                      another live job has the run
    |   +-- StaleEpochError                     another job took the run over; this one must end
    |   +-- SettingsChangedError (ValueError)   an earlier job sent this run with other settings
    |   +-- IllegalEventError (RuntimeError)    an event that the stream's state does not allow
    +-- SpoolError
    |   +-- SpoolFullError (OSError)            no room; there will be once it drains
    |   +-- SpoolWriteError (OSError)           the disk refused for another reason
    |   +-- SpoolReadError (OSError)            the disk did not give it; trying again may help
    |   +-- SpoolGoneError (FileNotFoundError)  removed meanwhile, by whoever delivered it
    |   +-- SpoolDamagedError                   a file is not what was written
    |   +-- SpoolParkedError                    its body waits at a failover
    +-- StreamerError (RuntimeError)            what a streamer was asked cannot be done, or did not all arrive
    +-- ClusterError (RuntimeError)             Ray is not there, or not as it must be
"""

from __future__ import annotations

__all__ = [
    "ArgumentRangeError",
    "ArgumentTypeError",
    "AuthenticationError",
    "ClusterError",
    "DestinationError",
    "FrameDataError",
    "IllegalEventError",
    "IngestError",
    "JournalCorruptError",
    "JournalError",
    "JournalWriteError",
    "LakeDamagedError",
    "LeaseHeldError",
    "LinkError",
    "MissingFilterError",
    "MissingObjectError",
    "NoFramesError",
    "RefusedError",
    "SettingsChangedError",
    "SettingsError",
    "SourceChangedError",
    "SourceError",
    "SourceFormatError",
    "SourceNotFoundError",
    "SourceReadError",
    "SourceTimeError",
    "SpoolDamagedError",
    "SpoolError",
    "SpoolFullError",
    "SpoolGoneError",
    "SpoolParkedError",
    "SpoolReadError",
    "SpoolWriteError",
    "StaleEpochError",
    "StreamGoneError",
    "StreamerError",
    "TruncatedSourceError",
    "UnclosedSourceError",
    "UnknownNameError",
    "UnreachableError",
]


class IngestError(Exception):
    """Base of all errors that this project raises on purpose.

    Parameters
    ----------
    message : str
        What was asked, what refused it, and why.
    hint : str, optional
        What would work, as one imperative sentence.

    Notes
    -----
    Pickles with all its attributes, as everything that crosses Ray must.
    """

    hint: str | None = None

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        # args holds the message only, so that unpickling calls cls(message); the rest travels in __dict__.
        super().__init__(message)
        if hint is not None:
            self.hint = hint
            self.add_note(f"hint: {hint}")  # a script's traceback shows it; the command line prints it itself

    def __str__(self) -> str:
        return str(self.args[0])


class SettingsError(IngestError, ValueError):
    """What was asked for cannot be done, whatever the data."""


class ArgumentTypeError(SettingsError, TypeError):
    """An argument has a type that it cannot have."""


class ArgumentRangeError(SettingsError, OverflowError):
    """A number is outside of what can be counted."""


class SourceError(IngestError):
    """A source cannot give what it should."""


class SourceNotFoundError(SourceError, FileNotFoundError):
    """There is no such file or folder."""


class SourceReadError(SourceError, OSError):
    """Reading failed for a reason that may pass: permission, network file system, IO error."""


class SourceFormatError(SourceError, ValueError):
    """The file is not what its name or header says."""


class TruncatedSourceError(SourceFormatError):
    """The file is shorter than its own header says."""


class UnclosedSourceError(SourceFormatError):
    """The file is still open for writing, or its writer was killed."""


class MissingFilterError(SourceFormatError):
    """The frames are compressed with an HDF5 filter that is not installed."""


class NoFramesError(SourceFormatError):
    """Nothing in the file has the shape of frames."""


class FrameDataError(SourceError, ValueError):
    """Frames that cannot be read or represented, however often one tries."""


class SourceTimeError(SourceError, ValueError):
    """When the run was recorded is not known well enough."""


class SourceChangedError(SourceError):
    """The path holds another file than the one that an earlier job sent."""


class DestinationError(IngestError):
    """A destination did not take what it was given."""


class UnreachableError(DestinationError, ConnectionError):
    """The destination did not answer properly for as long as it was tried."""


class RefusedError(DestinationError):
    """The destination gave a final no.

    Attributes
    ----------
    status : int or None
        The HTTP status, where there was one.
    """

    status: int | None = None

    def __init__(self, message: str, *, hint: str | None = None, status: int | None = None) -> None:
        super().__init__(message, hint=hint)
        if status is not None:
            self.status = status


class AuthenticationError(RefusedError, PermissionError):
    """The API key is missing, unknown, or not allowed to do this."""


class StreamGoneError(RefusedError):
    """The platform has closed or failed the stream; it takes no more chunks."""


class UnknownNameError(RefusedError, LookupError):
    """A sample, project or tag that was given by id does not exist."""


class MissingObjectError(RefusedError, LookupError):
    """A lake does not hold an object that should be there."""


class LakeDamagedError(RefusedError):
    """An object of a lake is not what was written: torn, of another length, or altered."""


class LinkError(DestinationError):
    """The stream was created, but its sample, project or tags could not be linked.

    Attributes
    ----------
    data_id : str or None
        The stream that exists, and was closed.
    """

    data_id: str | None = None

    def __init__(self, message: str, *, hint: str | None = None, data_id: str | None = None) -> None:
        super().__init__(message, hint=hint)
        if data_id is not None:
            self.data_id = data_id


class JournalError(IngestError):
    """The durable record of streams and receipts refused something."""


class JournalCorruptError(JournalError):
    """The journal's file is damaged or not a journal."""


class JournalWriteError(JournalError, OSError):
    """The journal could not be written: disk full, read-only or not permitted."""


class LeaseHeldError(JournalError):
    """Another live job has the lease of this run.

    Attributes
    ----------
    until_s : float
        When that lease ends unless it is renewed, in Unix seconds.
    """

    until_s: float = 0.0

    def __init__(self, message: str, *, hint: str | None = None, until_s: float = 0.0) -> None:
        super().__init__(message, hint=hint)
        self.until_s = until_s


class StaleEpochError(JournalError):
    """The lease was taken over by another job; whoever sees this must end."""


class SettingsChangedError(JournalError, ValueError):
    """An earlier job sent this run with settings that give other bytes or times."""


class IllegalEventError(JournalError, RuntimeError):
    """The stream's state does not allow this event."""


class SpoolError(IngestError):
    """The disk spool, where live chunks wait for the network, refused something."""


class SpoolFullError(SpoolError, OSError):
    """There is no room for a chunk, and nothing of it was kept; there will be once the spool drains.

    Attributes
    ----------
    fits_never : bool
        Whether an empty spool had no room for it either.
    """

    fits_never: bool = False

    def __init__(self, message: str, *, hint: str | None = None, fits_never: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.fits_never = fits_never


class SpoolWriteError(SpoolError, OSError):
    """The disk did not do what the spool asked, for another reason than room."""


class SpoolReadError(SpoolError, OSError):
    """What is spooled could not be read just now: permission, open files, IO error."""


class SpoolGoneError(SpoolError, FileNotFoundError):
    """A spooled chunk is not there any more: it was removed, as whoever delivers it does."""


class SpoolDamagedError(SpoolError):
    """A spooled chunk is not what was written; reading it again will not help."""


class SpoolParkedError(SpoolError):
    """A spooled chunk's body is not here: it waits at a failover.

    Attributes
    ----------
    url, name : str
        The store, and the object in it.
    """

    url: str = ""
    name: str = ""

    def __init__(self, message: str, *, hint: str | None = None, url: str = "", name: str = "") -> None:
        super().__init__(message, hint=hint)
        self.url = url
        self.name = name


class StreamerError(IngestError, RuntimeError):
    """What a streamer was asked cannot be done, or some of it did not arrive."""


class ClusterError(IngestError, RuntimeError):
    """Ray is not reachable, or lacks what the job needs."""
