"""What studies keep: configs, records, sweeps and where their numbers come from."""
