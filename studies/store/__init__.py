"""Storage of studies: configs, records, sweeps and where their numbers come from."""
