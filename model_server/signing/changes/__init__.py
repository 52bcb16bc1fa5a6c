"""Changes of who may sign what: made as a file, carried to those who must sign it, judged there, published whole."""
