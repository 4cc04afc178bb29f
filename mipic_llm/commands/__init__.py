"""What a user starts: one file per command, thin; see run.py."""
