"""Where numbers lie: strides, rows of contiguous lanes, resets."""
