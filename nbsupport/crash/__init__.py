"""Where and how a program crashed, and whether it is this crash."""
