"""Thin-film growth data out of the lab: RHEED movies, packed, timed, delivered, proven."""

__version__ = "0.1.0"
__all__ = ["__version__"]
