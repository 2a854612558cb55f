"""The base that everything else imports: arrays and their kinds, layouts, names, statuses, ties, tolerances."""
