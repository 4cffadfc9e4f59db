"""Networks in the files of every framework: which kinds there are, and what a file holds."""
