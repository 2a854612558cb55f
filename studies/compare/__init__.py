"""Several solvers on one recurrence: ``recsolve compare``, races and measurements."""
