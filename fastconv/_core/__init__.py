"""What the public functions are made of; nobody outside imports below `ask`, `plan` and `geometry`."""
