"""What was measured as a web page, a picture and Markdown."""
