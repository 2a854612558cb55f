"""``python -m recsolve.studies`` is the command line."""

from recsolve.studies.command.cli import main

main()
