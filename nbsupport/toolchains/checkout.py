"""Files of a commit of a git repository; the commit's id says what has to be in them."""

import os
import shutil
from pathlib import Path

from nbsupport.base import files, progress, settings
from nbsupport.base.errors import LabError, MissingError, first_line

#: What git sees of this process's environment: how to reach the network, not a user's settings.
_INHERITED = (
    *("PATH", "HOME", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    *("http_proxy", "https_proxy", "no_proxy", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"),
)
#: Its content is what was committed: no line endings, no filters of this machine.
_PLAIN = ("-c", "core.autocrlf=false", "-c", "core.eol=lf", "-c", "fetch.fsckObjects=true")


def get(name: str, url: str, commit: str) -> Path:
    """Return the cache's folder `name`, of the files of a commit, which are not to be changed.

    `url` is a repository's address, `commit` the whole id (40 hexadecimal digits). It is fetched
    alone, once. git computes the ids of what comes from its content, so what is there is what was
    committed; that id is compared (gitformat-pack(5), git-index-pack(1)). Raises `MissingError`
    without git, or where the repository or the commit cannot be had, `LabError` for another one.
    """
    program = shutil.which("git")
    if not program:
        raise MissingError("git", "not found", "install git, which fetches this project's sources")
    env = {key: os.environ[key] for key in _INHERITED if key in os.environ}
    env |= {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
    env |= {"GIT_TERMINAL_PROMPT": "0", "GIT_LFS_SKIP_SMUDGE": "1", "LC_ALL": "C"}

    def git(folder: Path, *words: str) -> str:
        done = files.run_tool((program, *_PLAIN, *words), folder, env)
        if not done.ok:
            lines = [
                line for line in done.stderr.splitlines() if line.startswith(("fatal", "error"))
            ]
            why = first_line(lines[0] if lines else done.stderr) or f"git {words[0]} failed"
            do = "check the network, and that address and commit are right"
            raise MissingError(f"commit {commit[:12]} of {url}", why, do)
        return done.stdout.strip()

    def make(staging: Path) -> None:
        progress.say(f"{url}: git fetches commit {commit[:12]}, into {settings.cache_dir()}")
        git(staging, "init", "-q")
        git(staging, "fetch", "-q", "--depth=1", "--no-tags", url, commit)
        git(staging, "checkout", "-q", "--detach", "FETCH_HEAD")
        came = git(staging, "rev-parse", "HEAD")
        if came != commit:
            why = f"the repository gave {came}"
            raise LabError(f"commit {commit} of {url}", why, "give a commit's whole id")
        shutil.rmtree(staging / ".git")

    return files.once(settings.cache_dir() / "sources" / name, make)
