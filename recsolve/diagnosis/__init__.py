"""What a pilot says of a recurrence: exponents, conditioning, the iterations of every solver."""
