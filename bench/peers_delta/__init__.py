"""What `python -m bench delta` compares: real artifacts before and after a change, and the tools that patch them."""
