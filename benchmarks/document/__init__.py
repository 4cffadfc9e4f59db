"""The results: rows, intervals, rankings, and the file that holds them."""
