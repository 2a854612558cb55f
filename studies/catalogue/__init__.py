"""The studies, one file each; ``recsolve.studies.registry`` finds them by name."""
