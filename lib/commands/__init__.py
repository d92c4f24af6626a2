"""What the command line offers beyond running the book: composes every other room."""
