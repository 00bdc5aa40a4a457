"""A valid, mergeable profile out of what is called lost."""
