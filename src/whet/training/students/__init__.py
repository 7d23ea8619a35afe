"""One module for each kind of student; `whet.student` finds them by name."""
