"""JupyterLab and the site in a real browser."""
