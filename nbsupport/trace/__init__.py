"""What happens in time: one run under LLDB, one under a tracer of system calls, as tables."""
