"""The experiments of the notebooks, a module each."""
