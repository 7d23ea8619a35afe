"""One module a source of tasks."""
