"""Diagnosis of a recurrence from a pilot: exponents, conditioning, the iterations of every solver."""
