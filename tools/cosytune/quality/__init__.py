"""A clip's samples -> measurements; the clips of a data set together -> which of them cannot be trusted, and why."""
