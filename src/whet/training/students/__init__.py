"""Kinds of students, one per module; `students.base` finds them by name."""
