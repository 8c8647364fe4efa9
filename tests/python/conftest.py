"""The package in client/python with the build that $GD_BUILD names, and the readers and daemons of tests/interop.

Tests find no daemon but the one they start: a run that names no socket has a private one.
"""

import os
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[2]
BUILD = Path(os.environ["GD_BUILD"])
PACKAGE = str(SOURCE / "client" / "python")

sys.path[:0] = [PACKAGE, str(SOURCE / "tests" / "interop")]
# of the processes that tests start too
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [PACKAGE, os.environ.get("PYTHONPATH")]))
os.environ.setdefault("GRADIENTD_LIBRARY", str(BUILD / "client" / "libgradientd.so"))
os.environ["GRADIENTD_DAEMON"] = str(BUILD / "daemon" / "gradientd")
os.environ.pop("XDG_RUNTIME_DIR", None)
os.environ["GRADIENTD_SOCKET"] = "/nowhere/socket"  # /run has one where the service is installed

from daemons import daemon, start_daemon  # noqa: E402, F401 (fixtures)
