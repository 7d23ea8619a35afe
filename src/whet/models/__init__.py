"""Models: loading, running and saving them, their structure, and changes to it."""
