"""Says which code of the package nobody calls: neither the package itself nor a notebook.

What only a test calls is unused, too. `python -m tests.support.unused` exits with 1 for any.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def code(notebook: Path) -> str:
    """Return the code of a notebook: its cells, and the solutions of its exercises."""
    texts = []
    for cell in json.loads(notebook.read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code":
            texts.append(source)
        else:
            texts += re.findall(r"```python\n(.*?)```", source, re.DOTALL)
    return "\n".join(texts)


def main() -> int:
    """Run vulture over the package and the notebooks' code; what it may not know is in pyproject."""
    with tempfile.TemporaryDirectory() as folder:
        for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
            (Path(folder) / f"{notebook.stem}.py").write_text(code(notebook))
        command = [sys.executable, "-m", "vulture", "nbsupport", folder]
        return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
