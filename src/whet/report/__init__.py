"""Reports of measurements: a web page, a picture and Markdown."""
