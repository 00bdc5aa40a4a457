"""Mach-O programs: executed on an emulated processor."""
