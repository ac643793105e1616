"""`python3 -m validator.setup`: find a Python that fits, then hand over to `command`.

Old syntax on purpose, and no import of ours before the check: Python 3.6 must still reach the one clear line.
"""

import os
import sys
import time
from typing import Optional, Tuple

STARTED_MS = int(time.time() * 1000)
OLDEST = (3, 11)
NEWEST = (3, 13)
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PICKED = "LOGSTORE_SETUP_PICKED"  # process id of the run that was re-executed: same process, newer Python
STARTED = "LOGSTORE_STARTED_MS"


def is_supported(version: Tuple[int, ...]) -> bool:
    """Tell whether a (major, minor) version is one of those we run on."""
    return OLDEST <= version <= NEWEST


def find_interpreter() -> Optional[str]:
    """Return the path of a Python that fits, newest first, or None; each candidate is asked, not trusted by name."""
    import subprocess

    ask = "import sys; print(sys.version_info[0], sys.version_info[1])"
    for name in ("python3.13", "python3.12", "python3.11", "python3"):
        for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
            path = os.path.join(folder, name)
            if not os.access(path, os.X_OK):
                continue
            try:
                answer = subprocess.check_output([path, "-c", ask], stderr=subprocess.DEVNULL, timeout=20)
                version = tuple(int(word) for word in answer.split())
            except (OSError, ValueError, subprocess.SubprocessError):
                continue  # a shim without a version behind it, for example
            if is_supported(version):
                return path
    return None


def main() -> int:
    """Run set-up under a supported interpreter; exit status 2 and one line where there is none."""
    if os.environ.get(PICKED) == str(os.getpid()) and os.environ.get(STARTED, "").isdigit():
        started_ms = int(os.environ[STARTED])
    else:
        started_ms = STARTED_MS
    os.environ.pop(PICKED, None)
    os.environ[STARTED] = str(started_ms)
    here = ".".join(str(part) for part in sys.version_info[:3])
    if not is_supported(sys.version_info[:2]):
        other = find_interpreter()
        if other is None:
            sys.stderr.write(
                "set-up: Python {} does not fit and no other was found on PATH: install Python 3.11, 3.12 or 3.13"
                " and run it as python3.11 -m validator.setup\n".format(here)
            )
            return 2
        sys.stderr.write("set-up: Python {} does not fit, going on with {}\n".format(here, other))
        sys.stderr.flush()
        os.environ[PICKED] = str(os.getpid())
        os.execv(other, [other, os.path.abspath(__file__), *sys.argv[1:]])
    # Run by path or by -m, from any folder: our own package must be the one beside this file.
    if sys.path and os.path.abspath(sys.path[0]) == os.path.dirname(os.path.abspath(__file__)):
        sys.path[0] = ROOT
    elif ROOT not in sys.path:
        sys.path.insert(0, ROOT)
    from validator.setup import command

    return command.main(sys.argv[1:], started_ms)


if __name__ == "__main__":
    sys.exit(main())
