"""What everything stands on: errors, settings, child processes, files, progress."""

from nbsupport.base.errors import LabError

__all__ = ["LabError"]
