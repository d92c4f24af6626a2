"""``python -m lib``."""

import os
import sys

if sys.getfilesystemencoding() != "utf-8":  # a locale in which Python would read no file of this
    os.environ["PYTHONUTF8"] = "1"
    os.execv(sys.executable, [sys.executable, "-m", "lib", *sys.argv[1:]])

try:
    from lib.commands import line
    from lib.paper import cli
except KeyboardInterrupt:
    sys.exit("lib: stopped before it began")
except (ImportError, MemoryError, OSError) as error:  # numpy's own words for this are forty lines
    told = (str(error).strip() or type(error).__name__).splitlines()[-1]
    sys.exit(f"lib: {told}: is the memory limited (ulimit -v), or the installation not whole?")

line.add(cli.app)
cli.main()
