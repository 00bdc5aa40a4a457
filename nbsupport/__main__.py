"""`python -m nbsupport` is `pgo-lab`."""

from nbsupport.cli.commands import entry

if __name__ == "__main__":
    entry()
