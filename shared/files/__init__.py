"""Files: checkpoints, recordings, atomic writing and errors about untrusted input."""
