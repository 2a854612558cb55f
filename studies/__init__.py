"""The command line, comparisons and plots."""
