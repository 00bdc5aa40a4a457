"""The raw-profile ABI: every version's layout, a reader of raw profiles, the audit of files."""
