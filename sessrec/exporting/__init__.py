"""Models written for other runtimes, each checked against the model itself."""
