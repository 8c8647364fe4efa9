from daemons import daemon, start_daemon  # noqa: F401 (fixtures)
from impostor import impostor  # noqa: F401
