"""Choose options on the validation part: search spaces, studies, trials, and the one test at the end."""
