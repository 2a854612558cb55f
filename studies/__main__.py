"""``python -m recsolve.studies`` is the command line."""

from recsolve.studies.cli import main

main()
