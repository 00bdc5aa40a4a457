"""What runs in LLDB's own Python, never in the lab: nothing here imports nbsupport."""
