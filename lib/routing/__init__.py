"""Who does the work: observing and replacing the expert assignment of any model."""
