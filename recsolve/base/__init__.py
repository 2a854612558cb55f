"""What everything else stands on: arrays and their kinds, layouts, names, statuses, ties, tolerances."""
