"""``python -m recsolve`` is the command line."""

from recsolve.studies.command.cli import main

main()
