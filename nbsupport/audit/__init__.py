"""Who instrumented these files, what becomes of their link, and what to do."""
