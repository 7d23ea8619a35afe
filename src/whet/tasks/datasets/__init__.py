"""Data sets: each module defines the tasks of one source."""
