"""The virtual environment, made whole or made anew: ``environment.py STAMP REQUIREMENTS...``

STAMP is a file in the environment's folder, written when all is installed. An environment without
its `.ready` was never finished, by whatever was interrupted, and is made from nothing.  A lock
that goes with the process lets a second call wait for the first.
(Its syntax is old, so that an old Python can say that it is too old.)
"""

import fcntl
import subprocess
import sys
from pathlib import Path


def install(stamp, requirements):
    """Install what the files name, unless `stamp` is newer than all of them; how pip ended."""
    folder = stamp.parent
    sources = [*requirements, Path("pyproject.toml")]
    if stamp.is_file() and stamp.stat().st_mtime >= max(s.stat().st_mtime for s in sources):
        return 0
    stamp.unlink(missing_ok=True)
    if not (folder / ".ready").is_file():
        (folder / ".tested").unlink(missing_ok=True)
        made = [sys.executable, "-m", "venv", "--clear", str(folder)]
        if subprocess.run(made, check=False).returncode:
            return 1
    names = " and ".join(str(path) for path in requirements)
    print("installing {} into {} (a few minutes)".format(names, folder), flush=True)
    ended = pip(folder, requirements)
    if ended == 0 and sys.dont_write_bytecode:
        compiled(folder)
    if ended == 0:
        stamp.touch()
    return ended


def compiled(folder):
    """Compile all but tests at once: no import would keep what it compiles, as
    PYTHONDONTWRITEBYTECODE asks, and every process would compile PyTorch anew.
    """
    tests = "/site-packages/.*/tests?/"  # not where the checkout itself lies below a folder "test"
    line = [str(folder / "bin/python"), "-m", "compileall", "-q", "-j", "0", "-x", tests]
    subprocess.run([*line, str(folder / "lib")], stdout=subprocess.DEVNULL, check=False)


def pip(folder, requirements):
    """Run pip with a count of packages in place of its lines; its errors as they are."""
    command = [str(folder / "bin/python"), "-m", "pip", "install", "--disable-pip-version-check"]
    command += ["--no-compile"]  # a module is compiled when it is first imported, most never are
    for path in requirements:
        command += ["--requirement", str(path)]
    out = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    count = 0
    for line in out.stdout:
        if line.startswith("Collecting"):
            count += 1
            print("\r  %d packages" % count, end="", flush=True)
        elif line.startswith("Installing"):
            print(", installing", flush=True)
        elif line.startswith("ERROR"):
            print("\n" + line.rstrip(), file=sys.stderr, flush=True)
    return out.wait()


def main(stamp, *requirements):
    """Install with the lock held; what cannot be written is one line."""
    folder = Path(stamp).parent
    try:
        with open(folder.name + ".lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print("waiting for another installation into", folder, flush=True)
                fcntl.flock(lock, fcntl.LOCK_EX)
            return install(Path(stamp), [Path(path) for path in requirements])
    except OSError as error:
        return "make: {}: {}".format(error.filename, error.strerror)


if __name__ == "__main__":
    if sys.version_info < (3, 11):
        words = "make: Python %d.%d: must be 3.11 or newer (make PYTHON=…)"
        sys.exit(words % sys.version_info[:2])
    sys.exit(main(*sys.argv[1:]))
