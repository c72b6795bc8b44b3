"""`train.engine: upstream`: upstream's own train.py as a child process, its log read, its epoch files taken over."""
