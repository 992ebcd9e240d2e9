"""What devices found: results in, stored once, rolled up by the hour, all in one transaction a batch."""
