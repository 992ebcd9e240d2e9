"""What an incident most likely means and what to do about it, in a few sentences."""
