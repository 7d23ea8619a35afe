"""One module for each runtime; `whet.runtime` finds them by name."""
