"""The recurrences of published systems: one file per paper, each as it is written there."""
