"""Helpers of PGO Crash Lab: what a narrative should not contain.

One noun per module; importing this package loads none of them.
"""

__version__ = "0.2.0"
