"""What everything stands on: errors, settings, child processes, files, progress."""
