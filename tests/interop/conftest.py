from daemons import daemon, start_daemon  # noqa: F401 (fixtures)
