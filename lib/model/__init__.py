"""What is studied: the text and the language models."""
